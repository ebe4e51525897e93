"""The calls that one credential may make: as many as configured, fewer when its user's other
tools need them, none after a 429 until Cloudflare allows it again.

Cloudflare counts a user's calls in a sliding window of 5 minutes, over all tokens and the
dashboard together; one too many and every call of that user is refused for the next 5 minutes
(API rate limits, Cloudflare's docs). So a call counts here until 5 minutes after its *answer*,
which is never sooner than Cloudflare forgets it, and calls are spread evenly: a burst that fills
the window would leave it empty of news for minutes.
"""

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from math import inf

from exporter.clock import Clock

WINDOW = 300.0
"""Seconds."""

# Of the calls allowed, how many may come at once: after a pause, and at the start, when nothing is
# known yet; the rest of the first window is the slower for it.
_BURST = 0.02
_FIRST_BURST = 0.25
# The others' spending is taken at its highest of so many seconds: it may come back.
_MEMORY = 2 * WINDOW
# Fewer calls left than that: other tools have all but used the quota up.
_LAST_CALLS = 10
# Without a word of Cloudflare on how long.
_LOCKOUT = 300.0

_REMAINING = re.compile(r"\br=(\d{1,9})\b")
_RESET = re.compile(r"\bt=(\d{1,9})\b")
_QUOTA = re.compile(r"\bq=(\d{1,9})\b")
_SECONDS = re.compile(r"\bw=(\d{1,9})\b")


class Budget:
    """Calls of one credential, in time.

    Args:
        limit: Calls in 5 minutes (`api.requests_per_5m`).
        reserve: The share of Cloudflare's quota that is left to the user's other tools.
        shards: Processes with a budget like this one each, for the same user, this one included.
            The headers don't tell them from other tools: they are taken to call as much as this
            one does. If they call less, this one may call more: what comes to rest is always what
            the other tools and the reserve leave, over all.
        clock: The time.
    """

    def __init__(self, limit: int, *, reserve: float = 0.2, shards: int = 1, clock: Clock) -> None:
        self.limit = limit
        self.quota: int | None = None
        """As the last answer told, calls in its window; None when none did."""
        self.remaining: int | None = None
        """As the last answer told."""
        self.blocked_until = 0.0
        """On the monotonic clock."""
        self._reserve = reserve
        self._shards = shards
        self._clock = clock
        self._calls: deque[float] = deque()
        self._under_way = 0
        self._probing = False
        self._others: deque[tuple[float, float]] = deque()
        self._started = clock.monotonic()
        self._paced_until = self._started - WINDOW
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._news = asyncio.Event()

    def set_limits(self, limit: int, *, reserve: float) -> None:
        """Sets other limits; the requests that were made still count."""
        self.limit, self._reserve = limit, reserve
        self._news.set()

    @property
    def allowed(self) -> float:
        """Calls in 5 minutes, after what the user's other tools spend and the reserve for them."""
        if self.quota is None or not self._others:
            return self.limit
        most = max(calls for _, calls in self._others)
        # A trickle goes on, to notice when the others are done.
        left = (self.quota * (1 - self._reserve) - most) / self._shards
        return max(min(self.limit, left), self.limit / 50, 1)

    @property
    def spent(self) -> int:
        """Calls that count now: of the last 5 minutes, and under way."""
        since = self._clock.monotonic() - WINDOW
        return sum(at > since for at in self._calls) + self._under_way

    @property
    def rate(self) -> float:
        """Calls a second that can be kept up."""
        return (1 - self._burst) * self.allowed / WINDOW

    @property
    def _burst(self) -> float:
        young = self._clock.monotonic() < self._started + WINDOW
        return _FIRST_BURST if young else _BURST

    @property
    def blocked(self) -> float:
        """Seconds for which no call is made, after a 429; 0 when calls are made."""
        return max(0.0, self.blocked_until - self._clock.monotonic())

    def wait(self) -> float:
        """Seconds until a call may be made as far as is known now; inf: until an answer comes."""
        now = self._clock.monotonic()
        if self.blocked_until > now:
            return self.blocked_until - now
        if self._probing and self._under_way:
            return inf
        while self._calls and self._calls[0] + WINDOW <= now:
            self._calls.popleft()
        over = len(self._calls) + self._under_way + 1 - int(self.allowed)
        if over > len(self._calls):
            return inf
        full_until = self._calls[over - 1] + WINDOW if over > 0 else now
        return max(0.0, full_until - now, self._paced_until - now)

    async def ready(self) -> None:
        """Returns when a call could be made at once and nobody waits for one in `call`."""
        while self._waiting or self.wait() > 0:
            await self._something_changes()

    @asynccontextmanager
    async def request(self) -> AsyncIterator[None]:
        """Waits for a call's turn, and counts it."""
        self._waiting += 1
        try:
            async with self._turn:
                while self.wait() > 0:
                    await self._something_changes()
                self._under_way += 1
        finally:
            self._waiting -= 1
        # A call unused is a call in hand, up to a burst.
        earliest = self._clock.monotonic() - self._burst * self.allowed / self.rate
        self._paced_until = max(self._paced_until, earliest) + 1 / self.rate
        try:
            yield
        finally:
            self._under_way -= 1
            self._calls.append(self._clock.monotonic())
            self._news.set()

    async def _something_changes(self) -> None:
        self._news.clear()
        wait = self.wait()
        try:
            # At least a millisecond, lest rounding make a busy loop of the last moment.
            async with asyncio.timeout(None if wait == inf else max(wait, 0.001)):
                await self._news.wait()
        except TimeoutError:
            pass

    def update(self, headers: Mapping[str, str]) -> None:
        """Takes in what an answer says of the user's quota (`Ratelimit`, `Ratelimit-Policy`)."""
        remaining = _number(_REMAINING, headers.get("ratelimit", ""))
        policy = headers.get("ratelimit-policy", "")
        quota, seconds = _number(_QUOTA, policy), _number(_SECONDS, policy) or int(WINDOW)
        self._probing = False
        if remaining is None or not quota:
            return
        now = self._clock.monotonic()
        ours = sum(at > now - seconds for at in self._calls) + self._under_way
        others = max(0, quota - remaining - ours * self._shards)
        # A policy with another window is put in terms of ours.
        self.quota, self.remaining = round(quota * WINDOW / seconds), remaining
        while self._others and self._others[-1][1] <= others * WINDOW / seconds:
            self._others.pop()
        self._others.append((now, others * WINDOW / seconds))
        while self._others[0][0] < now - _MEMORY:
            self._others.popleft()
        if remaining < _LAST_CALLS:
            reset = _number(_RESET, headers.get("ratelimit", ""))
            self._block(min(_LOCKOUT, reset or _LOCKOUT))

    def rate_limited(self, retry_after: float | None) -> None:
        """A 429 came: nothing is called until then, and then one call alone tries."""
        self._block(_LOCKOUT if retry_after is None else retry_after)

    def _block(self, seconds: float) -> None:
        self.blocked_until = max(self.blocked_until, self._clock.monotonic() + seconds)
        self._probing = True
        self._news.set()


def _number(pattern: re.Pattern[str], text: str) -> int | None:
    match = pattern.search(text)
    return int(match[1]) if match else None
