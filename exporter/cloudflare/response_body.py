"""Receives the body of a response, decompressed, within fixed bounds of bytes and memory."""

import zlib
from collections.abc import Iterator
from typing import Any

from exporter.cloudflare.json_filter import InvalidBody, JsonFilter

_UNFILTERED = 4 * 1024 * 1024
"""Bytes up to which a body isn't filtered, which is faster. 10,000 steps with small outputs fit."""
_MAX_FILTERED = 32 * 1024 * 1024
"""Maximum bytes that stay of a larger one: 25,000 steps, Cloudflare's limit, of 1.3 KiB each."""
_MAX_OBJECTS = 300_000
"""Maximum objects in what stays: 25,000 steps with 5 attempts, most of them failed. Each object
takes at least 100 bytes of memory, even if it has only 3 in the body."""
_PIECE = 64 * 1024
"""Bytes that are decompressed at a time, since a few bytes may decompress to gigabytes."""


class ResponseBody:
    """The body of one response.

    Args:
        limit: Maximum bytes, both compressed and decompressed.
        model: The msgspec type that it will be decoded as; of a large body, only what this type has
            is stored.
    """

    def __init__(self, limit: int, model: Any) -> None:
        self.size = 0
        """Bytes so far, decompressed."""
        self.received = 0
        """Bytes so far, as received."""
        self._limit = limit
        self._model = model
        self._whole = bytearray()
        self._filter: JsonFilter | None = None
        self._gzip: zlib._Decompress | None = None

    def begin(self, coding: str) -> None:
        """Begins a body with this `Content-Encoding`.

        Raises:
            InvalidBody: it is neither gzip nor none.
        """
        if coding.strip().lower() == "gzip":
            self._gzip = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        elif coding.strip().lower() not in ("", "identity"):
            raise InvalidBody("its Content-Encoding is not gzip")

    def add(self, data: bytes) -> None:
        """Adds received bytes.

        Raises:
            InvalidBody: the body is too long, too deep, or invalid gzip.
        """
        self.received += len(data)
        for piece in [data] if self._gzip is None else _decompressed(data, self._gzip):
            self.size += len(piece)
            # Endless gzip may be valid and decompress to nothing, so both sizes are checked.
            if max(self.size, self.received) > self._limit:
                raise InvalidBody(f"longer than api.max_body, {self._limit} bytes")
            if self._filter is not None:
                self._filter.add(piece)
                continue
            self._whole += piece
            if self.size > _UNFILTERED:
                self._filter = self._start_filter()

    def read(self) -> bytearray:
        """The body, filtered if it is large.

        Raises:
            InvalidBody: the compressed body was cut short, or it holds too many steps.
        """
        if self._gzip is not None and self.size and not self._gzip.eof:
            raise InvalidBody("its gzip stream is cut short")
        if self._filter is None and self._whole.count(b"{") > _MAX_OBJECTS:
            self._filter = self._start_filter()
        return self._whole if self._filter is None else self._filter.end()

    def _start_filter(self) -> JsonFilter:
        started = JsonFilter(self._model, max_bytes=_MAX_FILTERED, max_objects=_MAX_OBJECTS)
        started.add(bytes(self._whole))
        self._whole.clear()
        return started


def _decompressed(data: bytes, gzip: "zlib._Decompress") -> Iterator[bytes]:
    if gzip.eof:
        raise InvalidBody("it continues after the end of its gzip stream")
    while True:
        try:
            piece = gzip.decompress(data, _PIECE)
        except zlib.error as error:
            raise InvalidBody(f"not compressed as gzip: {error}") from None
        yield piece
        data = gzip.unconsumed_tail
        if len(piece) < _PIECE:
            return
