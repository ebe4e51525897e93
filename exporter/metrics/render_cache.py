"""A cache of rendered lines: a change renders only what changed, a scrape joins what is cached.

An entry is one instance or series: a text for each column, where a column is a family, or a family
in one format. A few entries of an owner, such as a workflow, share a block and stay in it. Only the
compressed texts of a block are stored, those of a group of blocks in one piece, and of a column as
a whole from a scrape until it changes. They are never modified but replaced, so that a scrape in
progress continues with those of the moment it started.
"""

from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

from exporter.metrics.gzip_parts import Part, Pieces, joined, pack

# Small, because one changed entry makes its whole block be compressed again; but short texts
# compress badly.
_BLOCK_SIZE = 32
# Blocks. Each changed text has the checksum of its group combined again.
_GROUP_SIZE = 16
# Entries that are removed at a stretch.
_REMOVED = 1000

S = TypeVar("S", bound=Hashable)
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
_Texts = tuple[bytes, Sequence[bytes]]
"""What the lines of an entry alone contain, and its new text for each column."""
Group = tuple[list[list[K]], list[Pieces]]
"""The keys of each block, and the texts by column."""


class _Group:
    __slots__ = ("blocks", "columns")

    def __init__(self, columns: list[Pieces]) -> None:
        self.columns = columns
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


class RenderCache(Generic[S, K, V]):
    """Entries by owner and key.

    Args:
        columns: Number of texts of an entry.
        contained: Returns what each line of an entry contains, and no other line of its columns.
        render: Returns an entry's texts: whole lines that contain that, or nothing.
    """

    def __init__(
        self,
        columns: int,
        contained: Callable[[S, K], bytes],
        render: Callable[[S, K, V], Sequence[bytes]],
    ) -> None:
        self._contained, self._render = contained, render
        self._nothing = [b""] * columns
        # Dictionaries serve as ordered sets.
        self._groups: dict[S, dict[_Group, None]] = {}
        self._with_room: dict[S, dict[_Block, None]] = {}
        self._block_of: dict[S, dict[K, _Block]] = {}
        self._columns: dict[tuple[int, Part], Part] = {}
        """Those that have not changed since a scrape, by what is before them."""

    def prepare(
        self, owner: S, changes: Mapping[K, V | None]
    ) -> Generator[None, None, Iterator[None]]:
        """Renders what changed of an owner, without letting scrapes see it; yields every few
        milliseconds.

        Args:
            changes: Values of entries; None: the entry is removed.

        Returns:
            Makes scrapes see the changes at its first step; it must end before others are
            prepared.
        """
        known = self._block_of.setdefault(owner, {})
        keys_of: dict[_Group, dict[_Block, list[K]]] = {}
        for key, value in changes.items():
            if value is not None or key in known:
                block = known.get(key) or self._placed(owner, key)
                keys = keys_of.setdefault(block.group, {}).setdefault(block, [])
                if not keys:
                    yield
                keys.append(key)
        prepared = []
        for group, blocks in keys_of.items():
            changed: list[dict[int, Part]] = [{} for _ in group.columns]
            for block, keys in blocks.items():
                entries = [self._texts(owner, key, changes[key]) for key in keys]
                for column, part in block.replaced(entries):
                    changed[column][block.number] = part
                yield
            pieces = [p.replaced(parts) for p, parts in zip(group.columns, changed, strict=True)]
            prepared.append((group, pieces))
        removed = [key for key, value in changes.items() if value is None]
        return self._show(owner, prepared, removed)

    def _texts(self, owner: S, key: K, value: V | None) -> _Texts:
        texts = self._nothing if value is None else self._render(owner, key, value)
        return self._contained(owner, key), texts

    def _placed(self, owner: S, key: K) -> _Block:
        """The block of a new entry."""
        if not self._with_room.get(owner):
            self._add(owner, _Group([Pieces.empty(_GROUP_SIZE)] * len(self._nothing)))
        block = self._block_of[owner][key] = next(iter(self._with_room[owner]))
        block.entries += 1
        if block.entries == _BLOCK_SIZE:
            del self._with_room[owner][block]
        return block

    def _add(self, owner: S, group: _Group) -> None:
        self._groups.setdefault(owner, {})[group] = None
        room = (block for block in group.blocks if block.entries < _BLOCK_SIZE)
        self._with_room.setdefault(owner, {}).update(dict.fromkeys(room))

    def _show(
        self, owner: S, prepared: Iterable[tuple[_Group, list[Pieces]]], removed: Iterable[K]
    ) -> Iterator[None]:
        for group, pieces in prepared:
            changed = [
                head for head in self._columns if pieces[head[0]] is not group.columns[head[0]]
            ]
            for head in changed:
                del self._columns[head]
            group.columns = pieces
        yield
        known = self._block_of[owner]
        for n, key in enumerate(removed):
            if not n % _REMOVED:
                yield
            if (block := known.pop(key, None)) is not None:
                block.entries -= 1
                self._with_room[owner][block] = None
                if not (block.entries or any(other.entries for other in block.group.blocks)):
                    del self._groups[owner][block.group]
                    for other in block.group.blocks:
                        del self._with_room[owner][other]
        if not known:
            for by_owner in (self._block_of, self._groups, self._with_room):
                by_owner.pop(owner, None)

    def column(self, column: int, head: Part) -> Part:
        """All texts of a column, after a head."""
        key = column, head
        if key not in self._columns:
            groups = [group for groups in self._groups.values() for group in groups]
            parts = [group.columns[column].whole for group in groups]
            self._columns[key] = joined([head, *parts])
        return self._columns[key]

    def groups(self, owner: S) -> list[Group[K]]:
        """All that there is of an owner."""
        keys: dict[_Block, list[K]] = {}
        for key, block in self._block_of.get(owner, {}).items():
            keys.setdefault(block, []).append(key)
        return [
            ([keys.get(block, []) for block in group.blocks], group.columns)
            for group in self._groups.get(owner, ())
        ]

    def restore(self, owner: S, groups: Iterable[Group[K]]) -> None:
        """Shows an owner's groups, of which there is nothing yet."""
        self._columns.clear()
        known = self._block_of.setdefault(owner, {})
        for keys, columns in groups:
            group = _Group(columns)
            for block, of_block in zip(group.blocks, keys, strict=True):
                block.entries = len(of_block)
                known.update(dict.fromkeys(of_block, block))
            self._add(owner, group)
