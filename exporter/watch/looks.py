"""Looks at instances that wait for their turn at one credential's budget, the most urgent first.

None starves: every fifth turn goes to the look that is furthest behind its plan, however little
urgent it is. So with `n` looks waiting, each is made within `5 n` turns.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import NamedTuple

from exporter.clock import Clock
from exporter.cloudflare.budget import Budget

_OLDEST_EVERY = 5


class Urgency(IntEnum):
    """What comes first; within one, first come, first served."""

    ERRORED = 0
    MISSED = 1
    """It was live, and the lists hold it no more: its status isn't known until it is looked at."""
    CONFIGURED = 2
    """Asked for by name, and due."""
    CHANGED = 3
    LIVE = 4
    ENDED = 5


_NOW = (Urgency.ERRORED, Urgency.MISSED, Urgency.CONFIGURED)
_SHARE = 0.05
"""Other looks for each page of a list, while lists are read."""


class _Waiting(NamedTuple):
    due: float
    look: Callable[[], Awaitable[None]]
    wanted: Callable[[], bool]


class Looks:
    """The queue of one credential.

    Args:
        budget: Whose turn it is to wait for.
        at_once: Looks under way at the same time, at most.
        clock: The time.
    """

    def __init__(self, budget: Budget, *, at_once: int, clock: Clock) -> None:
        self.budget = budget
        self._clock = clock
        self._at_once = at_once
        self._slots = asyncio.Semaphore(at_once)
        self._waiting: dict[Urgency, deque[_Waiting]] = {urgency: deque() for urgency in Urgency}
        self._turns = 0
        self.progress = clock.monotonic()
        """When a look last ended, or there was none to make (monotonic clock)."""
        self._sweeps = 0
        self._credit = 0.0
        self._changed = asyncio.Event()
        self._under_way: set[asyncio.Task[None]] = set()
        self._serving: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    @property
    def under_way(self) -> int:
        """Looks that are being made."""
        return len(self._under_way)

    @property
    def urgent(self) -> int:
        """Looks that wait and without which what is shown is wrong, or an error unexplained."""
        return sum(len(self._waiting[urgency]) for urgency in _NOW)

    @property
    def lag(self) -> float:
        """Seconds that the oldest look is behind its plan; those that can wait have none."""
        now = self._clock.monotonic()
        return max((now - self._waiting[u][0].due for u in _NOW if self._waiting[u]), default=0.0)

    def put(
        self,
        look: Callable[[], Awaitable[None]],
        urgency: Urgency,
        *,
        due: float,
        wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        """Adds a look, which must not raise.

        Args:
            look: Makes it.
            urgency: How urgent it is.
            due: When it was to be made, on the monotonic clock.
            wanted: Whether it still is to be made; asked when its turn comes.
        """
        self._changed.set()
        if not len(self) and not self._under_way:
            self.progress = self._clock.monotonic()
        self._waiting[urgency].append(_Waiting(due, look, wanted))
        self._prune()
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._serve())

    @contextmanager
    def sweeping(self) -> Iterator[None]:
        """While lists are read, they go first: they keep the statuses of all instances fresh."""
        self._sweeps += 1
        try:
            yield
        finally:
            self._sweeps -= 1
            self._changed.set()

    def swept(self, pages: int) -> None:
        """So many pages were read; looks that have no hurry get their share of turns."""
        self._credit = min(self._credit + _SHARE * pages, 1000.0)
        self._changed.set()

    async def stop(self, grace: float) -> None:
        """Forgets what waits; what is under way may finish within `grace` seconds."""
        for queue in self._waiting.values():
            queue.clear()
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.gather(self._serving, return_exceptions=True)
        if self._under_way:
            _, late = await asyncio.wait(self._under_way, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _serve(self) -> None:
        while len(self):
            await self._slots.acquire()
            try:
                # Only then is it decided who is next: what is urgent by then, not now.
                await self._may_look()
                look = self._next()
            except BaseException:
                self._slots.release()
                raise
            if look is None:
                self._slots.release()
                continue
            task = asyncio.create_task(self._make(look))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
            # Lets it take its turn before the next is chosen.
            await asyncio.sleep(0)

    async def _may_look(self) -> None:
        while True:
            await self.budget.ready()
            if not self._sweeps or self.urgent:
                return
            if self._credit >= 1:
                self._credit -= 1
                return
            self._changed.clear()
            await self._changed.wait()

    def _next(self) -> Callable[[], Awaitable[None]] | None:
        self._prune()
        queues = [queue for queue in self._waiting.values() if queue]
        if not queues:
            return None
        self._turns += 1
        if self._turns % _OLDEST_EVERY == 0:
            return min(queues, key=lambda queue: queue[0].due).popleft().look
        return queues[0].popleft().look

    def _prune(self) -> None:
        """Drops what is no longer wanted from the heads: what waits longest is given up first."""
        for queue in self._waiting.values():
            while queue and not queue[0].wanted():
                queue.popleft()

    async def _make(self, look: Callable[[], Awaitable[None]]) -> None:
        try:
            await look()
        finally:
            self.progress = self._clock.monotonic()
            self._slots.release()
