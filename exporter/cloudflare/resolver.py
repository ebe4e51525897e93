"""An event loop whose DNS lookups hold up nothing else and end in time.

The system's resolver blocks a thread for as long as a name server stays silent, and nothing can
interrupt it. asyncio would use the threads in which passwords are checked and pages are made, and
would wait for them when the process stops. Here each lookup has a thread of its own that dies with
the process, one lookup of a name runs at a time, and whoever waits gives up before the request's
own timeout ends, so that the failure is called what it is.
"""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

_SHARE = 0.8
"""Of a request's timeout: until then it waits for a lookup."""
_LEAST = 0.1
"""Of a request's timeout: a lookup has at least that, where a connection came free late."""

_DEFAULT = 5.0
"""Seconds that a lookup may take outside of requests."""

_limits: ContextVar[tuple[float, float] | None] = ContextVar("limits", default=None)
"""Until when lookups may take (the loop's clock), and what each has at least, in seconds."""

_Addresses = list[Any]


@contextmanager
def within(timeout: float) -> Iterator[None]:
    """Lookups of a request that begins now, with this timeout in seconds, give up before it ends.

    The time that the request waits for a free connection counts: lookups that a silent name server
    holds up hold all of them.
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
        """Those that go on, and when they began (the loop's clock)."""

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> _Addresses:
        """As asyncio's.

        Raises:
            socket.gaierror: the name isn't known, or no name server answered in time.
        """
        key = (host, port, *sorted(options.items()))
        if key not in self._lookups:
            lookup: asyncio.Future[_Addresses] = self.create_future()
            self._lookups[key] = lookup, self.time()
            lookup.add_done_callback(lambda done: self._over(key, done))
            arguments = lookup, host, port, options
            threading.Thread(target=self._look_up, args=arguments, daemon=True).start()
        lookup, began = self._lookups[key]
        until, least = _limits.get() or (self.time() + _DEFAULT, 0.0)
        await asyncio.wait({lookup}, timeout=max(until, began + least) - self.time())
        if not lookup.done():
            silent = round(self.time() - began, 1)
            raise socket.gaierror(socket.EAI_AGAIN, f"no name server answered within {silent:g} s")
        return lookup.result()

    def _over(self, key: object, done: "asyncio.Future[_Addresses]") -> None:
        del self._lookups[key]
        if not done.cancelled():
            done.exception()  # whoever waited may have given up, and nobody retrieves it

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
