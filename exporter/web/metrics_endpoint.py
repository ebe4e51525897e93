"""`/metrics`: sends the exposition of one moment, as fast as the client reads it."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import TypeVar

from starlette.datastructures import Headers, QueryParams
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from exporter.metrics import gzip_parts
from exporter.metrics.accept_headers import accepts_gzip
from exporter.metrics.exposition import Exposition

# A pair of Prometheus servers and some people. A slow client keeps what has changed since it asked
# in memory.
MAX_SCRAPES = 8
# Bytes. Each chunk costs 50 µs; what the socket doesn't take at once is copied.
_CHUNK = 1024 * 1024
T = TypeVar("T")

_MORE: Message = {"type": "http.response.body", "body": b"", "more_body": True}


class MetricsEndpoint:
    """The ASGI application behind `/metrics`.

    Args:
        exposition: What it serves.
    """

    def __init__(self, exposition: Exposition) -> None:
        self._exposition = exposition
        self._active = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._active >= MAX_SCRAPES:
            headers = {"Retry-After": "1"}
            refusal = PlainTextResponse("too many scrapes at once\n", 503, headers=headers)
            await refusal(scope, receive, send)
            return
        self._active += 1
        try:
            await self._respond(scope, receive, send)
        finally:
            self._active -= 1

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Headers(scope=scope)
        names = QueryParams(scope["query_string"]).getlist("name[]")
        counts_shown = self._exposition.counts_shown()
        parts, content_type = self._exposition.scrape(",".join(request.getlist("accept")), names)
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        size, begin, end = sum(part.size for part in parts), b"", b""
        if accepts_gzip(request.get("accept-encoding", "")):
            headers["Content-Encoding"] = "gzip"
            crc = 0
            for some in _chunks(parts, lambda part: part.size):
                crc = gzip_parts.checksum(some, crc)
                await asyncio.sleep(0)
            begin, end = gzip_parts.HEADER, gzip_parts.end(crc, size)
            size = len(begin) + sum(len(part.data) for part in parts) + len(end)
            chunks = map(_joined, _chunks(parts, lambda part: len(part.data)))
        else:
            chunks = map(gzip_parts.unpack, _chunks(parts, lambda part: part.size))
        headers["Content-Length"] = str(size)
        raw = Headers(headers).raw
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        for chunk in chain([begin], chunks, [end]) if scope["method"] == "GET" else ():
            await asyncio.sleep(0)  # a reader as fast as this would hold up others
            await send(_MORE)  # returns when most of what was sent before is on its way
            if counts_shown and not self._exposition.counts_shown():
                await _cut(scope, receive)
                return
            await send({**_MORE, "body": chunk})
        await send({**_MORE, "more_body": False})


async def _cut(scope: Scope, receive: Receive) -> None:
    """Resets the connection: the client discards what it has read."""
    scope["state"]["abort"]()
    while (await receive())["type"] != "http.disconnect":
        pass


def _joined(parts: Iterable[gzip_parts.Part]) -> bytes:
    return b"".join([part.data for part in parts])


def _chunks(pieces: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """The pieces, in groups of about 1 MiB."""
    chunk, room = list[T](), _CHUNK
    for piece in pieces:
        chunk.append(piece)
        room -= size(piece)
        if room <= 0:
            yield chunk
            chunk, room = [], _CHUNK
    yield chunk
