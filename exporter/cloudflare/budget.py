"""The rate budget of a credential: at most `api.requests_per_5m`, less when other tools of its user
send requests, and none after a 429 until Cloudflare allows it.

Cloudflare counts a user's requests in a sliding window of 5 minutes, over all tokens and the
dashboard together, and refuses every request of that user for 5 minutes once the limit is exceeded
(API rate limits, Cloudflare's docs). A request counts here until 5 minutes after its *response*,
which is never sooner than in Cloudflare's count. Requests are spread evenly: a burst that used up
the window would be followed by minutes without a poll.

Where replicas share the limit, each sends its share of it (`exporter.cloudflare.replica_budgets`).
"""

import asyncio
import re
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

_FIRST_BURST = 0.25
"""Takes the place of `BURST` in the first window, when nothing is known yet; what is left of that
window is slower for it."""
# Seconds for which the highest rate of other tools counts: it may come back.
_MEMORY = 2 * WINDOW
# With fewer requests left, other tools have almost used up the quota.
_LAST_REQUESTS = 10
# Seconds, where Cloudflare sends no Retry-After.
_LOCKOUT = 300.0

_PARAMETER = re.compile(r"\b([qrtw])=(\d{1,9})\b")


class Budget:
    """When requests of one credential may be sent.

    Args:
        limit: Requests in 5 minutes (`api.requests_per_5m`).
        reserve: The part of Cloudflare's quota that is left to other tools of the user.
        share: Requests in 5 minutes that may be sent before there is an allotment.
        clock: The time.
    """

    def __init__(
        self, limit: int, *, reserve: float = 0.2, share: float = inf, clock: Clock
    ) -> None:
        self.limit = limit
        self.name = ""
        """What replicas call the credential: the name in the state of the first account that uses
        it. All have the same configuration, and a secret never leaves this process."""
        self.quota: int | None = None
        """Requests in 5 minutes, from the last `Ratelimit-Policy`; None until there is one."""
        self.remaining: int | None = None
        """Requests left, from the last `Ratelimit`."""
        self.blocked_until = 0.0
        """On the monotonic clock."""
        self._refused_until = 0.0
        self._reserve = reserve
        self._allotment = Allotment(share, pace=share, peers_spent=0, blocked=0.0)
        self._allotted_at = self._reported_at = clock.monotonic()
        self._reported = 0
        self._clock = clock
        self._ended: deque[float] = deque()
        self._in_flight = 0
        self._probing = False
        self._others: deque[tuple[float, float]] = deque()
        self._started = clock.monotonic()
        self._paced_until = self._started - WINDOW
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._changed = asyncio.Event()

    def set_limits(self, limit: int, *, reserve: float) -> None:
        """Sets other limits; the requests that were made still count."""
        self.limit, self._reserve = limit, reserve
        if (share := self._allotment.share) < inf:
            self._allotment = self._allotment._replace(share=min(share, limit))
        self._changed.set()

    def use(self, demand: float) -> BudgetUse:
        """What the others get to know at this replica's turn; `demand`: requests in 5 minutes."""
        self._reported_at = now = self._clock.monotonic()
        spent = [self._in_flight] + [0] * int(WINDOW / SLICE)
        for age in (now - at for at in self._ended):
            if age < WINDOW:
                spent[1 + int(age / SLICE)] += 1
        self._reported = sum(spent)
        refused = max(0.0, self._refused_until - now)
        return BudgetUse(self.limit, self.share, tuple(spent), demand, refused)

    def allot(self, allotment: Allotment) -> None:
        """Takes what the turn at which `use` was reported has brought."""
        self._allotment = allotment
        self._allotted_at = self._reported_at
        if allotment.blocked:
            self._block(self._reported_at + allotment.blocked)
        self._changed.set()

    def stop(self) -> None:
        """Sends no more requests: the others get what this replica had."""
        self._allotment = self._allotment._replace(share=0.0)

    @property
    def share(self) -> float:
        """Requests in 5 minutes that this replica may send; ever fewer while it takes no turn."""
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
        if self.quota is None or not self._others:
            return share
        most = max(requests for _, requests in self._others)
        left = (self.quota * (1 - self._reserve) - most) * share / self.limit
        # A few requests continue, to notice when other tools stop.
        return min(share, max(left, share / 50, 1))

    @property
    def _ceiling(self) -> int:
        """How many requests may count at once.

        Where the share was larger, what was sent of it stays reserved until it no longer counts:
        requests continue, without a pause, at the rate of the share of today.
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
        """Requests a second that are possible without a pause."""
        share = min(self._allotment.pace, self.limit) if self._unseen < FRESH else self.share
        return (1 - self._burst) * self._left_by_others(share) / WINDOW

    @property
    def _burst(self) -> float:
        young = self._clock.monotonic() < self._started + WINDOW
        return _FIRST_BURST if young else BURST

    @property
    def blocked(self) -> float:
        """Seconds for which no request is sent, after a 429; 0: requests are sent."""
        return max(0.0, self.blocked_until - self._clock.monotonic())

    def wait(self) -> float:
        """Seconds until a request may be sent, as known now; inf: until a response arrives."""
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
        """Waits until a request could be sent at once and none waits in `request`."""
        while self._waiting or self.wait() > 0:
            await self._wait_for_change()

    @asynccontextmanager
    async def request(self) -> AsyncIterator[None]:
        """Waits until a request may be sent, and counts it."""
        self._waiting += 1
        try:
            async with self._turn:
                while self.wait() > 0:
                    await self._wait_for_change()
                self._in_flight += 1
        finally:
            self._waiting -= 1
        # Requests that were not used may be sent later, up to a burst.
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
        # At least a millisecond: rounding would make the last moment a busy loop.
        await wait_at_most(None if wait == inf else max(wait, 0.001), self._changed)

    def update(self, headers: Mapping[str, str]) -> None:
        """Reads the user's quota from a response (`Ratelimit`, `Ratelimit-Policy`)."""
        limit, policy = (_parameters(headers, h) for h in ("ratelimit", "ratelimit-policy"))
        remaining, quota, seconds = limit.get("r"), policy.get("q"), policy.get("w") or int(WINDOW)
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
            self._refused(min(_LOCKOUT, limit.get("t") or _LOCKOUT))

    def rate_limited(self, retry_after: float | None) -> None:
        """Stops requests after a 429, for `retry_after` seconds; then a single one is sent."""
        self._refused(_LOCKOUT if retry_after is None else retry_after)

    def _refused(self, seconds: float) -> None:
        self._refused_until = max(self._refused_until, self._clock.monotonic() + seconds)
        self._block(self._refused_until)

    def _block(self, until: float) -> None:
        self.blocked_until = max(self.blocked_until, until)
        self._probing = True
        self._changed.set()


def _parameters(headers: Mapping[str, str], name: str) -> dict[str, int]:
    """The numbers in a header by their letter; of several policies, those of the first."""
    found = _PARAMETER.findall(headers.get(name, ""))
    return {letter: int(digits) for letter, digits in reversed(found)}
