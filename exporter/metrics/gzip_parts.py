"""A gzip stream assembled from parts that were compressed separately.

Each part is deflated without reference to earlier data, ends at a byte boundary, and isn't marked
as the last one. Parts in any order are one valid stream; its checksum is computed from theirs.
Concatenated gzip members would be simpler, but curl, httpx and Chromium stop after the first one
(Go, Node and Python's gzip read all of them). ISA-L is several times as fast as zlib; and Python's
zlib can't combine the checksums of parts.
"""

from collections.abc import Iterable, Iterator, Sequence

from isal import igzip_lib, isal_zlib
from msgspec import Struct

# One above the fastest level: two thirds of its size, and of zlib's fastest in a third of its time.
_LEVEL, _RAW = 1, -15
_BEGIN = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
"""The beginning of a stream (RFC 1952): deflate, no name, no time, unknown system."""
_LAST = b"\x03\0"
"""An empty block that is marked as the last."""


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


def joined(parts: Sequence[Part]) -> Part:
    """One part of all texts, joined."""
    crc, size = _checksum(parts)
    return Part(b"".join([part.data for part in parts]), size, crc)


def unpack(parts: Iterable[Part]) -> bytes:
    """The texts, joined."""
    return isal_zlib.decompressobj(_RAW).decompress(b"".join([part.data for part in parts]))


def unpacked(parts: Iterable[Part], size: int) -> Iterator[bytes]:
    """The texts, joined, in pieces of at most `size` bytes."""
    unpacker = igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_DEFLATE)
    yield unpacker.decompress(b"".join([part.data for part in parts]), size)
    while not unpacker.needs_input:
        yield unpacker.decompress(b"", size)


def stream(parts: Sequence[Part]) -> bytes:
    """A whole stream of the parts, with its beginning and its end."""
    crc, size = _checksum(parts)
    end = _LAST + crc.to_bytes(4, "little") + (size % 2**32).to_bytes(4, "little")
    return b"".join([_BEGIN, *(part.data for part in parts), end])


def _checksum(parts: Iterable[Part]) -> tuple[int, int]:
    """The CRC of the texts, joined, and their bytes."""
    crc = size = 0
    for part in parts:
        crc = isal_zlib.crc32_combine(crc, part.crc, part.size)
        size += part.size
    return crc, size
