"""Why an instance was polled, as its page shows it."""

from enum import StrEnum
from typing import NamedTuple


class PollReason(StrEnum):
    """What made a request for one instance due."""

    FIRST = "first poll since the exporter started"
    DUE = "poll interval"
    AGAIN = "retry after a failed poll"
    CHANGED = "a simple response showed a change"
    REFRESH = "regular detail request, as only those show retries inside an open step"
    ROW = "its list row changed"
    MISSED = "missing from the lists"
    CONTROL = "all others failed; checks whether every poll does"
    SPARE = "spare request budget"


class PollRequest(NamedTuple):
    """A request for one instance."""

    at: float
    """On the monotonic clock."""
    kind: str
    """`simple` or `detail`, as `polls_total` has it."""
    why: PollReason
