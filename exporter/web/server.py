"""The HTTP server: uvicorn with connection limits, without its signal handling and logs."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from functools import partial
from ipaddress import ip_address
from math import ceil

import structlog
import uvicorn
from starlette.types import ASGIApp

from exporter.clock import Clock
from exporter.log_dedup import Throttle
from exporter.web.connection_limits import Connection, ConnectionLimits
from exporter.web.middleware import MAX_HEAD_SIZE, RequestChecks
from exporter.web.web_config_reload import WebConfigReloader

log = structlog.get_logger(__name__)

_BACKLOG = 128
# Seconds.
_ACCEPT_RETRY, _TLS_SHUTDOWN = 1.0, 2.0


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
    """An HTTP server that runs until `should_exit` is set, and limits its connections.

    At their limit, a new connection replaces the oldest one that doesn't wait for a response. So a
    client that only holds connections open loses its own, and scrapes get through.

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
        self._protection = (web_config or WebConfigReloader()).current
        self._limits = limits or ConnectionLimits()
        super().__init__(
            uvicorn.Config(
                RequestChecks(app, self._protection),
                http=Connection,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                ws="none",
                h11_max_incomplete_event_size=MAX_HEAD_SIZE,
                timeout_keep_alive=ceil(self._limits.idle),
                # After this, uvicorn logs each response under way as an error; `stop` comes first.
                timeout_graceful_shutdown=ceil(self._limits.stop) + 1,
            )
        )
        self._open: dict[asyncio.Task[None], Connection] = {}
        """What serves each open connection, oldest first."""
        self._throttle = Throttle(Clock())

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # The app handles signals: it stops more than this server.
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # Replaces uvicorn's, whose asyncio servers have no limits.
        self.servers = []
        [listener] = sockets or []
        self._accepting = asyncio.create_task(self.accept(listener))
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._accepting.cancel()
        asyncio.get_running_loop().call_later(self._limits.stop, self._drop_all)
        await super().shutdown(sockets)
        await self.close_connections()

    async def close_connections(self) -> None:
        """Closes all connections."""
        self._drop_all()
        await asyncio.gather(*self._open, return_exceptions=True)

    def _drop_all(self) -> None:
        for serving in self._open:
            serving.cancel()

    async def accept(self, listener: socket.socket) -> None:
        """Accepts and serves connections until cancelled."""
        listener.setblocking(False)
        while True:
            try:
                accepted, _ = await asyncio.get_running_loop().sock_accept(listener)
            except ConnectionAbortedError:
                continue
            except OSError as error:
                if self._throttle.may("accept"):
                    log.error("failed to accept connections", error=error.strerror or str(error))
                await asyncio.sleep(_ACCEPT_RETRY)
                continue
            if len(self._open) >= self._limits.connections:
                self._drop_oldest()
            connection = Connection(self, self._protection())
            serving = asyncio.create_task(self._serve_one(accepted, connection))
            self._open[serving] = connection
            serving.add_done_callback(partial(self._served, accepted))
            # While new connections wait in a queue, accepting them lets no other task run.
            await asyncio.sleep(0)

    async def _serve_one(self, accepted: socket.socket, connection: Connection) -> None:
        """Returns once the connection is lost; closes it when cancelled."""
        context = connection.protection.context
        closing = _TLS_SHUTDOWN if context else None
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection, accepted, ssl=context, ssl_shutdown_timeout=closing
            )
            await connection.lost.wait()
        except OSError:
            pass  # No handshake: the client doesn't use TLS, or has no valid certificate.
        finally:
            if connection.transport is not None and not connection.lost.is_set():
                connection.transport.abort()

    def _served(self, accepted: socket.socket, serving: asyncio.Task[None]) -> None:
        # Not in `_serve_one`, which may have been cancelled before it began.
        del self._open[serving]
        accepted.close()

    def _drop_oldest(self) -> None:
        waiting = (s for s, c in self._open.items() if not c.responding and not s.cancelling())
        oldest = next(waiting, None)
        if oldest is not None:
            oldest.cancel()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second, closes the connections that have exceeded a time limit, and the
        oldest of those whose clients have stopped reading if they are too many."""
        now = asyncio.get_running_loop().time()
        for serving, connection in self._open.items():
            if connection.late(now, self._limits):
                serving.cancel()
                if connection.responding and self._throttle.may("slow"):
                    log.warning(
                        "client did not read the response in time; closing the connection",
                        client=connection.client and connection.client[0],
                        after_seconds=self._limits.response,
                    )
        unread = [serving for serving, connection in self._open.items() if connection.unread]
        for serving in unread[: -self._limits.unread]:
            serving.cancel()
        return await super().on_tick(counter)
