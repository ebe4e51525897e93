"""A cache of rendered lines: a change renders only what changed, and a scrape joins what is cached.

An *entry* is one instance or series. It has a text for each *column*: a column is a family, or a
family in one format. A few entries of an owner, such as a workflow, share a *block* and stay in it.
Only compressed texts are stored: those of a block and, from a scrape until the next change, a
column as a whole. They are never modified, only replaced, so that a scrape in progress continues
with those of the moment at which it started.
"""

from collections.abc import Callable, Generator, Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import Generic, TypeVar

from msgspec import Struct

from exporter.metrics.gzip_parts import EMPTY, Part, joined, pack, unpack

_BLOCK_SIZE = 64
"""Entries of a block: few, because a changed entry has its whole block compressed again; but not
too few, because short texts compress badly, and a scrape joins the texts of all blocks."""

S = TypeVar("S", bound=Hashable)
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
_Texts = tuple[bytes, Sequence[str]]
"""What only the lines of one entry contain, and the entry's new text for each column."""


def encoded(text: str) -> bytes:
    """A text as scrapes get it."""
    # Half a surrogate pair can't be encoded, and must not make the exposition fail.
    return text.encode("utf-8", "replace")


class _Block(Struct, eq=False):
    """A few entries."""

    columns: list[Part]
    """For each column, their texts."""

    def replaced(self, entries: Iterable[_Texts]) -> list[Part]:
        """The columns once these entries have other texts; those that don't change stay the
        same."""
        columns = list[Part]()
        for column, part in enumerate(self.columns):
            before = unpack([part]) if part.size else b""
            text, new = before, []
            for owner, texts in entries:
                if (first := text.find(owner)) < 0:
                    new.append(texts[column])
                    continue
                start = text.rfind(b"\n", 0, first) + 1
                end = text.find(b"\n", text.rfind(owner, first, len(text) - 1)) + 1
                text = b"".join((text[:start], encoded(texts[column]), text[end:]))
            text += encoded("".join(new))
            columns.append(part if text == before else pack(text))
        return columns


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
        self._blocks: dict[S, list[_Block]] = {}
        self._room: dict[S, dict[_Block, int]] = {}
        """How many more entries blocks have room for; those that are full aren't in it."""
        self._block_of: dict[S, dict[K, _Block]] = {}
        self._columns: dict[int, Part] = {}
        """The columns that have not changed since a scrape."""

    def prepare(
        self, owner: S, changes: Mapping[K, V | None]
    ) -> Generator[None, None, Callable[[], None]]:
        """Renders the changes of an owner, without letting scrapes see them yet. Yields every few
        milliseconds.

        Args:
            changes: Values of entries; None: the entry is removed.

        Returns:
            A function that makes scrapes see the changes. It is to be called before anything else
            of the owner is prepared.
        """
        known = self._block_of.setdefault(owner, {})
        keys_of: dict[_Block, list[K]] = {}
        for key, value in changes.items():
            if value is not None or key in known:
                keys = keys_of.setdefault(known.get(key) or self._placed(owner, key), [])
                if not keys:
                    yield
                keys.append(key)
        prepared = []
        for block, keys in keys_of.items():
            entries = [self._texts(owner, key, changes[key]) for key in keys]
            prepared.append((block, block.replaced(entries)))
            yield
        removed = [key for key, value in changes.items() if value is None]
        return partial(self._show, owner, prepared, removed)

    def _texts(self, owner: S, key: K, value: V | None) -> _Texts:
        texts = self._nothing if value is None else self._render(owner, key, value)
        return encoded(self._contained(owner, key)), texts

    def _placed(self, owner: S, key: K) -> _Block:
        """The block of a new entry."""
        room = self._room.setdefault(owner, {})
        if not room:
            new = _Block([EMPTY] * len(self._nothing))
            self._blocks.setdefault(owner, []).append(new)
            room[new] = _BLOCK_SIZE
        self._block_of[owner][key] = block = next(iter(room))
        room[block] -= 1
        if not room[block]:
            del room[block]
        return block

    def _show(
        self, owner: S, prepared: Iterable[tuple[_Block, list[Part]]], removed: Iterable[K]
    ) -> None:
        for block, columns in prepared:
            for column in [*self._columns]:
                if columns[column] is not block.columns[column]:
                    del self._columns[column]
            block.columns = columns
        known, room = self._block_of[owner], self._room.get(owner, {})
        for key in removed:
            if (former := known.pop(key, None)) is not None:
                room[former] = room.get(former, 0) + 1
        if not known:
            for by_owner in (self._block_of, self._blocks, self._room):
                by_owner.pop(owner, None)

    def column(self, column: int) -> Part:
        """All texts of a column."""
        if column not in self._columns:
            blocks = [block for blocks in self._blocks.values() for block in blocks]
            self._columns[column] = joined([block.columns[column] for block in blocks])
        return self._columns[column]
