"""An answer's body as it comes in: bounded in bytes and in memory, whatever upstream sends."""

import zlib
from collections.abc import Iterator
from typing import Any

from exporter.cloudflare.json_filter import Refused, Skimmer

_SMALL = 4 * 1024 * 1024
"""Bytes up to which a body is kept whole, which is quicker: 10,000 steps with small outputs."""
_MOST_KEPT = 32 * 1024 * 1024
"""Bytes of what is kept of a large one: 25,000 steps, Cloudflare's limit, of 1.3 KiB each."""
_MOST_OBJECTS = 300_000
"""Of what is kept: 25,000 steps with 5 attempts, most of them failed. Each takes 100 bytes and more
of memory, even where it took 3 of the body."""
_PIECE = 64 * 1024
"""Bytes that are decompressed at a time: a few of a bomb's are gigabytes."""


class Body:
    """One body.

    Args:
        limit: Bytes, decompressed or not.
        model: What it is to be read as; of a large one, only what that needs is kept.
    """

    def __init__(self, limit: int, model: Any) -> None:
        self.size = 0
        """Bytes so far, decompressed."""
        self.received = 0
        """Bytes so far, as they came."""
        self._limit = limit
        self._model = model
        self._whole = bytearray()
        self._skimmer: Skimmer | None = None
        self._gzip: zlib._Decompress | None = None

    def begin(self, coding: str) -> None:
        """Takes note of `Content-Encoding`.

        Raises:
            Refused: it is another one than was asked for.
        """
        if coding.strip().lower() == "gzip":
            self._gzip = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        elif coding.strip().lower() not in ("", "identity"):
            raise Refused("its Content-Encoding is not gzip")

    def add(self, data: bytes) -> None:
        """Takes what came in.

        Raises:
            Refused: the body is too long, too deep, or not compressed as it should be.
        """
        self.received += len(data)
        for piece in [data] if self._gzip is None else self._decompressed(data, self._gzip):
            self.size += len(piece)
            # What was compressed to no purpose may come to nothing without end.
            if max(self.size, self.received) > self._limit:
                raise Refused(f"longer than api.max_body, {self._limit} bytes")
            if self._skimmer is not None:
                self._skimmer.add(piece)
                continue
            self._whole += piece
            if self.size > _SMALL:
                self._skimmer = self._skim()

    def read(self) -> bytearray:
        """The body, or what is kept of it.

        Raises:
            Refused: the compressed body was cut short, or it holds too many steps.
        """
        if self._gzip is not None and self.size and not self._gzip.eof:
            raise Refused("it ends in the middle of its compression")
        if self._skimmer is None and self._whole.count(b"{") > _MOST_OBJECTS:
            self._skimmer = self._skim()
        return self._whole if self._skimmer is None else self._skimmer.end()

    def _skim(self) -> Skimmer:
        skimmer = Skimmer(self._model, most=_MOST_KEPT, most_objects=_MOST_OBJECTS)
        skimmer.add(bytes(self._whole))
        self._whole.clear()
        return skimmer

    @staticmethod
    def _decompressed(data: bytes, gzip: "zlib._Decompress") -> Iterator[bytes]:
        if gzip.eof:
            raise Refused("it goes on after the end of its compression")
        while True:
            try:
                piece = gzip.decompress(data, _PIECE)
            except zlib.error as error:
                raise Refused(f"not compressed as gzip: {error}") from None
            yield piece
            data = gzip.unconsumed_tail
            if len(piece) < _PIECE:
                return
