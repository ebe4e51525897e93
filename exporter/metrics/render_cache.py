"""A cache of rendered lines: a change renders only what changed, and a scrape joins what is cached.

An *entry* is one instance or series. It has a text for each *column*: a column is a family, or a
family in one format. A few entries of an owner, such as a workflow, share a *block* and stay in it;
some blocks are a *group*. Only compressed texts are stored: those of a group in one piece and, from
a scrape until the next change, a column as a whole. They are never modified, only replaced, so that
a scrape in progress continues with those of the moment at which it started.
"""

from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Generic, TypeVar

from msgspec import Struct

from exporter.metrics.gzip_parts import Part, Pieces, joined, pack

# Entries of a block: few, because a changed entry has its whole block compressed again; but not too
# few, because short texts compress badly.
_BLOCK_SIZE = 32
# Blocks of a group: few, because a changed text has the checksums of its group combined again.
_GROUP_SIZE = 16

S = TypeVar("S", bound=Hashable)
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
_Texts = tuple[bytes, Sequence[str]]
"""What only the lines of one entry contain, and the entry's new text for each column."""


def encoded(text: str) -> bytes:
    """A text as scrapes get it."""
    # Half a surrogate pair can't be encoded, and must not make the exposition fail.
    return text.encode("utf-8", "replace")


class _Group(Struct, eq=False):
    """Some blocks."""

    sizes: list[int]
    """For each block, the number of its entries."""
    columns: list[Pieces]
    """For each column, the texts of the blocks."""

    def replaced(self, block: int, entries: Iterable[_Texts]) -> Iterator[tuple[int, Part]]:
        """The columns of a block that change when these entries get other texts, each with the new
        text of the block."""
        for column, pieces in enumerate(self.columns):
            before = pieces.text(block)
            text, new = before, []
            for owner, texts in entries:
                if (first := text.find(owner)) < 0:
                    new.append(texts[column])
                    continue
                start = text.rfind(b"\n", 0, first) + 1
                end = text.find(b"\n", text.rfind(owner, first, len(text) - 1)) + 1
                text = b"".join((text[:start], encoded(texts[column]), text[end:]))
            text += encoded("".join(new))
            if text != before:
                yield column, pack(text)


_Block = tuple[_Group, int]
"""A block: its group, and its number there."""


class RenderCache(Generic[S, K, V]):
    """Entries by owner and key.

    Args:
        columns: Number of texts of an entry.
        contained: Returns what every line of an entry contains, and no line of another entry.
        render: Returns the texts of an entry: whole lines that contain that, or nothing.
    """

    def __init__(
        self,
        columns: int,
        contained: Callable[[S, K], str],
        render: Callable[[S, K, V], Sequence[str]],
    ) -> None:
        self._contained, self._render = contained, render
        self._nothing = [""] * columns
        self._groups: dict[S, list[_Group]] = {}
        self._with_room: dict[S, dict[_Block, None]] = {}
        """The blocks with room for more entries; each dictionary serves as an ordered set."""
        self._block_of: dict[S, dict[K, _Block]] = {}
        self._columns: dict[tuple[int, Part], Part] = {}
        """The columns that have not changed since a scrape, by column and the head before them."""

    def prepare(
        self, owner: S, changes: Mapping[K, V | None]
    ) -> Generator[None, None, Callable[[], None]]:
        """Renders the changes of an owner, without letting scrapes see them yet. Yields every few
        milliseconds.

        Args:
            changes: Values of entries; None: the entry is removed.

        Returns:
            A function that makes scrapes see the changes. It is to be called before anything else
            is prepared.
        """
        known = self._block_of.setdefault(owner, {})
        keys_of: dict[_Group, dict[int, list[K]]] = {}
        for key, value in changes.items():
            if value is not None or key in known:
                group, number = known.get(key) or self._placed(owner, key)
                keys = keys_of.setdefault(group, {}).setdefault(number, [])
                if not keys:
                    yield
                keys.append(key)
        prepared = []
        for group, blocks in keys_of.items():
            changed: list[dict[int, Part]] = [{} for _ in group.columns]
            for number, keys in blocks.items():
                entries = [self._texts(owner, key, changes[key]) for key in keys]
                for column, part in group.replaced(number, entries):
                    changed[column][number] = part
                yield
            pieces = [p.replaced(parts) for p, parts in zip(group.columns, changed, strict=True)]
            prepared.append((group, pieces))
        removed = [key for key, value in changes.items() if value is None]
        return partial(self._show, owner, prepared, removed)

    def _texts(self, owner: S, key: K, value: V | None) -> _Texts:
        texts = self._nothing if value is None else self._render(owner, key, value)
        return encoded(self._contained(owner, key)), texts

    def _placed(self, owner: S, key: K) -> _Block:
        """The block of a new entry."""
        with_room = self._with_room.setdefault(owner, {})
        if not with_room:
            empty = [Pieces.empty(_GROUP_SIZE)] * len(self._nothing)
            new = _Group([0] * _GROUP_SIZE, empty)
            self._groups.setdefault(owner, []).append(new)
            with_room.update(dict.fromkeys((new, number) for number in range(_GROUP_SIZE)))
        block = group, number = next(iter(with_room))
        self._block_of[owner][key] = block
        group.sizes[number] += 1
        if group.sizes[number] == _BLOCK_SIZE:
            del with_room[block]
        return block

    def _show(
        self, owner: S, prepared: Iterable[tuple[_Group, list[Pieces]]], removed: Iterable[K]
    ) -> None:
        for group, pieces in prepared:
            changed = [
                head for head in self._columns if pieces[head[0]] is not group.columns[head[0]]
            ]
            for head in changed:
                del self._columns[head]
            group.columns = pieces
        known = self._block_of[owner]
        for key in removed:
            if (block := known.pop(key, None)) is not None:
                group, number = block
                group.sizes[number] -= 1
                self._with_room[owner][block] = None
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
