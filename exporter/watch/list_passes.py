"""The list passes over one workflow: when they began, and how the last one ended."""

from collections.abc import Sequence
from math import inf

from exporter.clock import Clock
from exporter.cloudflare.errors import RequestFailed
from exporter.instances.state_records import WorkflowRecord

LATE = 60.0
"""Seconds after its creation by which an instance is in the lists, at the latest."""


class ListPasses:
    """The passes of this process, and what the state has recorded of those before.

    Args:
        record: The record of the workflow; it has the last pass that succeeded.
        clock: The time.

    Attributes:
        began: When the last pass began, or the one under way (monotonic clock).
        done: Whether a pass has ended, whether or not it succeeded.
        failure: Why the last pass failed; None: it succeeded.
    """

    def __init__(self, record: WorkflowRecord, clock: Clock) -> None:
        self.began, self.done = -inf, False
        self.failure: RequestFailed | None = None
        self._record, self._clock = record, clock

    def end(self, failures: Sequence[RequestFailed]) -> None:
        """The pass has ended; without failures, it succeeded."""
        self.done, self.failure = True, failures[0].without_frames() if failures else None

    @property
    def last_succeeded(self) -> float | None:
        """When the last pass that succeeded began (monotonic clock); None: none has."""
        if self._record.last_pass is None:
            return None
        # The clock may have been ahead when it was recorded.
        age = max(0.0, self._clock.now().steady - self._record.last_pass)
        return self._clock.monotonic() - age

    @property
    def as_of(self) -> float | None:
        """When the pass began as of which the lists are known (monotonic clock). After a failed
        pass, that is the last one that succeeded; None: none has."""
        failed = not self.done or self.failure is not None
        return self.last_succeeded if failed else self.began

    @property
    def settled(self) -> float:
        """The moment (monotonic clock) before which instances must have expired to be in no list as
        news any more."""
        return (self.last_succeeded or -inf) - LATE
