"""Faults on a real socket: errors, delays, lost connections, odd or endless bodies.

A `Fault` selects requests, and its action is what happens to them. The actions are structs, so that
a program can send them as JSON (`{"type": "hang"}`).
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from msgspec import Struct

from .request_log import ApiRequest
from .response import ApiError, Response

Message = MutableMapping[str, Any]
_PIECE = 64 * 1024


@dataclass(slots=True)
class Exchange:
    """A request without a response yet. Only a real socket has a transport."""

    request: ApiRequest
    response: Callable[[], Response]
    send: Callable[[Message], Awaitable[None]]
    receive: Callable[[], Awaitable[Message]]
    released: asyncio.Event
    transport: asyncio.Transport | None = None

    async def start(self, response: Response, *, sized: bool = True) -> None:
        self.request.status = response.status
        length = {"content-length": str(len(response.body))} if sized else {}
        headers = [
            (name.lower().encode(), value.encode())
            for name, value in (length | response.headers).items()
        ]
        await self.send(
            {"type": "http.response.start", "status": response.status, "headers": headers}
        )

    async def body(self, part: bytes, *, more: bool = False) -> None:
        await self.send({"type": "http.response.body", "body": part, "more_body": more})

    async def respond(self, response: Response) -> None:
        await self.start(response)
        await self.body(response.body)

    async def drop(self, *, reset: bool) -> None:
        """Ends the connection before the response is complete; a reset sends RST, not FIN."""
        if self.transport is None:
            raise ConnectionResetError("the simulator dropped the connection")
        if reset:
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        else:
            self.transport.close()
        await self.disconnected()

    async def disconnected(self) -> None:
        """Waits until the client has disconnected."""
        while (await self.receive())["type"] != "http.disconnect":
            pass


class Respond(Struct, frozen=True, tag="respond", kw_only=True):
    """Another response: any status, headers and body (base64 in JSON), or text."""

    status: int = 200
    text: str = ""
    body: bytes = b""
    headers: dict[str, str] = {}

    async def act(self, exchange: Exchange) -> None:
        await exchange.respond(
            Response(self.status, self.body or self.text.encode(), {**self.headers})
        )


class Rewrite(Struct, frozen=True, tag="rewrite"):
    """The real response, changed by a function. Only from Python."""

    change: Callable[[Response], Response]

    async def act(self, exchange: Exchange) -> None:
        await exchange.respond(self.change(exchange.response()))


class Late(Struct, frozen=True, tag="late"):
    """The real response, some seconds late."""

    seconds: float

    async def act(self, exchange: Exchange) -> None:
        await asyncio.sleep(self.seconds)
        await exchange.respond(exchange.response())


class Hang(Struct, frozen=True, tag="hang"):
    """No response until `Faults.release`, and then the real one."""

    async def act(self, exchange: Exchange) -> None:
        release = asyncio.ensure_future(exchange.released.wait())
        disconnected = asyncio.ensure_future(exchange.disconnected())
        try:
            await asyncio.wait({release, disconnected}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            release.cancel()
            disconnected.cancel()
        if exchange.released.is_set():
            await exchange.respond(exchange.response())


class Drip(Struct, frozen=True, tag="drip"):
    """The real response, slowly: `size` bytes every `every` seconds."""

    size: int = 1
    every: float = 1.0

    async def act(self, exchange: Exchange) -> None:
        response = exchange.response()
        await exchange.start(response)
        for begin in range(0, len(response.body), self.size):
            await exchange.body(response.body[begin : begin + self.size], more=True)
            await asyncio.sleep(self.every)
        await exchange.body(b"")


class Truncate(Struct, frozen=True, tag="truncate"):
    """A part of the real body, as if it were all of it: 0 is an empty body."""

    keep: float = 0.5

    async def act(self, exchange: Exchange) -> None:
        response = exchange.response()
        response.body = response.body[: int(len(response.body) * self.keep)]
        await exchange.respond(response)


class Drop(Struct, frozen=True, tag="drop"):
    """The connection ends after a part of the body; None ends it before the headers."""

    keep: float | None = None
    reset: bool = False

    async def act(self, exchange: Exchange) -> None:
        if self.keep is not None:
            response = exchange.response()
            await exchange.start(response)
            await exchange.body(response.body[: int(len(response.body) * self.keep)], more=True)
        await exchange.drop(reset=self.reset)


class Stream(Struct, frozen=True):
    """A body that a function makes while it is sent; it has no Content-Length."""

    pieces: Callable[[], Iterable[bytes]]
    headers: dict[str, str] = {}
    status: int = 200

    async def act(self, exchange: Exchange) -> None:
        headers = {"content-type": "application/json", "transfer-encoding": "chunked"}
        await exchange.start(Response(self.status, b"", headers | self.headers), sized=False)
        for piece in self.pieces():
            await exchange.body(piece, more=True)
        await exchange.body(b"")


class Inflate(Struct, frozen=True):
    """The real response, with a list of `times` times `value` as each step's output."""

    value: bytes
    times: int

    async def act(self, exchange: Exchange) -> None:
        body = exchange.response().body
        assert b'"output":"ok"' in body, "steps with outputs as scripts have them"
        await Stream(lambda: self._pieces(body)).act(exchange)

    def _pieces(self, body: bytes) -> Iterable[bytes]:
        many = max(1, _PIECE // (len(self.value) + 1))
        full, rest = divmod(self.times, many)
        lump = (self.value + b",") * many
        first, *others = body.split(b'"output":"ok"')
        yield first
        for part in others:
            yield b'"output":['
            for _ in range(full):
                yield lump
            yield lump[: rest * (len(self.value) + 1)] + b"null]" + part


class EndlessHeaders(Struct, frozen=True):
    """A response whose headers never end."""

    async def act(self, exchange: Exchange) -> None:
        transport = exchange.transport
        assert transport is not None, "only on a socket"
        transport.write(b"HTTP/1.1 200 OK\r\n")
        while not transport.is_closing():
            if transport.get_write_buffer_size() < _PIECE:
                transport.write(b"x-more: and more\r\n" * 1000)
            await asyncio.sleep(0)


WireAction = Respond | Late | Hang | Drip | Truncate | Drop
"""The actions that can come from JSON."""


class Action(Protocol):
    """What happens to a request."""

    async def act(self, exchange: Exchange) -> None: ...


def error(
    status: int, code: int = 10001, message: str = "Internal error", **headers: str
) -> Respond:
    """An error in the envelope; with status 200 it is a mere `success: false`.

    Headers are given with underscores: `error(429, 10429, "Rate limited", retry_after="300")`.
    """
    response = ApiError(status, code, message).response()
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return Respond(status=status, body=response.body, headers=response.headers | more)


def html(status: int = 502) -> Respond:
    """A proxy's page."""
    page = "<!DOCTYPE html><html><body><h1>Bad gateway</h1></body></html>"
    return Respond(status=status, text=page, headers={"content-type": "text/html"})


def garbage(text: str = '{"success": tru') -> Respond:
    """A body that is not JSON, although its Content-Type says so."""
    return Respond(text=text, headers={"content-type": "application/json"})


def redirect(location: str, status: int = 302) -> Respond:
    return Respond(status=status, headers={"location": location})


@dataclass(slots=True)
class Fault:
    """A rule: an action, and the requests that meet it.

    A request must match every condition that is given; `path` is a regular expression that is
    searched for. Of the matching requests the first `skip` pass, then every `every`-th is taken,
    with that probability, at most `times` of them.
    """

    action: Action
    path: str | None = None
    kind: str | None = None
    account: str | None = None
    workflow: str | None = None
    instance: str | None = None
    skip: int = 0
    every: int = 1
    probability: float = 1.0
    times: int | None = None
    seen: int = field(default=0, init=False)
    taken: int = field(default=0, init=False)

    def takes(self, request: ApiRequest, chance: random.Random) -> bool:
        wanted = (self.kind, self.account, self.workflow, self.instance)
        actual = (request.kind, request.account, request.workflow, request.instance)
        if any(w not in {None, a} for w, a in zip(wanted, actual, strict=True)):
            return False
        if self.path is not None and not re.search(self.path, request.path):
            return False
        self.seen += 1
        due = self.seen > self.skip and (self.seen - self.skip - 1) % self.every == 0
        more = self.times is None or self.taken < self.times
        if not due or not more or chance.random() >= self.probability:
            return False
        self.taken += 1
        return True


class Faults:
    """The rules; the first that takes a request decides."""

    def __init__(self, seed: int = 0) -> None:
        self.rules: list[Fault] = []
        self.chance = random.Random(seed)
        self.released = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def add(self, action: Action, **conditions: Any) -> Fault:
        """Adds a rule; the conditions are the fields of `Fault`."""
        self.rules.append(Fault(action, **conditions))
        return self.rules[-1]

    def remove(self, fault: Fault) -> None:
        self.rules.remove(fault)

    def clear(self) -> None:
        """Drops every rule and releases what hangs."""
        self.rules.clear()
        self.release()

    def release(self) -> None:
        """Lets the requests that hang now get their response. Any thread may call it."""
        released, self.released = self.released, asyncio.Event()
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(released.set)

    def pick(self, request: ApiRequest) -> Action | None:
        """What happens to a request of the running event loop; None: its response."""
        self._loop = asyncio.get_running_loop()
        return next((r.action for r in self.rules if r.takes(request, self.chance)), None)
