"""The queue for one credential's budget: polls and list pages wait here for their turn.

Each urgency has a weight. While several have something waiting, they share the turns in proportion
to their weights, and what one doesn't need goes to the others (weighted fair queueing). So the
urgent ones wait for a few turns only, and none starves: of an urgency with the weight `w`, one of
`n` that wait is made within `n * sum(weights) / w` turns.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable

from msgspec import Struct

from exporter.clock import Clock
from exporter.cloudflare.budget import Budget
from exporter.instances.instance import Urgency

_NOW = (Urgency.ERRORED, Urgency.MISSED, Urgency.CONFIGURED)
# Without the polls of the first two, what is shown is wrong or unexplained: four of five turns.
# List pages and configured instances take turns. Polls for details that can wait get a fiftieth of
# the turns of list pages, so that a list pass takes hardly longer for them.
_WEIGHTS = {
    Urgency.ERRORED: 200.0,
    Urgency.MISSED: 200.0,
    Urgency.CONFIGURED: 50.0,
    Urgency.PAGE: 50.0,
    Urgency.CHANGED: 1.0,
    Urgency.LIVE: 1.0,
}


class Waiting(Struct, frozen=True, gc=False):
    """A poll that waits: tens of thousands are no work for the garbage collector."""

    due: float
    """When it was to be made (monotonic clock)."""

    def wanted(self) -> bool:
        """Whether it still is to be made; asked when its turn comes."""
        return True

    def poll(self) -> Awaitable[None]:
        """Makes it, and must not raise."""
        raise NotImplementedError


class _Turn(Waiting, frozen=True, gc=False):
    """A request that who waits for its turn makes."""

    given: asyncio.Future[None]

    def wanted(self) -> bool:
        return not self.given.done()

    async def poll(self) -> None:
        if self.wanted():
            self.given.set_result(None)


class PollQueue:
    """The queue of one credential.

    Args:
        budget: The requests that there are turns for.
        at_once: Polls under way at the same time, at most.
        clock: The time.
    """

    def __init__(self, budget: Budget, *, at_once: int, clock: Clock) -> None:
        self.budget = budget
        self._clock = clock
        self._at_once = at_once
        self._waiting: dict[Urgency, deque[Waiting]] = {urgency: deque() for urgency in Urgency}
        self._turn = 0.0
        self._next_turn = dict.fromkeys(Urgency, 0.0)
        """By urgency, the place of its next turn in the order; `_turn` is that of the last."""
        self.progress_at = clock.monotonic()
        """When a poll last ended, or there was none to make (monotonic clock)."""
        self._changed = asyncio.Event()
        self._under_way: set[asyncio.Task[None]] = set()
        self._serving: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    @property
    def under_way(self) -> int:
        """Polls that are being made."""
        return len(self._under_way)

    @property
    def lag(self) -> float:
        """Seconds by which the most overdue urgent poll is late; those that can wait have none."""
        now = self._clock.monotonic()
        return max((now - self._waiting[u][0].due for u in _NOW if self._waiting[u]), default=0.0)

    def put(self, waiting: Waiting, urgency: Urgency) -> None:
        """Adds a poll."""
        self._changed.set()
        if not len(self) and not self._under_way:
            self.progress_at = self._clock.monotonic()
        if not self._waiting[urgency]:
            self._next_turn[urgency] = self._turn + 1 / _WEIGHTS[urgency]
        self._waiting[urgency].append(waiting)
        self._prune()
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._serve())

    async def turn(self, urgency: Urgency) -> None:
        """Waits for the turn of a request that the caller then makes itself."""
        given: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.put(_Turn(self._clock.monotonic(), given), urgency)
        await given

    async def stop(self, grace: float) -> None:
        """Drops the polls that wait; those under way may finish within `grace` seconds."""
        pages = tuple(self._waiting[Urgency.PAGE])
        for queue in self._waiting.values():
            queue.clear()
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.gather(self._serving, return_exceptions=True)
        # Who waits for a page still does so after a reload that replaced this queue.
        await asyncio.gather(*(page.poll() for page in pages))
        if self._under_way:
            _, late = await asyncio.wait(self._under_way, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _serve(self) -> None:
        while len(self):
            # Only then is it decided who is next: what is urgent by then, not now.
            await self.budget.ready()
            chosen = self._next()
            if chosen is None:
                self._changed.clear()
                await self._changed.wait()
                continue
            task = asyncio.create_task(self._make(chosen))
            self._under_way.add(task)
            task.add_done_callback(self._ended)
            # Lets it, and who waits for it, take the turn before the next is chosen.
            for _ in range(2):
                await asyncio.sleep(0)

    def _next(self) -> Waiting | None:
        """Who is next; None: nobody before a poll under way has ended or another is added."""
        self._prune()
        may = Urgency if len(self._under_way) < self._at_once else (Urgency.PAGE,)
        waiting = [urgency for urgency in may if self._waiting[urgency]]
        if not waiting:
            return None
        urgency = min(waiting, key=lambda u: self._next_turn[u])
        self._turn = self._next_turn[urgency]
        self._next_turn[urgency] += 1 / _WEIGHTS[urgency]
        return self._waiting[urgency].popleft()

    def _prune(self) -> None:
        """Drops what is no longer wanted from the heads: what waits longest is given up first."""
        for queue in self._waiting.values():
            while queue and not queue[0].wanted():
                queue.popleft()

    async def _make(self, chosen: Waiting) -> None:
        try:
            if chosen.wanted():  # it may have been given up since
                await chosen.poll()
        finally:
            self.progress_at = self._clock.monotonic()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._changed.set()
