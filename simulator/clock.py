"""Clocks to hand to a world: each is a callable that returns wall-clock seconds."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache

Clock = Callable[[], float]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# A planned end past this has no date; the year is 9999.
_LAST = 253_402_300_799_999


@lru_cache(65_536)  # from one list pass to the next, most stay
def timestamp(at: int) -> str:
    """ISO 8601 with milliseconds and a Z, from milliseconds since the epoch."""
    seconds, milliseconds = divmod(min(at, _LAST), 1000)
    to_the_second = (_EPOCH + timedelta(seconds=seconds)).isoformat()[:19]
    return f"{to_the_second}.{milliseconds:03}Z"


class ManualClock:
    """Stands still until it is moved."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class SpedClock:
    """Runs `speed` times as fast as real time, from `start` on."""

    def __init__(self, speed: float, start: float | None = None) -> None:
        self.speed = speed
        self._start = time.time() if start is None else start
        self._since = time.monotonic()

    def __call__(self) -> float:
        return self._start + (time.monotonic() - self._since) * self.speed
