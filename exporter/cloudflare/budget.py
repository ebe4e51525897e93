"""The rate budget of a credential: at most `api.requests_per_5m`, less while other tools of its
user send requests, and none after a 429 until Cloudflare allows it.

Cloudflare counts a user's requests in a sliding window of 5 minutes, over all tokens and the
dashboard together. Once the limit is exceeded, it refuses all requests of that user for 5 minutes
(API rate limits, Cloudflare's docs). Here a request counts until 5 minutes after its *response*,
and so never for a shorter time than at Cloudflare. Requests are spread evenly: after a burst that
used up the window, there could be no poll for minutes.

Replicas that share the limit each send a share of it (`exporter.cloudflare.replica_budgets`).
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from math import inf

from exporter.clock import Clock, wait_at_most
from exporter.cloudflare.replica_budgets import (
    BURST,
    FRESH,
    SLICE,
    WINDOW,
    Allotment,
    BudgetUse,
    usable,
)
from exporter.cloudflare.response_headers import rate_limit

_FIRST_BURST = 0.25
"""In place of `BURST` in the first window, when nothing is known yet. The rest of that window is
then slower."""
_MEMORY = 2 * WINDOW
"""Seconds for which the highest rate of other tools counts, since it may come back."""
_LAST_REQUESTS = 10
"""With fewer requests left, other tools have almost used up the quota."""
_LOCKOUT = 300.0
"""Seconds without requests after a 429 that has no Retry-After."""


class Budget:
    """When requests of one credential may be sent.

    Args:
        limit: Requests in 5 minutes (`api.requests_per_5m`).
        reserve: The part of Cloudflare's quota that is left to other tools of the user.
        share: Requests in 5 minutes that may be sent before the first allotment; inf: no replicas
            share the limit.
        clock: The time.
    """

    def __init__(
        self, limit: int, *, reserve: float = 0.2, share: float = inf, clock: Clock
    ) -> None:
        self.limit = limit
        self.names: list[str] = []
        """What replicas call the credential: the names in the state of all accounts that use it. No
        secret leaves this process; and while replicas have different configurations, those that
        share the credential for any account share its limit."""
        self.quota: int | None = None
        """Requests in 5 minutes, from the last `Ratelimit-Policy`; None until there is one."""
        self.remaining: int | None = None
        """Requests left, from the last `Ratelimit`."""
        self.blocked_until = 0.0
        """Until then no requests are sent (monotonic clock)."""
        self._refused_until = 0.0
        """Until when the API refuses requests, as a response to this process has said."""
        self._reserve = reserve
        self._allotment = Allotment(share, pace=share, peers_spent=0, blocked=0.0)
        self._allotted_at = self._reported_at = clock.monotonic()
        """The times of the last turn that succeeded, and of the last call of `use`."""
        self._reported = 0
        """The requests that counted at the last call of `use`."""
        self._clock = clock
        self._ended: deque[float] = deque()
        """When each of the requests that may still count ended."""
        self._in_flight = 0
        self._probing = False
        """Whether a block has to end with a single request: others wait for its response."""
        self._others: deque[tuple[float, float]] = deque()
        """What other tools sent, in requests in 5 minutes, with the time at which that showed: the
        values that no later one exceeds."""
        self._started = clock.monotonic()
        self._paced_until = self._started - WINDOW
        """When the next request may be sent, so that requests are spread evenly."""
        self._turn = asyncio.Lock()
        """Held by the caller whose request is next, until it may be sent."""
        self._changed = asyncio.Event()

    def set_limits(self, limit: int, *, reserve: float) -> None:
        """Changes the limits. The requests that were made before still count."""
        self.limit, self._reserve = limit, reserve
        if (share := self._allotment.share) < inf:
            self._allotment = self._allotment._replace(share=min(share, limit))
        self._changed.set()

    def use(self, demand: float) -> BudgetUse:
        """What this replica reports to the others at its turn.

        Args:
            demand: Requests in 5 minutes that it would need to be on time.
        """
        self._reported_at = now = self._clock.monotonic()
        spent = [self._in_flight] + [0] * int(WINDOW / SLICE)
        for age in (now - at for at in self._ended):
            if age < WINDOW:
                spent[1 + int(age / SLICE)] += 1
        self._reported = sum(spent)
        refused = max(0.0, self._refused_until - now)
        return BudgetUse(self.limit, self.share, tuple(spent), demand, refused)

    def allot(self, allotment: Allotment) -> None:
        """Takes what the turn granted at which `use` was reported."""
        self._allotment = allotment
        self._allotted_at = self._reported_at
        if allotment.blocked:
            self._block(self._reported_at + allotment.blocked)
        self._changed.set()

    def stop(self) -> None:
        """Sends no more requests, so that the others can have this replica's share."""
        self._allotment = self._allotment._replace(share=0.0)

    @property
    def share(self) -> float:
        """Requests in 5 minutes that this replica may send. While it takes no turn, the share
        shrinks."""
        share = self._allotment.share
        return self.limit if share == inf else min(self.limit, usable(share, self._unseen))

    @property
    def _unseen(self) -> float:
        """Seconds since the last turn that succeeded."""
        return self._clock.monotonic() - self._allotted_at

    @property
    def allowed(self) -> float:
        """Requests in 5 minutes: the share, less what other tools send and the reserve for them."""
        return self._left_by_others(self.share)

    def _left_by_others(self, share: float) -> float:
        if self.quota is None:
            return share
        _, most = self._others[0]
        left = (self.quota * (1 - self._reserve) - most) * share / self.limit
        # A few requests are still sent, to notice when other tools stop.
        return min(share, max(left, share / 50, 1))

    @property
    def _ceiling(self) -> int:
        """How many requests may count at the same time.

        If the share was larger before, the others leave room for what was sent of it until that no
        longer counts. So requests continue at the rate of the new share, without a pause.
        """
        drains = 1 <= self.share < self._reported and self._unseen < FRESH + WINDOW
        return self._reported if drains else int(self.allowed)

    @property
    def spent(self) -> int:
        """Requests that count now: ended in the last 5 minutes, or in flight."""
        since = self._clock.monotonic() - WINDOW
        return sum(at > since for at in self._ended) + self._in_flight

    @property
    def rate(self) -> float:
        """Requests a second that can be kept up without a pause."""
        share = min(self._allotment.pace, self.limit) if self._unseen < FRESH else self.share
        return (1 - self._burst) * self._left_by_others(share) / WINDOW

    @property
    def _burst(self) -> float:
        return _FIRST_BURST if self._clock.monotonic() < self._started + WINDOW else BURST

    @property
    def blocked(self) -> float:
        """Seconds for which no request is sent, after a 429; 0: requests are sent."""
        return max(0.0, self.blocked_until - self._clock.monotonic())

    def wait(self) -> float:
        """Seconds until a request may be sent, as far as is known; inf: not before a response."""
        now = self._clock.monotonic()
        if self.blocked_until > now:
            return self.blocked_until - now
        if self._probing and self._in_flight:
            return inf
        while self._ended and self._ended[0] + WINDOW <= now:
            self._ended.popleft()
        over = len(self._ended) + self._in_flight + 1 - self._ceiling
        if over > len(self._ended):
            return inf
        full_until = self._ended[over - 1] + WINDOW if over > 0 else now
        return max(0.0, full_until - now, self._paced_until - now)

    async def ready(self) -> None:
        """Returns when a request could be sent at once, and no caller waits in `request`."""
        while self._turn.locked() or self.wait() > 0:
            await self._wait_for_change()

    @asynccontextmanager
    async def request(self) -> AsyncIterator[None]:
        """Waits until a request may be sent; the caller sends it within this context."""
        async with self._turn:
            while self.wait() > 0:
                await self._wait_for_change()
            self._in_flight += 1
        # After a pause, requests that were not sent may be made up for, up to a burst.
        earliest = self._clock.monotonic() - self._burst / (1 - self._burst) * WINDOW
        self._paced_until = max(self._paced_until, earliest) + 1 / self.rate
        try:
            yield
        finally:
            self._in_flight -= 1
            self._ended.append(self._clock.monotonic())
            self._changed.set()

    async def _wait_for_change(self) -> None:
        self._changed.clear()
        wait = self.wait()
        # At least a millisecond: with rounding, shorter waits could become a busy loop.
        await wait_at_most(None if wait == inf else max(wait, 0.001), self._changed)

    def update(self, headers: Mapping[str, str]) -> None:
        """Reads the user's quota and what is left of it from the headers of a response."""
        limit = rate_limit(headers)
        remaining, quota, seconds = limit.get("r"), limit.get("q"), limit.get("w") or int(WINDOW)
        self._probing = self._probing and self.blocked > 0
        if remaining is None or not quota:
            return
        now = self._clock.monotonic()
        ours = sum(at > now - seconds for at in self._ended) + self._in_flight
        others = max(0, quota - remaining - ours - self._allotment.peers_spent * seconds / WINDOW)
        # Converted to 5 minutes, for a policy with another window.
        self.quota, self.remaining = round(quota * WINDOW / seconds), remaining
        while self._others and self._others[-1][1] <= others * WINDOW / seconds:
            self._others.pop()
        self._others.append((now, others * WINDOW / seconds))
        while self._others[0][0] < now - _MEMORY:
            self._others.popleft()
        if remaining < _LAST_REQUESTS:
            self._refused(min(_LOCKOUT, limit.get("t", _LOCKOUT)))

    def rate_limited(self, retry_after: float | None) -> None:
        """Sends no requests for `retry_after` seconds after a 429, and then a single one."""
        self._refused(_LOCKOUT if retry_after is None else retry_after)

    def _refused(self, seconds: float) -> None:
        self._refused_until = max(self._refused_until, self._clock.monotonic() + seconds)
        self._block(self._refused_until)

    def _block(self, until: float) -> None:
        self.blocked_until = max(self.blocked_until, until)
        self._probing = True
        self._changed.set()
