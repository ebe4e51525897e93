"""A cache of rendered lines: a change renders only what changed, a scrape joins what is cached.

An entry is one instance or series: a text for each column, where a column is a family, or a family
in one format. A few entries share a block and stay in it. A block's text is never modified but
replaced, so that a scrape in progress continues with the texts of the moment it started.
"""

from array import array
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import accumulate, islice
from typing import Generic, TypeVar

from exporter.metrics import gzip_parts

# Small, because one changed entry makes its whole block be compressed again; but each text costs
# an object, and short texts compress badly. With 16, compressed bodies are 10% larger than with 64,
# and take half the time after a change.
_BLOCK_SIZE = 16
# Texts compressed before other tasks get their turn: 3 ms at most.
_PACK_BATCH = 64


class Text:
    """A piece of an exposition; its compressed bytes are made on first use."""

    __slots__ = ("_packed", "plain")

    def __init__(self, plain: bytes) -> None:
        self.plain = plain
        self._packed: bytes | None = None

    @property
    def packed(self) -> bytes:
        if self._packed is None:
            self._packed = gzip_parts.pack(self.plain)
        return self._packed


_EMPTY = Text(b"")


class Segment:
    """The texts of a column, as of one moment."""

    def __init__(self, texts: Sequence[Text]) -> None:
        self.plain = [text.plain for text in texts]
        self.size = sum(map(len, self.plain))
        self._texts = texts
        self._packed: gzip_parts.Packed | None = None

    def pack(self) -> Iterator[None]:
        """Compresses the texts; yields every few milliseconds to let other tasks run."""
        if self._packed is None:
            texts, buffers = iter(self._texts), list[bytes]()
            while batch := list(islice(texts, _PACK_BATCH)):
                buffers += [text.packed for text in batch]
                yield
            crc = gzip_parts.checksum(self.plain)
            self._packed = gzip_parts.Packed(buffers, self.plain, self.size, crc)

    @property
    def packed(self) -> gzip_parts.Packed:
        for _ in self.pack():
            pass
        assert self._packed is not None
        return self._packed


K = TypeVar("K", bound=Hashable)
CacheEntry = tuple[K, Sequence[bytes]]
"""A key, and a text for each column."""


class _Block(Generic[K]):
    __slots__ = ("ends", "keys", "texts")

    def __init__(self, columns: int) -> None:
        self.keys: list[K] = []
        self.texts = [_EMPTY] * columns
        self.ends = [array("L") for _ in range(columns)]
        """Where each entry's text ends, by column."""

    def add(self, entries: Sequence[CacheEntry[K]]) -> list[int]:
        """Appends entries; returns the columns that changed."""
        self.keys += [key for key, _ in entries]
        changed = []
        for column, texts in enumerate(zip(*(texts for _, texts in entries), strict=True)):
            before = self.texts[column].plain
            ends = accumulate(map(len, texts), initial=len(before))
            self.ends[column].extend(islice(ends, 1, None))
            if any(texts):
                self.texts[column] = Text(b"".join((before, *texts)))
                changed.append(column)
        return changed

    def put(self, key: K, texts: Sequence[bytes]) -> list[int]:
        """Replaces an entry's texts; returns the columns that changed."""
        index, changed = self.keys.index(key), []
        for column, text in enumerate(texts):
            ends, block = self.ends[column], self.texts[column].plain
            start, end = ends[index - 1] if index else 0, ends[index]
            longer = len(text) - (end - start)
            if longer or not block.startswith(text, start):
                self.texts[column] = Text(block[:start] + text + block[end:])
                changed.append(column)
            if longer:
                for other in range(index, len(ends)):
                    ends[other] += longer
        return changed

    def remove(self, key: K) -> list[int]:
        changed, index = self.put(key, [b""] * len(self.texts)), self.keys.index(key)
        del self.keys[index]
        for ends in self.ends:
            del ends[index]
        return changed


class RenderCache(Generic[K]):
    """Entries by key.

    Args:
        columns: Number of texts of an entry.
    """

    def __init__(self, columns: int) -> None:
        self._columns = columns
        # Dictionaries serve as ordered sets.
        self._blocks: dict[_Block[K], None] = {}
        self._with_room: dict[_Block[K], None] = {}
        self._block_of: dict[K, _Block[K]] = {}
        self._segments: list[Segment | None] = [None] * columns

    def put(self, entries: Iterable[CacheEntry[K]]) -> None:
        """Adds or replaces entries, each key at most once."""
        new: list[CacheEntry[K]] = []
        for key, texts in entries:
            block = self._block_of.get(key)
            if block is not None:
                self._invalidate(block.put(key, texts))
            else:
                new.append((key, texts))
                if len(new) == _BLOCK_SIZE:
                    # A block at a time: after a restart there are tens of thousands of entries.
                    self._add(new)
                    new = []
        self._add(new)

    def _add(self, entries: list[CacheEntry[K]]) -> None:
        while entries:
            block = next(iter(self._with_room), None) or _Block[K](self._columns)
            room = _BLOCK_SIZE - len(block.keys)
            some, entries = entries[:room], entries[room:]
            self._invalidate(block.add(some))
            self._block_of.update((key, block) for key, _ in some)
            self._file(block)

    def remove(self, key: K) -> None:
        """Removes an entry, if there is one."""
        block = self._block_of.pop(key, None)
        if block is not None:
            self._invalidate(block.remove(key))
            self._file(block)

    def _file(self, block: _Block[K]) -> None:
        for blocks, member in (
            (self._blocks, len(block.keys) > 0),
            (self._with_room, 0 < len(block.keys) < _BLOCK_SIZE),
        ):
            if member:
                blocks[block] = None
            else:
                blocks.pop(block, None)

    def _invalidate(self, columns: Iterable[int]) -> None:
        for column in columns:
            self._segments[column] = None

    def segment(self, column: int) -> Segment:
        """All texts of a column."""
        segment = self._segments[column]
        if segment is None:
            texts = [block.texts[column] for block in self._blocks]
            segment = self._segments[column] = Segment(
                [text for text in texts if text is not _EMPTY]
            )
        return segment
