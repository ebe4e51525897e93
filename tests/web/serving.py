"""The server on a real socket, and raw connections to it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ssl import SSLContext

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from exporter.web.connection_limits import ConnectionLimits
from exporter.web.server import Server, listen
from exporter.web.web_config_reload import WebConfigReloader
from tests.waiting import DEADLINE, until

LARGE = 8 * 1024 * 1024
"""Bytes: more than the buffers between a server and a client that doesn't read hold."""


def limits(**given: float) -> ConnectionLimits:
    """Those that are given; the times that are not are as long as a busy machine needs."""
    times = ("request", "response", "idle")
    return replace(ConnectionLimits(), **{**dict.fromkeys(times, DEADLINE), **given})  # type: ignore[arg-type]


async def _large(_: Request) -> Response:
    return Response(b"x" * LARGE)


HELLO = Starlette(
    routes=[Route("/", lambda _: PlainTextResponse("hello")), Route("/large", _large)]
)


@asynccontextmanager
async def serving(
    protecting: WebConfigReloader | None = None,
    *,
    app: ASGIApp = HELLO,
    host: str = "127.0.0.1",
    **given: float,
) -> AsyncIterator["Served"]:
    """Serves on a free port, with limits that are given."""
    with listen(host, 0) as listener:
        server = Server(app, protecting, limits(**given))
        running = asyncio.create_task(server.serve(sockets=[listener]))
        served = Served(server, host, listener.getsockname()[1])
        await until(lambda: server.started)
        yield served
        server.should_exit = True
        await running


class Served:
    """A server that runs."""

    def __init__(self, server: Server, host: str, port: int) -> None:
        self.server = server
        self.host = host
        self.port = port

    async def get(
        self,
        path: str = "/",
        *,
        tls: SSLContext | None = None,
        auth: tuple[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        """One request on a connection of its own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        url = f"{'https' if tls else 'http'}://{host}:{self.port}{path}"
        async with httpx.AsyncClient(
            trust_env=False, timeout=DEADLINE, verify=tls or False
        ) as http:
            return await http.get(url, auth=auth, headers=headers)

    @asynccontextmanager
    async def connected(self, *, tls: SSLContext | None = None) -> AsyncIterator["Raw"]:
        """A connection on which bytes are written and read as they are."""
        # A small buffer, so that much is left to be read when the client doesn't.
        reader, writer = await asyncio.open_connection(self.host, self.port, ssl=tls, limit=1024)
        try:
            yield Raw(reader, writer)
        finally:
            writer.transport.abort()


class Raw:
    """A client that follows no rules."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def status(self) -> int:
        """The status of the next response."""
        async with asyncio.timeout(DEADLINE):
            line = await self.reader.readline()
        assert line.startswith(b"HTTP/1.1 "), line
        return int(line.split()[1])

    async def rest(self) -> bytes:
        """All that comes until the server closes the connection."""
        received = b""
        async with asyncio.timeout(DEADLINE):
            try:
                while data := await self.reader.read(65536):
                    received += data
            except (ConnectionError, OSError):
                pass
        return received
