"""What the caller of a transition in `lifecycle` has to do."""

from typing import NamedTuple

from exporter.instances.instance import PollRequest
from exporter.instances.run_tracker import Observations


class Effects(NamedTuple):
    """What the caller of a transition has to do."""

    record: bool = False
    """Write to the state what is known of the instance."""
    show: bool = False
    """Show its values, if it has series."""
    observations: Observations | None = None
    """Count these."""
    request: PollRequest | None = None
    """Make this request: the poll isn't over."""
    want_detail: bool = False
    """Ask for a detail request: only that shows which run a row is of."""
    repeats: bool = False
    """It shows the end that a detail response has shown with all steps."""
    hide: bool = False
    """Take its series away."""
    remove: bool = False
    """Watch it no longer. What was counted of its run stays known."""
    skipped: bool = False
    """Count that it ended and its steps were never fetched."""


NOTHING = Effects()
