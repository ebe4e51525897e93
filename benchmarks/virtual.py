"""Time that runs as fast as the work allows: an event loop whose clock jumps to the next timer.

Everything of the exporter that waits does it through the loop, and its clocks are handed in, so a
day of it passes in minutes. Upstream is called without sockets, which would bring real time back.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Waits for nothing: what it should have waited is added to the time instead."""

    skipped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if not ready and timeout:
            self.skipped += timeout
        elif not ready and timeout is None:
            raise RuntimeError("everything waits, and for nothing that will come")
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that starts at time 0."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.skipped


def run(main: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
