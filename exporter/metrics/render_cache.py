"""Rendered rows in blocks: a change renders what changed, a scrape joins what is rendered.

A row is what one instance, or one series, shows: a text for each column, where a column is a family
(or a family in one format). A few rows stand together in a block, and stay in it. A block's text is
never changed but replaced, so whoever reads goes on reading what was there when the scrape began.
"""

from array import array
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import accumulate, islice
from typing import Generic, TypeVar

from exporter.metrics import gzip_parts as packing

# One changed row has its whole block compressed anew, so few; but each text is also an object, and
# alone it compresses badly. With 16, compressed bodies are 10% larger than with 64, and those after
# a change are made in half the time.
_ROWS = 16
# Texts to compress at a stretch: 3 ms at most.
_AT_A_STRETCH = 64


class Text:
    """A piece of an exposition, and its compressed bytes once somebody asked for them."""

    __slots__ = ("_packed", "plain")

    def __init__(self, plain: bytes) -> None:
        self.plain = plain
        self._packed: bytes | None = None

    @property
    def packed(self) -> bytes:
        if self._packed is None:
            self._packed = packing.pack(self.plain)
        return self._packed


_EMPTY = Text(b"")


class Segment:
    """Texts one after another, as they were at one moment."""

    def __init__(self, texts: Sequence[Text]) -> None:
        self.plain = [text.plain for text in texts]
        self.size = sum(map(len, self.plain))
        self._texts = texts
        self._packed: packing.Packed | None = None

    def pack(self) -> Iterator[None]:
        """Compresses what isn't yet; yields every few milliseconds, to let others work."""
        if self._packed is None:
            texts, buffers = iter(self._texts), list[bytes]()
            while stretch := list(islice(texts, _AT_A_STRETCH)):
                buffers += [text.packed for text in stretch]
                yield
            crc = packing.checksum(self.plain)
            self._packed = packing.Packed(buffers, self.plain, self.size, crc)

    @property
    def packed(self) -> packing.Packed:
        for _ in self.pack():
            pass
        assert self._packed is not None
        return self._packed


K = TypeVar("K", bound=Hashable)
CacheEntry = tuple[K, Sequence[bytes]]
"""A key, and a text for each column."""


class _Block(Generic[K]):
    __slots__ = ("ends", "rows", "texts")

    def __init__(self, columns: int) -> None:
        self.rows: list[K] = []
        self.texts = [_EMPTY] * columns
        self.ends = [array("L") for _ in range(columns)]
        """Where each row's text ends, by column."""

    def add(self, rows: Sequence[CacheEntry[K]]) -> list[int]:
        """Adds rows after those there are; the columns in which they show anything."""
        self.rows += [key for key, _ in rows]
        changed = []
        for column, texts in enumerate(zip(*(texts for _, texts in rows), strict=True)):
            before = self.texts[column].plain
            ends = accumulate(map(len, texts), initial=len(before))
            self.ends[column].extend(islice(ends, 1, None))
            if any(texts):
                self.texts[column] = Text(b"".join((before, *texts)))
                changed.append(column)
        return changed

    def put(self, key: K, texts: Sequence[bytes]) -> list[int]:
        """Replaces a row's texts; the columns in which they differ from before."""
        row, changed = self.rows.index(key), []
        for column, text in enumerate(texts):
            ends, block = self.ends[column], self.texts[column].plain
            start, end = ends[row - 1] if row else 0, ends[row]
            longer = len(text) - (end - start)
            if longer or not block.startswith(text, start):
                self.texts[column] = Text(block[:start] + text + block[end:])
                changed.append(column)
            if longer:
                for other in range(row, len(ends)):
                    ends[other] += longer
        return changed

    def remove(self, key: K) -> list[int]:
        changed, row = self.put(key, [b""] * len(self.texts)), self.rows.index(key)
        del self.rows[row]
        for ends in self.ends:
            del ends[row]
        return changed


class RenderCache(Generic[K]):
    """Rows by key.

    Args:
        columns: How many texts a row has.
    """

    def __init__(self, columns: int) -> None:
        self._columns = columns
        # Dictionaries in place of sets, for their order.
        self._blocks: dict[_Block[K], None] = {}
        self._with_room: dict[_Block[K], None] = {}
        self._block_of: dict[K, _Block[K]] = {}
        self._runs: list[Segment | None] = [None] * columns

    def put(self, rows: Iterable[CacheEntry[K]]) -> None:
        """Adds rows, or puts them in the place of those of the same keys, each key once."""
        new: list[CacheEntry[K]] = []
        for key, texts in rows:
            block = self._block_of.get(key)
            if block is not None:
                self._outdate(block.put(key, texts))
            else:
                new.append((key, texts))
                if len(new) == _ROWS:
                    # A block at a time: after a restart there are tens of thousands of rows.
                    self._add(new)
                    new = []
        self._add(new)

    def _add(self, rows: list[CacheEntry[K]]) -> None:
        while rows:
            block = next(iter(self._with_room), None) or _Block[K](self._columns)
            room = _ROWS - len(block.rows)
            some, rows = rows[:room], rows[room:]
            self._outdate(block.add(some))
            self._block_of.update((key, block) for key, _ in some)
            self._note(block)

    def remove(self, key: K) -> None:
        """Takes a row away, if it is there."""
        block = self._block_of.pop(key, None)
        if block is not None:
            self._outdate(block.remove(key))
            self._note(block)

    def _note(self, block: _Block[K]) -> None:
        for blocks, member in (
            (self._blocks, len(block.rows) > 0),
            (self._with_room, 0 < len(block.rows) < _ROWS),
        ):
            if member:
                blocks[block] = None
            else:
                blocks.pop(block, None)

    def _outdate(self, columns: Iterable[int]) -> None:
        for column in columns:
            self._runs[column] = None

    def run(self, column: int) -> Segment:
        """All rows' texts of a column."""
        run = self._runs[column]
        if run is None:
            texts = [block.texts[column] for block in self._blocks]
            run = self._runs[column] = Segment([text for text in texts if text is not _EMPTY])
        return run
