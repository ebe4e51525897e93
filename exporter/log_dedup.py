"""When to log a problem: once when it begins; if it comes and goes, only every few minutes."""

from collections.abc import Collection

from exporter.clock import Clock

_QUIET = 300.0
"""Seconds for which something that was logged isn't logged again."""


class Throttle:
    """Lets each thing be logged at most once in 5 minutes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._logged_at: dict[str, float] = {}

    def may(self, thing: str) -> bool:
        """Whether a thing may be logged now; if so, it counts as logged."""
        now = self._clock.monotonic()
        self._logged_at = {t: at for t, at in self._logged_at.items() if now - at < _QUIET}
        may = thing not in self._logged_at
        self._logged_at.setdefault(thing, now)
        return may


class OpenProblems:
    """The problems of one thing that were logged and are not over.

    Args:
        throttle: If several things share it, a problem that they have in common is logged for one.
    """

    def __init__(self, throttle: Throttle) -> None:
        self._throttle = throttle
        self._logged: set[str] = set()
        self._open = False

    def news(self, present: Collection[str]) -> set[str]:
        """Which of the present problems to log now: those that are new, and those that have
        returned if the throttle allows it."""
        self._logged &= set(present)
        new = {p for p in present if p not in self._logged and self._throttle.may(p)}
        self._logged |= new
        self._open = self._open or bool(new)
        return new

    def over(self, present: Collection[str]) -> bool:
        """Whether to log now that all problems are over."""
        self._logged &= set(present)
        over = self._open and not present
        self._open = self._open and not over
        return over
