"""An exposition whose changes scrapes see at once."""

from exporter.metrics.exposition import Exposition
from exporter.metrics.series import Changes


def show_at_once(exposition: Exposition, changes: Changes) -> None:
    """Makes scrapes see the changes."""
    for _ in exposition.showing(changes):
        pass
