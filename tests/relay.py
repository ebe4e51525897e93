"""A relay before a server, through which a network's own faults can be acted out."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator


class Relay:
    """Hands bytes on, both ways, to and from `port` on this machine.

    Attributes:
        port: Where to.
        silent: Connections are taken, and no byte is passed on either way: half-open, as after a
            firewall has forgotten them. It holds for those that are there already, too.
        connections: Taken so far.
    """

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.address = ""
        """host:port that it listens on."""
        self.connections = 0
        self._flows = asyncio.Event()
        self._flows.set()

    @property
    def silent(self) -> bool:
        return not self._flows.is_set()

    @silent.setter
    def silent(self, silent: bool) -> None:
        if silent:
            self._flows.clear()
        else:
            self._flows.set()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(OSError), contextlib.closing(writer):
            inside, outside = await asyncio.open_connection("127.0.0.1", self.port)
            with contextlib.closing(outside):
                await asyncio.gather(self._pump(reader, outside), self._pump(inside, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while part := await reader.read(65536):
            await self._flows.wait()
            writer.write(part)
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def relay(tls: ssl.SSLContext | None = None) -> AsyncIterator[Relay]:
    """A relay on a free port, with TLS to the outside if asked for."""
    running = Relay()
    server = await asyncio.start_server(running._take, "127.0.0.1", 0, ssl=tls)
    host, port = server.sockets[0].getsockname()
    running.address = f"{host}:{port}"
    try:
        yield running
    finally:
        running.silent = False
        server.close()
