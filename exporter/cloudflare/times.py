"""The times in responses: which of them stand for none, and what lies between two."""

from collections.abc import Iterable
from datetime import UTC, datetime

from msgspec import Struct

_FIRST = datetime(1971, 1, 1, tzinfo=UTC)
LAST = datetime(9999, 1, 1, tzinfo=UTC)
"""Later times stand for none."""


def unix(moment: datetime | None) -> float | None:
    """A time in a response in Unix seconds; None: there is none."""
    return None if moment is None else moment.timestamp()


def latest(moments: Iterable[datetime | None]) -> datetime | None:
    """The latest of some times in a response; None: all are absent."""
    return max((moment for moment in moments if moment is not None), default=None)


def seconds(start: datetime | None, end: datetime | None) -> float | None:
    """Seconds from `start` to `end`, exact to the microsecond and at least 0."""
    return None if start is None or end is None else max(0.0, (end - start).total_seconds())


def corrected(moment: datetime | None) -> datetime | None:
    """A time that was sent, taken for UTC if it has no offset; None for 0001-01-01T00:00:00Z, Unix
    time 0 and 9999-12-31T23:59:59Z, which stand for no time."""
    if moment is None or not _FIRST.year <= moment.year < LAST.year:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def are_correct(moments: Iterable[datetime | None], limit: datetime) -> bool:
    """Whether none of these times has to be corrected. Checks only the first and the last of them,
    as there may be thousands."""
    known = [moment for moment in moments if moment is not None]
    try:
        return not known or (min(known) >= _FIRST and max(known) <= limit)
    except TypeError:  # one has no offset
        return False


def correct(thing: Struct, limit: datetime, *fields: str) -> int:
    """Corrects the times in these fields, and drops those after a limit, which can't have passed.
    Returns the number of the latter."""
    dropped = 0
    for field in fields:
        moment = corrected(getattr(thing, field))
        if moment is not None and moment > limit:
            moment, dropped = None, dropped + 1
        setattr(thing, field, moment)
    return dropped
