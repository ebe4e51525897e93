"""What scrapes see of an exporter in this process."""

from exporter.app import App
from exporter.metrics.catalogue import Family
from exporter.metrics.exposition import Exposition
from exporter.metrics.gzip_parts import unpack
from exporter.metrics.series import Changes
from tests.e2e.scrape import samples


def show_at_once(exposition: Exposition, changes: Changes) -> None:
    """Makes scrapes see the changes."""
    for _ in exposition.showing(changes):
        pass


def shown_values(app: App, family: Family) -> list[float]:
    """The values of a counter or gauge."""
    parts, _ = app.exposition.scrape(names=[family.name])
    return [*samples(unpack(parts).decode(), family.name).values()]
