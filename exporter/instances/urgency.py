"""What goes first when the rate budget can't carry every request."""

from enum import IntEnum

_LONGEST_STRETCH = 45.0
"""Seconds from one list pass to the next beyond which passes aren't delayed for details."""


class Urgency(IntEnum):
    """What a request is for that waits for its turn at the budget. Requests of one urgency are
    served by when they were due."""

    ERRORED = 0
    MISSED = 1
    """Only a poll can show its status: it was live and is no longer in any list, or its row is of
    another run than the known one."""
    CONFIGURED = 2
    """Named in the configuration, and due."""
    PAGE = 3
    """A page of a list: it shows the statuses of 100 instances."""
    CHANGED = 4
    """It has ended, or was never seen before: its steps are to be fetched."""
    LIVE = 5
    """The steps of a live instance, whose row has shown its status."""
    SPARE = 6
    """No list shows a change: it takes what the others leave of the budget."""


def stretched(interval: float, took: float) -> float:
    """Seconds from the start of one list pass to that of the next, while details that can wait do.

    Passes leave details as many turns as they take themselves. Otherwise passes that take about as
    long as their interval would leave none, and steps and retries would be hours old.

    Args:
        interval: Seconds from one to the next while no details wait.
        took: Seconds that the last pass took.
    """
    return max(interval, min(2 * took, _LONGEST_STRETCH))
