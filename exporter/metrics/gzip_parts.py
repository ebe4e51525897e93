"""gzip, put together from parts that were compressed one by one.

A part is deflated without knowledge of what stands before it, up to a byte boundary, and not marked
as the last: parts in any order are one stream, whose checksum follows from theirs. Concatenated
gzip members would be simpler, but only Go, Node and Python's gzip read on after the first; curl,
httpx and Chromium show that one alone.
"""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, repeat

# The fastest: of a tenth of the size, the best saves a tenth, in four times the time.
_LEVEL, _RAW = 1, -15
# RFC 1952: deflated, no name, no time, made on an unknown system.
_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
# An empty block that is marked as the last.
_LAST = b"\x03\0"
# Bytes; to go over fewer once more is cheaper than to reckon.
_SHORT = 10_000


@dataclass(frozen=True)
class Packed:
    """Texts one after another, compressed.

    Attributes:
        parts: one for each text.
        texts: what they hold.
        size: of all texts, in bytes.
        crc: of all texts.
    """

    parts: list[bytes]
    texts: list[bytes]
    size: int
    crc: int


def pack(text: bytes) -> bytes:
    """A text as a part of a stream."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW)
    return packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH)


def checksum(texts: Iterable[bytes], crc: int = 0) -> int:
    """The CRC of texts after something that has the CRC `crc`."""
    for text in texts:
        crc = zlib.crc32(text, crc)
    return crc


def stream(runs: Iterable[Packed]) -> list[bytes]:
    """The buffers of a gzip stream of everything in `runs`."""
    buffers, crc, size = [_HEADER], 0, 0
    for run in runs:
        buffers += run.parts
        size += run.size
        if run.size < _SHORT:
            crc = checksum(run.texts, crc)
        else:
            crc = _times(crc, _power(run.size)) ^ run.crc
    tail = crc.to_bytes(4, "little") + (size % 2**32).to_bytes(4, "little")
    return [*buffers, _LAST, tail]


# A CRC is a remainder of polynomials over GF(2), the highest bit the constant term: what n bytes
# put after a text do to its CRC is a multiplication by x to the power of 8n.
_ONE, _X, _POLYNOMIAL = 1 << 31, 1 << 30, 0xEDB88320


def _times(a: int, b: int) -> int:
    """The product of two remainders."""
    product, bit = 0, _ONE
    while a:
        if a & bit:
            product ^= b
            a ^= bit
        bit >>= 1
        b = b >> 1 ^ _POLYNOMIAL if b & 1 else b >> 1
    return product


# x^8, x^16, x^32, … each the square of the one before.
_SQUARES = list(accumulate(repeat(None, 48), lambda x, _: _times(x, x), initial=_times(_X, _X)))[2:]


@lru_cache(maxsize=1024)
def _power(size: int) -> int:
    """x to the power of 8 times `size`."""
    power = _ONE
    for bit, square in enumerate(_SQUARES):
        if size >> bit & 1:
            power = _times(power, square)
    return power
