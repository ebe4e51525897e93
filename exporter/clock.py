"""Time, handed in: schedules run on the monotonic clock, values are wall-clock times."""

import time
from collections.abc import Callable
from typing import NamedTuple

# Where it exists: Linux' other monotonic clock stands still while the machine sleeps.
_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def _monotonic() -> float:
    return time.clock_gettime(_BOOT)


class Moment(NamedTuple):
    """One moment, by each of the clocks."""

    monotonic: float
    steady: float
    """Unix time, as `Clock.steady` has it."""
    wall: float
    """Unix time."""


class Clock:
    """Two clocks, both in seconds; `wall` is Unix time."""

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = _monotonic,
    ) -> None:
        self.wall = wall
        self.monotonic = monotonic
        self._start = wall() - monotonic()

    def steady(self) -> float:
        """Unix time for what is measured against Cloudflare's times over hours.

        A clock that is wrongly set ahead for a while doesn't make everything history.
        """
        return min(self.wall(), self._start + self.monotonic())

    def now(self) -> Moment:
        """This moment."""
        return Moment(self.monotonic(), self.steady(), self.wall())
