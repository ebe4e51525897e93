"""Why an instance is looked at: for people who ask what a figure rests on."""

from enum import StrEnum
from typing import NamedTuple


class PollReason(StrEnum):
    """What made a call on one instance due, in words."""

    FIRST = "its first look since the exporter started"
    DUE = "its turn"
    AGAIN = "the look before had failed"
    CHANGED = "a simple answer told of a change"
    REFRESH = "a retry inside an open step shows only in full answers"
    ROW = "its row in a list had moved"
    MISSED = "the lists held it no more"
    CONTROL = "all others failed: do all, or only they?"
    SPARE = "the budget had a call to spare"


class PollRequest(NamedTuple):
    """A call on one instance."""

    at: float
    """On the monotonic clock."""
    kind: str
    """`simple` or `detail`, as `polls_total` has it."""
    why: PollReason
