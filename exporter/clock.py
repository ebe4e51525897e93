"""The clocks. Schedules go by the monotonic clock. Times that are shown are wall-clock times,
corrected where this machine's clock is ahead of Cloudflare's."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from math import inf
from typing import NamedTuple

# Linux' other monotonic clock stands still while the machine sleeps.
_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

_BEHIND = timedelta(days=7)
"""How far Cloudflare's clock or this machine's may be behind the other. Beyond that, nobody knows
which one is wrong."""
_EVEN = 5.0
"""Seconds by which a comparison of clocks may be wrong, since a `Date` has whole seconds and
arrives late."""


def _monotonic() -> float:
    return time.clock_gettime(_BOOT)


async def wait_at_most(seconds: float | None, event: asyncio.Event) -> None:
    """Returns when an event is set, but at the latest after these seconds; None: no limit."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


class Moment(NamedTuple):
    """One moment, by each clock."""

    monotonic: float
    steady: float
    """Unix time for comparisons with Cloudflare's times over hours.

    It doesn't follow a clock that is set ahead wrongly, for a while or since the start. With such a
    clock, everything would be history, or what is new would be hidden.
    """
    unix: float
    """Unix time to show: that of the wall clock, corrected where it is ahead of Cloudflare's."""


class Clock:
    """A wall clock (Unix time) and a monotonic clock, both in seconds."""

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = _monotonic,
    ) -> None:
        self.wall = wall
        self.monotonic = monotonic
        self._start = wall() - monotonic()
        self._theirs = -inf
        """Cloudflare's clock minus the monotonic clock, as responses show it."""

    def _corrected(self, wall: float, monotonic: float) -> float:
        """Cloudflare's time if it is behind this clock, but by less than a week: further behind, it
        may be the wrong one."""
        theirs = self._theirs + monotonic
        return theirs if _EVEN < wall - theirs < _BEHIND.total_seconds() else wall

    def compare(self, theirs: float) -> None:
        """Takes the Unix time that Cloudflare's clock shows now."""
        offset = theirs - self.monotonic()
        if abs(offset - self._theirs) > _EVEN:
            self._theirs = offset

    def latest(self) -> float:
        """Unix time by that of this machine's clock and Cloudflare's which is ahead."""
        return max(self.now().steady, self._theirs + self.monotonic())

    def latest_possible(self) -> datetime:
        """A time such that later ones can't have passed, unless both clocks are a week behind."""
        return datetime.fromtimestamp(self.latest(), UTC) + _BEHIND

    def now(self) -> Moment:
        """This moment."""
        wall, monotonic = self.wall(), self.monotonic()
        steady = min(wall, self._corrected(self._start + monotonic, monotonic))
        # Data with a time in the future would seem fresh until that time has come.
        shown = self._corrected(wall, monotonic)
        return Moment(monotonic, steady, shown)
