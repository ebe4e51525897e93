"""A cache of rendered lines: a change renders only what changed, a scrape joins what is cached.

An entry is one instance or series: a text for each column, where a column is a family, or a family
in one format. A few entries share a block and stay in it. Only the compressed texts of a block are
stored. They are never modified but replaced, so that a scrape in progress continues with those of
the moment it started.
"""

from collections.abc import Callable, Generator, Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import Generic, TypeVar

from exporter.metrics.gzip_parts import EMPTY, Part, pack, unpack

# Small, because one changed entry makes its whole block be compressed again; but each text costs
# an object, and short texts compress badly.
_BLOCK_SIZE = 32

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Block:
    __slots__ = ("entries", "parts")

    def __init__(self, columns: int) -> None:
        self.entries = 0
        self.parts = [EMPTY] * columns

    def replaced(self, entries: Iterable[tuple[bytes, Sequence[bytes]]]) -> list[Part]:
        """The parts with other texts of these entries, each with what its lines alone contain."""
        parts = []
        for column, part in enumerate(self.parts):
            before = unpack([part])
            text, new = before, []
            for owner, texts in entries:
                if (first := text.find(owner)) < 0:
                    new.append(texts[column])
                    continue
                start = text.rfind(b"\n", 0, first) + 1
                end = text.find(b"\n", text.rfind(owner, first, len(text) - 1)) + 1
                text = b"".join((text[:start], texts[column], text[end:]))
            text = b"".join((text, *new))
            parts.append(part if text == before else pack(text))
        return parts


class RenderCache(Generic[K, V]):
    """Entries by key.

    Args:
        columns: Number of texts of an entry.
        owner: Returns what each line of an entry contains, and no other line of its columns.
        render: Returns an entry's texts: whole lines that contain its owner, or nothing.
    """

    def __init__(
        self,
        columns: int,
        owner: Callable[[K], bytes],
        render: Callable[[K, V], Sequence[bytes]],
    ) -> None:
        self._owner, self._render = owner, render
        self._nothing = [b""] * columns
        # Dictionaries serve as ordered sets.
        self._blocks: dict[_Block, None] = {}
        self._with_room: dict[_Block, None] = {}
        self._block_of: dict[K, _Block] = {}

    def prepare(self, changes: Mapping[K, V | None]) -> Generator[None, None, Callable[[], None]]:
        """Renders what changed, without letting scrapes see it; yields after each block.

        Args:
            changes: Values of entries; None: the entry is removed.

        Returns:
            Makes scrapes see the changes. Must be called before others are prepared.
        """
        keys_of: dict[_Block, list[K]] = {}
        for key, value in changes.items():
            if value is not None or key in self._block_of:
                keys_of.setdefault(self._place(key), []).append(key)
        prepared = []
        for block, keys in keys_of.items():
            entries = []
            for key in keys:
                value = changes[key]
                texts = self._nothing if value is None else self._render(key, value)
                entries.append((self._owner(key), texts))
            prepared.append((block, block.replaced(entries)))
            yield
        removed = [key for key, value in changes.items() if value is None]
        return partial(self._show, prepared, removed)

    def _place(self, key: K) -> _Block:
        """The block of an entry, which may be new."""
        block = self._block_of.get(key)
        if block is None:
            block = next(iter(self._with_room), None) or _Block(len(self._nothing))
            self._block_of[key] = block
            block.entries += 1
            self._file(block)
        return block

    def _show(self, prepared: Iterable[tuple[_Block, list[Part]]], removed: Iterable[K]) -> None:
        for block, parts in prepared:
            block.parts = parts
        for key in removed:
            if (left := self._block_of.pop(key, None)) is not None:
                left.entries -= 1
                self._file(left)

    def _file(self, block: _Block) -> None:
        for blocks, member in (
            (self._blocks, block.entries > 0),
            (self._with_room, 0 < block.entries < _BLOCK_SIZE),
        ):
            if member:
                blocks[block] = None
            else:
                blocks.pop(block, None)

    def column(self, column: int) -> list[Part]:
        """All texts of a column."""
        return [part for block in self._blocks if (part := block.parts[column]).size]
