"""The queue for one credential's budget: polls and list pages wait here for their turn.

Each urgency has a weight. The urgencies that have something waiting share the
turns in proportion to their weights, and what one doesn't need goes to the others (weighted fair
queueing). So urgent requests wait for a few turns only, and none starves: where `n` requests wait
under an urgency of weight `w`, the last has its turn within `n * sum(weights) / w` turns. The most
overdue goes first, whichever workflow it belongs to.
"""

import asyncio
import heapq
from collections.abc import Awaitable

from msgspec import Struct

from exporter.clock import Clock
from exporter.cloudflare.budget import Budget
from exporter.instances.urgency import Urgency

CANNOT_WAIT = (Urgency.ERRORED, Urgency.MISSED, Urgency.CONFIGURED)
"""Those whose delay is a lag (`poll_lag_seconds`)."""
WEIGHTS = {
    Urgency.ERRORED: 200.0,
    Urgency.MISSED: 200.0,
    Urgency.CONFIGURED: 50.0,
    Urgency.PAGE: 50.0,
    Urgency.CHANGED: 1.0,
    Urgency.LIVE: 1.0,
    Urgency.SPARE: 0.5,
}
"""The share of turns that each gets where several wait.

Until the polls of the first two are made, what is shown is wrong or unexplained, so they get four
of five turns. List pages and configured instances get as many turns as each other. Details that can
wait get one turn for every fifty list pages, so that list passes hardly take longer."""


class Waiting(Struct, frozen=True, gc=False):
    """Something that waits for a turn. `gc=False`: there may be tens of thousands."""

    due: float
    """When it was due (monotonic clock)."""

    def wanted(self) -> bool:
        """Whether it is still to be made; asked when its turn comes."""
        return True

    def poll(self) -> Awaitable[None]:
        """Makes the poll; only called while it is wanted. It must not raise."""
        raise NotImplementedError


class _Turn(Waiting, frozen=True, gc=False):
    """A turn that somebody waits for, to make a request then."""

    given: asyncio.Future[None]

    def wanted(self) -> bool:
        return not self.given.done()

    async def poll(self) -> None:
        self.given.set_result(None)


class PollQueue:
    """The queue of one credential.

    Args:
        budget: Says when the next request may be made.
        at_once: Maximum polls that are under way at the same time.
        clock: The time.
    """

    def __init__(self, budget: Budget, *, at_once: int, clock: Clock) -> None:
        self.budget = budget
        self._clock = clock
        self._at_once = at_once
        self._waiting: dict[Urgency, list[tuple[float, int, Waiting]]] = {u: [] for u in Urgency}
        """A heap for each urgency: the most overdue comes first and, of those, the oldest."""
        self._added = 0
        self._last_turn = 0.0
        """The position of the last turn in the order of all turns."""
        self._next_turn = dict.fromkeys(Urgency, 0.0)
        """The position of the next turn of each urgency."""
        self.progress_at = clock.monotonic()
        """When a poll last ended, or the queue was last empty (monotonic clock)."""
        self._changed = asyncio.Event()
        self._under_way: set[asyncio.Task[None]] = set()
        self._serving: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    @property
    def needed(self) -> int:
        """Number of requests that wait, but for those that take what the others leave."""
        return len(self) - len(self._waiting[Urgency.SPARE])

    @property
    def under_way(self) -> int:
        """Number of polls that are under way."""
        return len(self._under_way)

    @property
    def lag(self) -> float:
        """Seconds by which the most overdue urgent poll is late; those that can wait don't
        count."""
        now = self._clock.monotonic()
        dues = (self._waiting[u][0][0] for u in CANNOT_WAIT if self._waiting[u])
        return max((now - due for due in dues), default=0.0)

    @property
    def details_wait(self) -> bool:
        """Whether requests wait that can wait."""
        return any(self._waiting[u] for u in Urgency if u > Urgency.PAGE)

    def put(self, waiting: Waiting, urgency: Urgency) -> None:
        """Adds a poll."""
        self._changed.set()
        if not len(self) and not self._under_way:
            self.progress_at = self._clock.monotonic()
        if not self._waiting[urgency]:
            self._next_turn[urgency] = self._last_turn + 1 / WEIGHTS[urgency]
        self._added += 1
        heapq.heappush(self._waiting[urgency], (waiting.due, self._added, waiting))
        self._prune()
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._serve())

    async def turn(self, urgency: Urgency) -> None:
        """Returns when it is the caller's turn to make a request."""
        given: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.put(_Turn(self._clock.monotonic(), given), urgency)
        await given

    async def stop(self, grace: float) -> None:
        """Drops the polls that wait, and gives those under way `grace` seconds to finish."""
        pages = [page for _, _, page in self._waiting[Urgency.PAGE]]
        for queue in self._waiting.values():
            queue.clear()
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.gather(self._serving, return_exceptions=True)
        # After a reload replaced this queue, list passes still wait here; they get their turn at
        # once.
        await asyncio.gather(*map(self._make, pages))
        if self._under_way:
            _, late = await asyncio.wait(self._under_way, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _serve(self) -> None:
        while len(self):
            # First wait, then choose: what is most urgent may change meanwhile.
            await self.budget.ready()
            chosen = self._next()
            if chosen is None:
                self._changed.clear()
                await self._changed.wait()
                continue
            task = asyncio.create_task(self._make(chosen))
            self._under_way.add(task)
            task.add_done_callback(self._ended)
            # Lets the task, and whoever waits for this turn, send the request before the next is
            # chosen.
            for _ in range(2):
                await asyncio.sleep(0)

    def _next(self) -> Waiting | None:
        """The next to have a turn; None: there is none until a poll ends, or another is added."""
        self._prune()
        may = Urgency if len(self._under_way) < self._at_once else (Urgency.PAGE,)
        waiting = [urgency for urgency in may if self._waiting[urgency]]
        if not waiting:
            return None
        urgency = min(waiting, key=lambda u: self._next_turn[u])
        self._last_turn = self._next_turn[urgency]
        self._next_turn[urgency] += 1 / WEIGHTS[urgency]
        return heapq.heappop(self._waiting[urgency])[-1]

    def _prune(self) -> None:
        """Drops what is no longer wanted from the front of each queue."""
        for queue in self._waiting.values():
            while queue and not queue[0][-1].wanted():
                heapq.heappop(queue)

    async def _make(self, chosen: Waiting) -> None:
        if chosen.wanted():  # it may have been cancelled since
            await chosen.poll()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self.progress_at = self._clock.monotonic()
        self._changed.set()
