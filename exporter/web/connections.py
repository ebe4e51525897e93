"""Connections: how many there may be, and how long each may take.

uvicorn limits none of it: it waits for ever for a request that comes byte by byte, and for a client
that doesn't read its answer.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import structlog
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from exporter.clock import Clock
from exporter.log_dedup import Throttle
from exporter.web import tls
from exporter.web.web_config_reload import Protection

log = structlog.get_logger(__name__)

# Seconds.
_PAUSE, _GOODBYE = 1.0, 2.0


@dataclass(frozen=True)
class ConnectionLimits:
    """Times are in seconds.

    Attributes:
        connections: At once, those that still shake hands included.
        unread: Answers that wait for their clients to read on.
        handshake: For TLS.
        request: From a connection or a request's first byte to the end of its headers.
        answer: From there until the client has read it; a scrape has no other limit.
        idle: From an answer to the next request. A scrape a minute finds its connection open.
    """

    connections: int = 128
    unread: int = 8
    handshake: float = 10
    request: float = 10
    answer: float = 60
    idle: float = 75


class Phase(Enum):
    REQUEST = "request"
    ANSWER = "answer"
    IDLE = "idle"


class Connection(H11Protocol):
    """An HTTP connection that knows what it waits for, and since when.

    Attributes:
        phase: What is waited for; before that, TLS.
        since: When that began, on the event loop's clock.
        lost: Set when it is closed.
    """

    def __init__(
        self,
        config: Config,
        state: ServerState,
        protection: Protection,
        on_unread: Callable[[], None],
    ) -> None:
        super().__init__(config, state, {"protection": protection})
        self._protection = protection
        self._on_unread = on_unread
        self.lost = asyncio.Event()
        self._enter(Phase.REQUEST)

    @property
    def unread(self) -> bool:
        """Whether an answer waits for the client to read on."""
        return self.flow is not None and self.flow.write_paused

    @property
    def answering(self) -> bool:
        """Whether a request has come whose answer the client hasn't read."""
        return self.phase is Phase.ANSWER or self.unread

    def _enter(self, phase: Phase) -> None:
        self.phase, self.since = phase, self.loop.time()

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._enter(Phase.REQUEST)
        allowed = self._protection.sans
        if allowed is not None and allowed.isdisjoint(
            tls.sans(transport.get_extra_info("peercert"))
        ):
            transport.abort()

    def data_received(self, data: bytes) -> None:
        if self.phase is Phase.IDLE:
            self._enter(Phase.REQUEST)
        super().data_received(data)

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before and not self.cycle.response_complete:
            self._enter(Phase.ANSWER)

    def on_response_complete(self) -> None:
        self._enter(Phase.IDLE)
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._on_unread()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self.lost.set()

    def late(self, now: float, limits: ConnectionLimits) -> bool:
        """Whether it has taken longer than it may."""
        if self.answering:
            limit = limits.answer
        else:
            limit = limits.idle if self.phase is Phase.IDLE else limits.request
        return now - self.since > limit


class Connections:
    """Those that are open, the oldest first.

    Where there are too many, the oldest that isn't being answered gives way: whoever opens
    connections only to hold them pushes out their own, and a scrape gets through.

    Args:
        make: Makes the protocol of a new one.
        protection: What is in force now.
        limits: How many, and for how long.
    """

    def __init__(
        self,
        make: Callable[[Protection, Callable[[], None]], Connection],
        protection: Callable[[], Protection],
        limits: ConnectionLimits,
    ) -> None:
        self._make = make
        self._protection = protection
        self._limits = limits
        self._open: dict[asyncio.Task[None], Connection] = {}
        self._seldom = Throttle(Clock())

    def __len__(self) -> int:
        return len(self._open)

    async def accept(self, listener: socket.socket) -> None:
        """Serves whoever connects, until it is cancelled."""
        listener.setblocking(False)
        while True:
            try:
                accepted, _ = await asyncio.get_running_loop().sock_accept(listener)
            except ConnectionAbortedError:
                continue
            except OSError as error:
                if self._seldom.may("accept"):
                    log.error("can't accept connections", error=error.strerror or str(error))
                await asyncio.sleep(_PAUSE)
                continue
            if len(self._open) >= self._limits.connections:
                self._drop_oldest(lambda c: not c.answering)
            protection = self._protection()
            connection = self._make(protection, self._limit_unread)
            serving = asyncio.create_task(self._serve(accepted, connection, protection.context))
            self._open[serving] = connection
            serving.add_done_callback(self._open.pop)
            # When connections come in one after the other, the wait for the next is none.
            await asyncio.sleep(0)

    async def _serve(
        self, accepted: socket.socket, connection: Connection, context: ssl.SSLContext | None
    ) -> None:
        """Returns once the connection is lost; closes it when cancelled."""
        times = {"ssl_handshake_timeout": self._limits.handshake, "ssl_shutdown_timeout": _GOODBYE}
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection, accepted, ssl=context, **(times if context else {})
            )
            await connection.lost.wait()
        except OSError:
            pass  # No handshake: the client wants no TLS, or shows no certificate that counts.
        finally:
            if connection.transport is not None and not connection.lost.is_set():
                connection.transport.abort()
            accepted.close()

    def drop_late(self) -> None:
        """Closes those that take longer than they may."""
        now = asyncio.get_running_loop().time()
        for serving, connection in self._open.items():
            if not connection.late(now, self._limits) or serving.cancelling():
                continue
            serving.cancel()
            if connection.answering and self._seldom.may("slow"):
                log.warning(
                    "response not read in time; closing its connection",
                    client=connection.client and connection.client[0],
                    after=self._limits.answer,
                )

    async def close(self) -> None:
        """Closes all that are left."""
        for serving in self._open:
            serving.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def _limit_unread(self) -> None:
        if sum(c.unread for c in self._open.values()) > self._limits.unread:
            self._drop_oldest(lambda c: c.unread)

    def _drop_oldest(self, which: Callable[[Connection], bool]) -> None:
        oldest = next((s for s, c in self._open.items() if which(c) and not s.cancelling()), None)
        if oldest is not None:
            oldest.cancel()
