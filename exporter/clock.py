"""Time, handed in: schedules run on the monotonic clock, values are wall-clock times."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from math import inf
from typing import NamedTuple

# Where it exists: Linux' other monotonic clock stands still while the machine sleeps.
_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

_BEHIND = timedelta(days=7)
_EVEN = 5.0
"""Seconds that a comparison of clocks may be wrong by: a time arrives late, in whole seconds."""


def _monotonic() -> float:
    return time.clock_gettime(_BOOT)


async def wait_at_most(seconds: float | None, event: asyncio.Event) -> None:
    """Returns once an event is set, at the latest after this time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


class Moment(NamedTuple):
    """One moment, by each of the clocks."""

    monotonic: float
    steady: float
    """Unix time, as `Clock.steady` has it."""
    wall: float
    """Unix time as other machines have it."""


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
        self._theirs = -inf
        """Cloudflare's clock less the monotonic one, as responses show."""

    def steady(self) -> float:
        """Unix time for what is measured against Cloudflare's times over hours.

        A clock that is wrongly set ahead, for a while or since the start, doesn't make everything
        history, nor hide what is new.
        """
        return self._steady(self.wall(), self.monotonic())

    def _steady(self, wall: float, monotonic: float) -> float:
        return min(wall, self._corrected(self._start + monotonic, monotonic))

    def _corrected(self, wall: float, monotonic: float) -> float:
        """Cloudflare's time where a clock is ahead of it; one that is a week behind may be
        another's."""
        theirs = self._theirs + monotonic
        return theirs if _EVEN < wall - theirs < _BEHIND.total_seconds() else wall

    def compare(self, theirs: float) -> None:
        """Takes a Unix time that Cloudflare's clock shows at this moment."""
        offset = theirs - self.monotonic()
        if abs(offset - self._theirs) > _EVEN:
            self._theirs = offset

    def latest(self) -> float:
        """Unix time by that of this machine's clock and Cloudflare's which is ahead."""
        return max(self.steady(), self._theirs + self.monotonic())

    def latest_possible(self) -> datetime:
        """No time that is later has passed, unless both clocks are more than a week behind."""
        return datetime.fromtimestamp(self.latest(), UTC) + _BEHIND

    def now(self) -> Moment:
        """This moment."""
        wall, monotonic = self.wall(), self.monotonic()
        # What is of the future would seem fresh for as long as it is.
        shown = self._corrected(wall, monotonic)
        return Moment(monotonic, self._steady(wall, monotonic), shown)
