"""Time that runs as fast as the work allows: an event loop whose clock jumps to the next timer.

All waiting in the exporter is done by the loop, and its clocks are handed in, so a day of it passes
in minutes. The API is called without sockets, which would bring real time back.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_PATIENCE = 10.0


class _Selector(selectors.DefaultSelector):
    """Waits for nothing but threads: what it should have waited is added to the time instead."""

    skipped = 0.0
    threads = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.threads and timeout != 0:
            return super().select(None)
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if not ready and timeout:
            self.skipped += timeout
        elif not ready and timeout is None:
            ready = super().select(_PATIENCE)  # a thread that isn't the loop's own, perhaps
            if not ready:
                raise RuntimeError("everything waits, and for nothing that will come")
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that starts at time 0."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.skipped

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """What a thread does takes no time."""

        def ended(_: asyncio.Future[Any]) -> None:
            self._virtual.threads -= 1

        self._virtual.threads += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(ended)
        return future


def run(main: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
