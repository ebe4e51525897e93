"""What goes wrong between a client and the API, on a real socket.

A `Fault` says which calls it takes, and an action what happens to them. The actions are structs,
so that a program can send them as JSON (`{"type": "hang"}`).
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
import struct
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from msgspec import Struct

from .calls import Call
from .reply import ApiError, Reply

Message = MutableMapping[str, Any]


@dataclass(slots=True)
class Exchange:
    """A request that waits for its answer. There is no transport without a real socket."""

    call: Call
    reply: Callable[[], Reply]
    send: Callable[[Message], Awaitable[None]]
    receive: Callable[[], Awaitable[Message]]
    released: asyncio.Event
    transport: asyncio.Transport | None = None

    async def start(self, reply: Reply, *, sized: bool = True) -> None:
        self.call.status = reply.status
        length = {"content-length": str(len(reply.body))} if sized else {}
        headers = [
            (name.lower().encode(), value.encode())
            for name, value in (length | reply.headers).items()
        ]
        await self.send({"type": "http.response.start", "status": reply.status, "headers": headers})

    async def body(self, part: bytes, *, more: bool = False) -> None:
        await self.send({"type": "http.response.body", "body": part, "more_body": more})

    async def answer(self, reply: Reply) -> None:
        await self.start(reply)
        await self.body(reply.body)

    async def drop(self, *, reset: bool) -> None:
        """End the connection without finishing the answer; a reset sends RST, not FIN."""
        if self.transport is None:
            raise ConnectionResetError("the simulator dropped the connection")
        if reset:
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        else:
            self.transport.close()
        await self.gone()

    async def gone(self) -> None:
        """Wait until the connection is gone."""
        while (await self.receive())["type"] != "http.disconnect":
            pass


class Answer(Struct, frozen=True, tag="answer", kw_only=True):
    """Another answer: any status, headers and body (base64 in JSON), or text."""

    status: int = 200
    text: str = ""
    body: bytes = b""
    headers: dict[str, str] = {}

    async def act(self, exchange: Exchange) -> None:
        await exchange.answer(Reply(self.status, self.body or self.text.encode(), {**self.headers}))


class Rewrite(Struct, frozen=True, tag="rewrite"):
    """The real answer, changed by a function. Only from Python."""

    change: Callable[[Reply], Reply]

    async def act(self, exchange: Exchange) -> None:
        await exchange.answer(self.change(exchange.reply()))


class Late(Struct, frozen=True, tag="late"):
    """The real answer, some seconds late."""

    seconds: float

    async def act(self, exchange: Exchange) -> None:
        await asyncio.sleep(self.seconds)
        await exchange.answer(exchange.reply())


class Hang(Struct, frozen=True, tag="hang"):
    """No answer until `Faults.release`, and then the real one."""

    async def act(self, exchange: Exchange) -> None:
        release = asyncio.ensure_future(exchange.released.wait())
        gone = asyncio.ensure_future(exchange.gone())
        try:
            await asyncio.wait({release, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            release.cancel()
            gone.cancel()
        if exchange.released.is_set():
            await exchange.answer(exchange.reply())


class Drip(Struct, frozen=True, tag="drip"):
    """The real answer, slowly: so many bytes each so many seconds."""

    size: int = 1
    every: float = 1.0

    async def act(self, exchange: Exchange) -> None:
        reply = exchange.reply()
        await exchange.start(reply)
        for begin in range(0, len(reply.body), self.size):
            await exchange.body(reply.body[begin : begin + self.size], more=True)
            await asyncio.sleep(self.every)
        await exchange.body(b"")


class Truncate(Struct, frozen=True, tag="truncate"):
    """A part of the real body, as if it were the whole: 0 is an empty body."""

    keep: float = 0.5

    async def act(self, exchange: Exchange) -> None:
        reply = exchange.reply()
        reply.body = reply.body[: int(len(reply.body) * self.keep)]
        await exchange.answer(reply)


class Drop(Struct, frozen=True, tag="drop"):
    """The connection ends after a part of the body; None ends it before the headers."""

    keep: float | None = None
    reset: bool = False

    async def act(self, exchange: Exchange) -> None:
        if self.keep is not None:
            reply = exchange.reply()
            await exchange.start(reply)
            await exchange.body(reply.body[: int(len(reply.body) * self.keep)], more=True)
        await exchange.drop(reset=self.reset)


WireAction = Answer | Late | Hang | Drip | Truncate | Drop
"""The actions that can come from JSON."""


class Action(Protocol):
    """What happens to a call."""

    async def act(self, exchange: Exchange) -> None: ...


def error(
    status: int, code: int = 10001, message: str = "Internal error", **headers: str
) -> Answer:
    """An error in the envelope; with status 200 it is a mere `success: false`.

    Headers are given with underscores: `error(429, 10429, "Rate limited", retry_after="300")`.
    """
    reply = ApiError(status, code, message).reply()
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status=status, body=reply.body, headers=reply.headers | more)


def html(status: int = 502) -> Answer:
    """A proxy's page."""
    page = "<!DOCTYPE html><html><body><h1>Bad gateway</h1></body></html>"
    return Answer(status=status, text=page, headers={"content-type": "text/html"})


def garbage(text: str = '{"success": tru') -> Answer:
    """A body that says it is JSON and isn't."""
    return Answer(text=text, headers={"content-type": "application/json"})


def redirect(location: str, status: int = 302) -> Answer:
    return Answer(status=status, headers={"location": location})


@dataclass(slots=True)
class Fault:
    """A rule: which calls meet the action.

    A call must match every condition that is given; `path` is a regular expression that is
    searched for. Of the matching calls the first `skip` go free, then every `every`-th is taken,
    with that probability, `times` in all.
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

    def takes(self, call: Call, chance: random.Random) -> bool:
        wanted = (self.kind, self.account, self.workflow, self.instance)
        actual = (call.kind, call.account, call.workflow, call.instance)
        if any(w not in {None, a} for w, a in zip(wanted, actual, strict=True)):
            return False
        if self.path is not None and not re.search(self.path, call.path):
            return False
        self.seen += 1
        due = self.seen > self.skip and (self.seen - self.skip - 1) % self.every == 0
        left = self.times is None or self.taken < self.times
        if not due or not left or chance.random() >= self.probability:
            return False
        self.taken += 1
        return True


class Faults:
    """The rules in force; the first that takes a call decides."""

    def __init__(self, seed: int = 0) -> None:
        self.rules: list[Fault] = []
        self.chance = random.Random(seed)
        self.released = asyncio.Event()

    def add(self, action: Action, **conditions: Any) -> Fault:
        """Add a rule; the conditions are the fields of `Fault`."""
        self.rules.append(Fault(action, **conditions))
        return self.rules[-1]

    def remove(self, fault: Fault) -> None:
        self.rules.remove(fault)

    def clear(self) -> None:
        """Drop every rule and let what hangs go on."""
        self.rules.clear()
        self.release()

    def release(self) -> None:
        """Let the calls that hang now be answered."""
        self.released.set()
        self.released = asyncio.Event()

    def pick(self, call: Call) -> Action | None:
        return next((r.action for r in self.rules if r.takes(call, self.chance)), None)
