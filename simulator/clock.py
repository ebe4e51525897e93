"""Clocks to hand to a world: each is a callable that returns wall-clock seconds."""

import time
from collections.abc import Callable

Clock = Callable[[], float]


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
