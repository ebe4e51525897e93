"""The records of workflows and instances in the state, from which the exporter continues after a
restart.

They are written as arrays, in which the position of a field identifies it. So a new field goes to
the end and needs a default. Times are Unix seconds.
"""

from math import inf

from msgspec import Struct

from exporter.instances.run import Run
from exporter.instances.values import InstanceValues

UNWATCHED_FOR = 7 * 86400.0
"""Seconds until the record of a removed instance expires. If the configuration names the instance
again before that, for example after a rollback, it continues from its record."""


class LastRow(Struct, frozen=True, array_like=True, gc=False):
    """What the last list row said."""

    status: str | None = None
    created: float | None = None
    modified: float | None = None


def newest_of(run: Run | None, row: LastRow) -> float:
    """The latest time that is known of an instance, in Unix time."""
    times = (row.created, run.start, run.end, run.newest) if run else (row.created,)
    return max((time for time in times if time is not None), default=-inf)


class InstanceRecord(Struct, frozen=True, array_like=True, gc=False):
    """An instance that is watched, or was. Fields without a docstring are those of `Instance`."""

    since: float
    shown: bool = False
    run: Run | None = None
    values: InstanceValues | None = None
    last_change: float = 0.0
    detailed_at: float = -inf
    wants_detail: bool = False
    not_found: int = 0
    expires_at: float | None = None
    row: LastRow = LastRow()
    removed_at: float | None = None
    """When the configuration stopped selecting it; None: it is watched."""


class WorkflowRecord(Struct, array_like=True):
    """A workflow."""

    since: float
    """When it was first watched."""
    last_pass: float | None = None
    """When the last list pass that succeeded began."""
    horizon: float = -inf
    """The time before which no end of an instance that isn't watched is news: it was counted, or is
    history."""
    discovered_since: float | None = None
    """When its instances were first discovered; None: they never were."""
    newest_unwatched: float = -inf
    """Of instances that aren't watched, the state holds none that was created after this time."""
    deleted: bool = False
    """Whether it no longer exists, as the account's list of workflows says."""
    discover: str = ""
    """The `discover` with which it was last attached, as JSON, or null; empty: not known."""
