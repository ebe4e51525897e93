"""When to tell what is wrong: once when it begins, and what comes and goes only now and then."""

from collections.abc import Collection

from exporter.clock import Clock

_QUIET = 300.0
"""Seconds for which a thing that was told isn't told again."""


class Throttle:
    """Says whether something may be told: each thing once in a while at most."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told_at: dict[str, float] = {}

    def may(self, thing: str) -> bool:
        """Whether it may be told now; it counts as told then."""
        now = self._clock.monotonic()
        self._told_at = {t: at for t, at in self._told_at.items() if now - at < _QUIET}
        return self._told_at.setdefault(thing, now) == now


class OpenProblems:
    """What is wrong with one thing, as far as it was told."""

    def __init__(self, clock: Clock) -> None:
        self._seldom = Throttle(clock)
        self._told: set[str] = set()
        self._open = False

    def news(self, present: Collection[str]) -> set[str]:
        """Those of the present troubles that are to be told now.

        One that lasts is told once; one that comes back is told when it was not told for a while.
        """
        self._told &= set(present)
        new = {t for t in present if t not in self._told and self._seldom.may(t)}
        self._told |= new
        self._open = self._open or bool(new)
        return new

    def over(self, present: Collection[str]) -> bool:
        """Whether it is to be told now that all is well again."""
        self._told &= set(present)
        over = self._open and not present
        self._open = self._open and not over
        return over
