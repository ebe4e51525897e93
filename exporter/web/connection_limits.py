"""Limits on connections, and a connection that knows whether it has exceeded one.

uvicorn has no such limits: it waits forever for a request that arrives byte by byte, and for a
client that doesn't read its response.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, Literal

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import Server

from exporter.web import tls
from exporter.web.web_config_reload import Protection


@dataclass(frozen=True)
class ConnectionLimits:
    """Times are in seconds.

    Attributes:
        connections: Open connections, including those in their TLS handshake.
        unread: Responses whose clients have stopped reading.
        request: Time for the TLS handshake; then from the connection, or from the first byte of a
            further request, to the end of the request's headers.
        response: Time from the same moment until the client has read the response. Scrapes have no
            other limit.
        idle: Time from a response to the next request: longer than a minute, so that a scrape each
            minute can use the same connection.
        stop: Time that responses under way get when the server stops.
    """

    connections: int = 128
    unread: int = 8
    request: float = 10
    response: float = 60
    idle: float = 75
    stop: float = 2


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
        super().__init__(server.config, server.server_state, {"connection": self})
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

    def eof_received(self) -> bool:  # type: ignore[override]
        """Whether the connection stays open: a client that sends no more, such as `nc`, may still
        read the response. With TLS, asyncio can't do that."""
        cycle = None if self.protection.context else self.cycle
        if cycle is None or cycle.response_complete:
            return False
        cycle.keep_alive = False
        return True

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

    def late(self, now: float, limits: ConnectionLimits) -> bool:
        """Whether its phase has exceeded its time limit."""
        limit: float = getattr(limits, "response" if self.responding else self.phase)
        return now - self.since > limit
