"""The share of the changes found by list passes that events had announced. It decides whether
events may take the place of frequent list passes. Pure."""

from collections import deque

from exporter.cloudflare.event_queue import Event
from exporter.statuses import ENDED

_GRACE = 30.0
"""Seconds by which an event may come later than the list row that shows the change."""
_REMEMBERED = 900.0
"""Seconds for which an event is remembered, until a list row shows the change: a pass over 50,000
instances takes minutes."""
_MOST_EVENTS = 100_000
_WINDOW, _SLOT = 3600.0, 60.0
ENOUGH = 100
"""Changes from which on the share means something."""
GOOD = 0.99
"""The share from which on list passes may be rare."""
_BEFORE_START = frozenset({None, "queued", "paused"})

_Change = tuple[str, str, str]
"""The workflow, the instance, and the kind of event."""


def kind_of(before: str | None, status: str) -> str | None:
    """The kind of event that announces a change of status; None: no event does.

    Args:
        before: The status in the last row; None: this is the first one.
        status: The status now.
    """
    if status in ("paused", "errored", "terminated"):
        return status
    if status == "queued":
        # A live instance that waits in the queue once more, for a place to run, may not be
        # announced.
        return status if before is None or before in ENDED else None
    if status == "complete":
        return "completed"
    return "started" if status in ("running", "waiting") and before in _BEFORE_START else None


class EventCoverage:
    """Compares an account's events with what list passes find, over the last hour. Times are of the
    monotonic clock."""

    def __init__(self) -> None:
        self._announced: dict[_Change, float] = {}
        self._found: deque[tuple[float, _Change]] = deque()
        """Changes whose event may still come, each with the time until when."""
        self._slots: deque[tuple[float, int, int]] = deque()
        """For each minute: its start, the changes, and how many of them were announced."""

    def announced(self, event: Event, now: float) -> None:
        """An event came."""
        change, known = (event.workflow, event.instance_id, event.kind), self._announced
        known.pop(change, None)  # so that it goes to the end, as the newest
        known[change] = now
        while len(known) > _MOST_EVENTS or now - next(iter(known.values())) >= _REMEMBERED:
            del known[next(iter(known))]

    def found(self, workflow: str, instance_id: str, kind: str, now: float) -> None:
        """A list row showed a change."""
        self._found.append((now + _GRACE, (workflow, instance_id, kind)))

    def ratio(self, now: float) -> float | None:
        """The share of the changes that events announced; None: there were no changes."""
        found, announced = self._judged(now)
        return announced / found if found else None

    def is_good(self, now: float) -> bool:
        """Whether events announce nearly everything, so that list passes may be rare."""
        found, announced = self._judged(now)
        return found >= ENOUGH and announced / found >= GOOD

    def _judged(self, now: float) -> tuple[int, int]:
        """The changes in the last hour whose event can't come any more, and how many of them were
        announced."""
        while self._found and self._found[0][0] <= now:
            at, change = self._found.popleft()
            if not self._slots or at - self._slots[-1][0] >= _SLOT:
                self._slots.append((at, 0, 0))
            start, found, announced = self._slots[-1]
            known = self._announced.pop(change, None) is not None
            self._slots[-1] = start, found + 1, announced + known
        while self._slots and now - self._slots[0][0] > _WINDOW:
            self._slots.popleft()
        return sum(slot[1] for slot in self._slots), sum(slot[2] for slot in self._slots)
