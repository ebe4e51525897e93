"""A gzip stream assembled from parts that were compressed separately.

Each part is deflated without reference to earlier data, ends at a byte boundary, and isn't marked
as the last one. Parts in any order are one valid stream; its checksum is computed from theirs.
Concatenated gzip members would be simpler, but curl, httpx and Chromium stop after the first (Go,
Node and Python's gzip read all). ISA-L is several times as fast as zlib, which has no function for
checksums of parts in Python.
"""

from collections.abc import Iterable

from isal import isal_zlib
from msgspec import Struct

# One above the fastest level: two thirds of its size, and of zlib's fastest in a third of its time.
_LEVEL, _RAW = 1, -15
HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
"""The begin of a stream (RFC 1952): deflate, no name, no time, unknown system."""
# An empty block that is marked as the last.
_LAST = b"\x03\0"


class Part(Struct, frozen=True, gc=False):
    """A compressed text."""

    data: bytes
    size: int
    """Bytes of the text."""
    crc: int
    """CRC of the text."""


EMPTY = Part(b"", 0, 0)


def pack(text: bytes) -> Part:
    """Compresses a text."""
    if not text:
        return EMPTY
    packer = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _RAW)
    data = packer.compress(text) + packer.flush(isal_zlib.Z_SYNC_FLUSH)
    return Part(data, len(text), isal_zlib.crc32(text))


def unpack(parts: Iterable[Part]) -> bytes:
    """The texts, joined."""
    return isal_zlib.decompressobj(_RAW).decompress(b"".join([part.data for part in parts]))


def checksum(parts: Iterable[Part], crc: int = 0) -> int:
    """The CRC of the texts of parts that follow data with the CRC `crc`."""
    for part in parts:
        crc = isal_zlib.crc32_combine(crc, part.crc, part.size)
    return crc


def end(crc: int, size: int) -> bytes:
    """What follows the parts in a stream, by the CRC and the bytes of all texts."""
    return _LAST + crc.to_bytes(4, "little") + (size % 2**32).to_bytes(4, "little")
