"""The HTTP server: uvicorn with connection limits, without its signal handling and logs."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from math import ceil

import uvicorn
from starlette.types import ASGIApp

from exporter.web.connection_limits import Connection, ConnectionLimits, Connections
from exporter.web.middleware import MAX_HEAD_SIZE, RequestChecks
from exporter.web.web_config_reload import WebConfigReloader

_BACKLOG = 128


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; an empty host, or `::`, means every address of IPv6 and IPv4.

    Raises:
        OSError: The address can't be used, for example because the port is in use.
    """
    dualstack = host in ("", "::") and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dualstack or ":" in host else socket.AF_INET
    listener = socket.create_server(
        (host, port), family=family, dualstack_ipv6=dualstack, backlog=_BACKLOG
    )
    # Connections inherit this. Asyncio only sets it for sockets that it created. Without it, the
    # end of a response waits 40 ms for the client's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def address_of(listener: socket.socket) -> str:
    """host:port, with an IPv6 host in brackets, as in a URL."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def page_url(listener: socket.socket, *, tls: bool) -> str:
    """The address of the page for other machines. If the socket listens on every address, it is the
    one that they can most likely reach."""
    host, port = listener.getsockname()[:2]
    if ip_address(host).is_unspecified:
        # This sends nothing, but has the system choose an address by its routes. 192.0.2.1 is an
        # address for documentation.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(("192.0.2.1", 9))
                host = probe.getsockname()[0]
            except OSError:
                host = socket.gethostname()
    return f"http{'s' if tls else ''}://{f'[{host}]' if ':' in host else host}:{port}/"


class Server(uvicorn.Server):
    """An HTTP server that runs until `should_exit` is set.

    Args:
        app: What it serves.
        web_config: The web configuration in force; None for no protection.
        limits: Of connections.
    """

    def __init__(
        self,
        app: ASGIApp,
        web_config: WebConfigReloader | None = None,
        limits: ConnectionLimits | None = None,
    ) -> None:
        protection = (web_config or WebConfigReloader()).current
        limits = limits or ConnectionLimits()
        super().__init__(
            uvicorn.Config(
                RequestChecks(app, protection),
                http=Connection,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                ws="none",
                h11_max_incomplete_event_size=MAX_HEAD_SIZE,
                timeout_keep_alive=ceil(limits.idle),
                timeout_graceful_shutdown=2,
            )
        )
        self._connections = Connections(self, protection, limits)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # The app handles signals: it stops more than this server.
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # Replaces uvicorn's, whose asyncio servers have no limits.
        self.servers = []
        [listener] = sockets or []
        self._accepting = asyncio.create_task(self._connections.accept(listener))
        self.started = True

    async def on_tick(self, counter: int) -> bool:
        self._connections.drop_slow()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._accepting.cancel()
        await super().shutdown(sockets)
        await self._connections.close()
