"""Cloudflare's rate limit: for each user, over all tokens."""

import math
from collections import deque

from .clock import Clock


class RateLimit:
    """A sliding window of requests, and a lock-out once it is exceeded.

    From the request that finds the window full, every request is refused for `lockout` seconds,
    even if the window has room again. Refused requests don't count.
    """

    def __init__(
        self, clock: Clock, quota: int | None = None, window: float = 300.0, lockout: float = 300.0
    ) -> None:
        self.clock = clock
        self.quota = quota
        """Requests allowed in a window (Cloudflare: 1,200); None is no limit."""
        self.window = window
        self.lockout = lockout
        self.refused = 0
        self._requests: dict[str, deque[float]] = {}
        self._locked_until: dict[str, float] = {}

    def take(self, user: str) -> float | None:
        """Counts a request of a user; the seconds to wait if it is refused."""
        now = self.clock()
        wait = self._locked_until.get(user, now) - now
        if wait <= 0 and self.quota is not None and len(self._window(user)) >= self.quota:
            wait = self.lockout
            self._locked_until[user] = now + wait
        if wait > 0:
            self.refused += 1
            return wait
        if self.quota is not None:
            self._window(user).append(now)
        return None

    def spend(self, requests: int, user: str = "user@example.com") -> int:
        """Requests of another client of the same user; the number of accepted ones."""
        return sum(self.take(user) is None for _ in range(requests))

    def headers(self, user: str) -> dict[str, str]:
        """The headers of a response that describe the user's window."""
        if self.quota is None:
            return {}
        requests = self._window(user)
        remaining = max(0, self.quota - len(requests))
        reset = math.ceil(requests[0] + self.window - self.clock()) if requests else 0
        return {
            "Ratelimit": f'"default";r={remaining};t={reset}',
            "Ratelimit-Policy": f'"burst";q={self.quota};w={round(self.window)}',
        }

    def _window(self, user: str) -> deque[float]:
        requests = self._requests.setdefault(user, deque())
        begin = self.clock() - self.window
        while requests and requests[0] <= begin:
            requests.popleft()
        return requests
