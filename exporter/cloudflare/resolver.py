"""An event loop whose DNS lookups block nothing else.

The system's resolver blocks a thread until the name server responds, and can't be interrupted.
asyncio would use the threads that check passwords and render pages, and would wait for them when
the process stops. Here each lookup has a daemon thread of its own, and a name is looked up once at
a time. Whoever waits for a lookup may stop waiting.
"""

import asyncio
import socket
from functools import partial
from typing import Any

from exporter.daemon_thread import in_daemon_thread

_Addresses = list[Any]


def is_waiting() -> bool:
    """Whether any lookup waits for a name server now."""
    loop = asyncio.get_running_loop()
    return isinstance(loop, Loop) and bool(loop.lookups)


class Loop(asyncio.SelectorEventLoop):
    """The event loop of the exporter."""

    def __init__(self) -> None:
        super().__init__()
        self.lookups: dict[object, asyncio.Future[_Addresses]] = {}
        """Those that are under way."""

    def close(self) -> None:
        for lookup in self.lookups.values():
            lookup.cancel()  # a closed loop can't take its result
        super().close()

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> _Addresses:
        """Looks a name up, as asyncio's method does.

        Raises:
            socket.gaierror: the name is unknown, or no name server responded.
        """
        key = (host, port, *sorted(options.items()))
        if key not in self.lookups:
            look_up = partial(socket.getaddrinfo, host, port, **options)
            lookup = asyncio.wrap_future(in_daemon_thread(look_up), loop=self)
            self.lookups[key] = lookup
            lookup.add_done_callback(lambda done: self._end(key, done))
        return await asyncio.shield(self.lookups[key])

    def _end(self, key: object, done: "asyncio.Future[_Addresses]") -> None:
        del self.lookups[key]
        done.exception()  # asyncio wants it retrieved, and maybe nobody waits for it any more
