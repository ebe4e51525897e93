"""Cloudflare's limit on API calls, for each user over everything they do."""

import math
from collections import deque

from .clock import Clock


class RateLimit:
    """A sliding window of calls, and a lock-out once it is overrun.

    From the call that finds the window full, every call is refused for `lockout` seconds, however
    the window moves on meanwhile. Refused calls don't count.
    """

    def __init__(
        self, clock: Clock, quota: int | None = None, window: float = 300.0, lockout: float = 300.0
    ) -> None:
        self.clock = clock
        self.quota = quota
        """Calls allowed in a window (Cloudflare: 1,200); None is no limit."""
        self.window = window
        self.lockout = lockout
        self.refused = 0
        self._calls: dict[str, deque[float]] = {}
        self._locked_until: dict[str, float] = {}

    def take(self, user: str) -> float | None:
        """Take one call of a user; the seconds to wait when it is refused."""
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

    def spend(self, calls: int, user: str = "user@example.com") -> int:
        """What another client of the same user calls now; how many were let through."""
        return sum(self.take(user) is None for _ in range(calls))

    def headers(self, user: str) -> dict[str, str]:
        """What an answer tells about the user's window."""
        if self.quota is None:
            return {}
        calls = self._window(user)
        remaining = max(0, self.quota - len(calls))
        reset = math.ceil(calls[0] + self.window - self.clock()) if calls else 0
        return {
            "Ratelimit": f'"default";r={remaining};t={reset}',
            "Ratelimit-Policy": f'"burst";q={self.quota};w={round(self.window)}',
        }

    def _window(self, user: str) -> deque[float]:
        calls = self._calls.setdefault(user, deque())
        begin = self.clock() - self.window
        while calls and calls[0] <= begin:
            calls.popleft()
        return calls
