"""Times by the second since instances were queued, as responses and rows have them."""

from datetime import UTC, datetime, timedelta
from typing import overload

QUEUED = datetime(2026, 1, 1, tzinfo=UTC)
EPOCH = QUEUED.timestamp()
"""The same in Unix time."""


@overload
def at(second: float) -> datetime: ...
@overload
def at(second: None) -> None: ...
@overload
def at(second: float | None) -> datetime | None: ...
def at(second: float | None) -> datetime | None:
    """A time in seconds after `QUEUED`; None: there is none."""
    return None if second is None else QUEUED + timedelta(seconds=second)
