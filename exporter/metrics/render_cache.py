"""A cache of rendered lines: a change renders only what changed, a scrape joins what is cached.

An entry is one instance or series: a text for each column, where a column is a family, or a family
in one format. A few entries share a block and stay in it. Only the compressed texts of a block are
stored, those of a group of blocks in one piece, and of a column as a whole from a scrape until it
changes. They are never modified but replaced, so that a scrape in progress continues with those of
the moment it started.
"""

from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Generic, TypeVar

from exporter.metrics.gzip_parts import Part, Pieces, joined, pack

# Small, because one changed entry makes its whole block be compressed again; but short texts
# compress badly.
_BLOCK_SIZE = 32
# Blocks. Each changed text has the checksum of its group combined again.
_GROUP_SIZE = 16

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
_Texts = tuple[bytes, Sequence[bytes]]
"""What the lines of an entry alone contain, and its new text for each column."""


class _Group:
    __slots__ = ("blocks", "columns")

    def __init__(self, columns: int) -> None:
        self.columns = [Pieces.empty(_GROUP_SIZE)] * columns
        self.blocks = [_Block(self, number) for number in range(_GROUP_SIZE)]


class _Block:
    __slots__ = ("entries", "group", "number")

    def __init__(self, group: _Group, number: int) -> None:
        self.group, self.number, self.entries = group, number, 0

    def replaced(self, entries: Iterable[_Texts]) -> Iterator[tuple[int, Part]]:
        """The columns that change with other texts of these entries, with what they become."""
        for column, pieces in enumerate(self.group.columns):
            before = pieces.text(self.number)
            text, new = before, []
            for owner, texts in entries:
                if (first := text.find(owner)) < 0:
                    new.append(texts[column])
                    continue
                start = text.rfind(b"\n", 0, first) + 1
                end = text.find(b"\n", text.rfind(owner, first, len(text) - 1)) + 1
                text = b"".join((text[:start], texts[column], text[end:]))
            text = b"".join((text, *new))
            if text != before:
                yield column, pack(text)


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
        self._groups: dict[_Group, None] = {}
        self._with_room: dict[_Block, None] = {}
        self._block_of: dict[K, _Block] = {}
        self._columns: dict[tuple[int, Part], Part] = {}
        """Those that have not changed since a scrape, by what is before them."""

    def prepare(self, changes: Mapping[K, V | None]) -> Generator[None, None, Callable[[], None]]:
        """Renders what changed, without letting scrapes see it; yields after each block.

        Args:
            changes: Values of entries; None: the entry is removed.

        Returns:
            Makes scrapes see the changes. Must be called before others are prepared.
        """
        keys_of: dict[_Group, dict[_Block, list[K]]] = {}
        for key, value in changes.items():
            if value is not None or key in self._block_of:
                block = self._place(key)
                keys_of.setdefault(block.group, {}).setdefault(block, []).append(key)
        prepared = []
        for group, blocks in keys_of.items():
            changed: list[dict[int, Part]] = [{} for _ in group.columns]
            for block, keys in blocks.items():
                for column, part in block.replaced([self._texts(k, changes[k]) for k in keys]):
                    changed[column][block.number] = part
                yield
            pieces = [p.replaced(parts) for p, parts in zip(group.columns, changed, strict=True)]
            prepared.append((group, pieces))
        removed = [key for key, value in changes.items() if value is None]
        return partial(self._show, prepared, removed)

    def _texts(self, key: K, value: V | None) -> _Texts:
        return self._owner(key), self._nothing if value is None else self._render(key, value)

    def _place(self, key: K) -> _Block:
        """The block of an entry, which may be new."""
        block = self._block_of.get(key)
        if block is None:
            if not self._with_room:
                group = _Group(len(self._nothing))
                self._groups[group] = None
                self._with_room.update(dict.fromkeys(group.blocks))
            block = self._block_of[key] = next(iter(self._with_room))
            block.entries += 1
            if block.entries == _BLOCK_SIZE:
                del self._with_room[block]
        return block

    def _show(self, prepared: Iterable[tuple[_Group, list[Pieces]]], removed: Iterable[K]) -> None:
        for group, pieces in prepared:
            for head in [
                head for head in self._columns if pieces[head[0]] is not group.columns[head[0]]
            ]:
                del self._columns[head]
            group.columns = pieces
        for key in removed:
            if (block := self._block_of.pop(key, None)) is not None:
                block.entries -= 1
                self._with_room[block] = None
                if not any(other.entries for other in block.group.blocks):
                    del self._groups[block.group]
                    for other in block.group.blocks:
                        del self._with_room[other]

    def column(self, column: int, head: Part) -> Part:
        """All texts of a column, after a head."""
        key = column, head
        if key not in self._columns:
            parts = [group.columns[column].whole for group in self._groups]
            self._columns[key] = joined([head, *parts])
        return self._columns[key]
