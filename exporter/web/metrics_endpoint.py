"""`/metrics`: sends the exposition of one moment, as fast as the client reads it."""

import asyncio
from collections.abc import Iterable

from starlette.datastructures import Headers, QueryParams
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from exporter.metrics import gzip_parts
from exporter.metrics.accept_headers import accepts_gzip
from exporter.metrics.exposition import Exposition

MAX_SCRAPES = 8
"""Scrapes at once: enough for a pair of Prometheus servers and some people. The compressed body of
each stays in memory until it is read."""
_CHUNK = 256 * 1024
"""Bytes: what a socket takes at a time. The rest of a larger chunk would be copied twice."""

_MORE: Message = {"type": "http.response.body", "body": b"", "more_body": True}


class MetricsEndpoint:
    """The ASGI application behind `/metrics`.

    Args:
        exposition: What it serves.
    """

    def __init__(self, exposition: Exposition) -> None:
        self._exposition = exposition
        self._scrapes = asyncio.Semaphore(MAX_SCRAPES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._scrapes.locked():
            headers = {"Retry-After": "1"}
            refusal = PlainTextResponse("too many scrapes at once\n", 503, headers=headers)
            await refusal(scope, receive, send)
            return
        async with self._scrapes:
            await self._respond(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Headers(scope=scope)
        names = QueryParams(scope["query_string"]).getlist("name[]")
        counts_shown = self._exposition.counts_shown()
        parts, content_type = self._exposition.scrape(",".join(request.getlist("accept")), names)
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if accepts_gzip(request.get("accept-encoding", "")):
            headers["Content-Encoding"] = "gzip"
            body = gzip_parts.stream(parts)
            size = len(body)
            chunks: Iterable[bytes] = (body[i : i + _CHUNK] for i in range(0, size, _CHUNK))
        else:
            size = sum([part.size for part in parts])
            chunks = gzip_parts.unpacked(parts, _CHUNK)
        headers["Content-Length"] = str(size)
        raw = Headers(headers).raw
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        for chunk in chunks if scope["method"] == "GET" else ():
            await asyncio.sleep(0)  # to a fast reader, sending would let no other task run
            await send(_MORE)  # returns when most of what was sent before is on its way
            if counts_shown and not self._exposition.counts_shown():
                await _cut(scope, receive)
                return
            await send({**_MORE, "body": chunk})
        await send({**_MORE, "more_body": False})


async def _cut(scope: Scope, receive: Receive) -> None:
    """Resets the connection, so that the client discards what it has read."""
    scope["state"]["connection"].transport.abort()
    while (await receive())["type"] != "http.disconnect":
        pass
