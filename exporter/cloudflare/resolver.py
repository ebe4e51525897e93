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
"""Of a request's timeout: the longest that it waits for a lookup."""

_deadline: ContextVar[float] = ContextVar("deadline", default=5.0)

_Addresses = list[Any]


@contextmanager
def within(timeout: float) -> Iterator[None]:
    """Lookups of requests with this timeout, in seconds, give up before it ends."""
    token = _deadline.set(timeout * _SHARE)
    try:
        yield
    finally:
        _deadline.reset(token)


class Loop(asyncio.SelectorEventLoop):
    """The event loop of the exporter."""

    def __init__(self) -> None:
        super().__init__()
        self._lookups: dict[object, asyncio.Future[_Addresses]] = {}

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> _Addresses:
        """As asyncio's.

        Raises:
            socket.gaierror: the name isn't known, or no name server answered in time.
        """
        key = (host, port, *sorted(options.items()))
        if key not in self._lookups:
            self._lookups[key] = self.create_future()
            self._lookups[key].add_done_callback(lambda done: self._over(key, done))
            arguments = self._lookups[key], host, port, options
            threading.Thread(target=self._look_up, args=arguments, daemon=True).start()
        lookup, patience = self._lookups[key], _deadline.get()
        await asyncio.wait({lookup}, timeout=patience)
        if not lookup.done():
            raise socket.gaierror(
                socket.EAI_AGAIN, f"no name server answered within {patience:g} s"
            )
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
