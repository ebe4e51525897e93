"""Answers without end or without measure, made as they are sent: none is ever held."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from msgspec import Struct

from .faults import Exchange
from .reply import Reply

_PIECE = 64 * 1024


class Stream(Struct, frozen=True):
    """A body that a function makes, piece by piece; its length isn't told ahead."""

    pieces: Callable[[], Iterable[bytes]]
    headers: dict[str, str] = {}
    status: int = 200

    async def act(self, exchange: Exchange) -> None:
        headers = {"content-type": "application/json", "transfer-encoding": "chunked"}
        await exchange.start(Reply(self.status, b"", headers | self.headers), sized=False)
        for piece in self.pieces():
            await exchange.body(piece, more=True)
        await exchange.body(b"")


class Inflate(Struct, frozen=True):
    """The real answer, with each step's output replaced: a list of `value`, so many times."""

    value: bytes
    times: int

    async def act(self, exchange: Exchange) -> None:
        body = exchange.reply().body
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
    """An answer whose headers never end."""

    async def act(self, exchange: Exchange) -> None:
        transport = exchange.transport
        assert transport is not None, "only on a socket"
        transport.write(b"HTTP/1.1 200 OK\r\n")
        while not transport.is_closing():
            if transport.get_write_buffer_size() < _PIECE:
                transport.write(b"x-more: and more\r\n" * 1000)
            await asyncio.sleep(0)
