"""Limits on connections: how many there may be, and how long each may take.

uvicorn has no such limits: it waits forever for a request that arrives byte by byte, and for a
client that doesn't read its response.
"""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import structlog
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import Server

from exporter.clock import Clock
from exporter.log_dedup import Throttle
from exporter.web import tls
from exporter.web.web_config_reload import Protection

log = structlog.get_logger(__name__)

# Seconds.
_ACCEPT_RETRY, _TLS_SHUTDOWN = 1.0, 2.0


@dataclass(frozen=True)
class ConnectionLimits:
    """Times are in seconds.

    Attributes:
        connections: Open connections, including those in their TLS handshake.
        unread: Responses whose clients have stopped reading.
        request: Time for the TLS handshake; and from its end, or the first byte of a request, to
            the end of the request's headers.
        response: Time from the first byte of a request until the client has read the response.
            Scrapes have no other limit.
        idle: Time from a response to the next request: longer than a minute, so that a scrape each
            minute can use the same connection.
    """

    connections: int = 128
    unread: int = 8
    request: float = 10
    response: float = 60
    idle: float = 75


Phase = Literal["request", "idle"]
"""What a connection waits for, unless it is `responding`; the field of this name in
`ConnectionLimits` says for how long."""


class Connection(H11Protocol):
    """An HTTP connection that records what it waits for, and since when.

    Attributes:
        protection: That in force when it was accepted.
        phase: What it waits for.
        since: When the phase began, on the event loop's clock.
        lost: Set when the connection is closed.
    """

    def __init__(self, server: Server, protection: Protection) -> None:
        app_state = {"protection": protection, "abort": self.abort}
        super().__init__(server.config, server.server_state, app_state)
        self.protection = protection
        self.lost = asyncio.Event()
        self._enter("request")

    @property
    def unread(self) -> bool:
        """Whether a response waits for the client to continue reading."""
        return self.flow is not None and self.flow.write_paused

    @property
    def responding(self) -> bool:
        """Whether there is a request whose response the client hasn't read."""
        return self.unread or (self.cycle is not None and not self.cycle.response_complete)

    def _enter(self, phase: Phase) -> None:
        self.phase, self.since = phase, self.loop.time()

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._enter("request")
        allowed, certificate = self.protection.sans, transport.get_extra_info("peercert")
        if allowed is not None and allowed.isdisjoint(tls.sans(certificate)):
            transport.abort()

    def data_received(self, data: bytes) -> None:
        if self.phase == "idle":
            self._enter("request")
        super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        if self.cycle is not None:
            # The request that is served turned out to be invalid, and gets only this response.
            self.cycle.disconnected = True
        super().send_400_response(msg)

    def on_response_complete(self) -> None:
        self._enter("idle")
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self.lost.set()

    def abort(self) -> None:
        """Resets the connection, whatever is under way."""
        self.transport.abort()

    def late(self, now: float, limits: ConnectionLimits) -> bool:
        """Whether its phase has exceeded its time limit."""
        limit: float = getattr(limits, "response" if self.responding else self.phase)
        return now - self.since > limit


@dataclass(eq=False)
class Connections:
    """The open connections, oldest first.

    At the limit, a new connection replaces the oldest one that doesn't wait for a response. So a
    client that only holds connections open loses its own, and scrapes get through.

    Attributes:
        server: Serves them.
        protection: Returns the protection in force.
        limits: How many connections, and for how long.
    """

    server: Server
    protection: Callable[[], Protection]
    limits: ConnectionLimits

    def __post_init__(self) -> None:
        self._open: dict[asyncio.Task[None], Connection] = {}
        self._throttle = Throttle(Clock())

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
            if len(self._open) >= self.limits.connections:
                self._drop_oldest()
            connection = Connection(self.server, self.protection())
            serving = asyncio.create_task(self._serve(accepted, connection))
            self._open[serving] = connection
            serving.add_done_callback(partial(self._served, accepted))
            # While new connections wait in a queue, accepting them lets no other task run.
            await asyncio.sleep(0)

    async def _serve(self, accepted: socket.socket, connection: Connection) -> None:
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
        # Not in `_serve`, which may have been cancelled before it began.
        del self._open[serving]
        accepted.close()

    def drop_slow(self) -> None:
        """Closes the connections that have exceeded a time limit, and the oldest of those whose
        clients have stopped reading if they are too many."""
        now = asyncio.get_running_loop().time()
        for serving, connection in self._open.items():
            if connection.late(now, self.limits):
                serving.cancel()
                if connection.responding and self._throttle.may("slow"):
                    log.warning(
                        "client did not read the response in time; closing the connection",
                        client=connection.client and connection.client[0],
                        after_seconds=self.limits.response,
                    )
        unread = [serving for serving, connection in self._open.items() if connection.unread]
        for serving in unread[: -self.limits.unread]:
            serving.cancel()

    async def close(self) -> None:
        """Closes all connections."""
        for serving in self._open:
            serving.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def _drop_oldest(self) -> None:
        waiting = (s for s, c in self._open.items() if not c.responding and not s.cancelling())
        oldest = next(waiting, None)
        if oldest is not None:
            oldest.cancel()
