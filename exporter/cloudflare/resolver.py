"""An event loop whose DNS lookups block nothing else and end before the request's timeout.

The system's resolver blocks a thread until the name server answers, and can't be interrupted.
asyncio would use the threads that check passwords and render pages, and would wait for them when
the process stops. Here each lookup has a daemon thread of its own, a name is looked up once at a
time, and waiting for it ends before the request's timeout, so that the failure is reported as DNS.
"""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

_SHARE = 0.8
"""The part of a request's timeout for which it waits for a lookup."""
_LEAST = 0.1
"""The part that a lookup has at least, where a connection became free late."""

_DEFAULT = 5.0
"""Seconds that a lookup may take outside of requests."""

_limits: ContextVar[tuple[float, float] | None] = ContextVar("limits", default=None)
"""When lookups must end (the loop's clock), and the seconds that each has at least."""

_Addresses = list[Any]


@contextmanager
def within(timeout: float) -> Iterator[None]:
    """Limits the lookups of a request that begins now to less than its timeout, in seconds.

    The time for which the request waits for a free connection counts: while a name server is
    silent, all connections wait for lookups.
    """
    now = asyncio.get_running_loop().time()
    token = _limits.set((now + timeout * _SHARE, timeout * _LEAST))
    try:
        yield
    finally:
        _limits.reset(token)


class Loop(asyncio.SelectorEventLoop):
    """The event loop of the exporter."""

    def __init__(self) -> None:
        super().__init__()
        self._lookups: dict[object, tuple[asyncio.Future[_Addresses], float]] = {}
        """Running ones, and when they began (the loop's clock)."""

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> _Addresses:
        """As asyncio's.

        Raises:
            socket.gaierror: the name is unknown, or no name server answered in time.
        """
        key = (host, port, *sorted(options.items()))
        if key not in self._lookups:
            lookup: asyncio.Future[_Addresses] = self.create_future()
            self._lookups[key] = lookup, self.time()
            lookup.add_done_callback(lambda done: self._end(key, done))
            arguments = lookup, host, port, options
            threading.Thread(target=self._look_up, args=arguments, daemon=True).start()
        lookup, began = self._lookups[key]
        until, least = _limits.get() or (self.time() + _DEFAULT, 0.0)
        await asyncio.wait({lookup}, timeout=max(until, began + least) - self.time())
        if not lookup.done():
            silent = round(self.time() - began, 1)
            raise socket.gaierror(socket.EAI_AGAIN, f"no name server answered within {silent:g} s")
        return lookup.result()

    def _end(self, key: object, done: "asyncio.Future[_Addresses]") -> None:
        del self._lookups[key]
        if not done.cancelled():
            done.exception()  # it may not be awaited any more, and an exception must be retrieved

    def _look_up(
        self, result: "asyncio.Future[_Addresses]", host: Any, port: Any, options: dict[str, Any]
    ) -> None:
        act: Callable[[Any], None] = result.set_result
        found: Any
        try:
            found = socket.getaddrinfo(host, port, **options)
        except OSError as error:
            act, found = result.set_exception, error
        with suppress(RuntimeError):  # the loop was closed meanwhile
            self.call_soon_threadsafe(act, found)
