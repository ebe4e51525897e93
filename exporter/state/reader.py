"""Opens the state and reads it, as far as it can be read, in a thread of its own: what is on the
disk, and what is still to be written."""

import asyncio
from collections import ChainMap
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import TypeVar

import msgspec
import structlog

from exporter.instances.state_records import InstanceRecord, WorkflowRecord
from exporter.metrics.catalogue import Family
from exporter.metrics.exposition import Rendered
from exporter.metrics.series import SeriesData
from exporter.metrics.store import Store
from exporter.state import record_codec
from exporter.state.backend import Backend, Location, NotRestored, Owner, SeriesPlace, Unusable
from exporter.state.open_state import opened
from exporter.state.sqlite import Database
from exporter.state.uncommitted import Uncommitted

log = structlog.get_logger(__name__)

T = TypeVar("T")
V = TypeVar("V")

SLICE = 100
"""Records, or series, that are restored or shown at a stretch: they take a few milliseconds."""


class StateReader:
    """Reads the state. A record is None where it can't be read: it may have been damaged since it
    was written, and SQLite doesn't see a bit that flipped.

    Each method that reads raises `NotRestored` where the state can't be read now.

    Args:
        store: Counts what goes wrong.

    Attributes:
        pending: What is to be written next.
        writing: What is being written.
    """

    def __init__(self, store: Store) -> None:
        self.backend: Backend
        self.pending, self.writing = Uncommitted(), Uncommitted()
        self._store = store
        # Its own: a name server that doesn't respond may hold all of the event loop's threads.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="state")
        self._broken = False
        self._resets: set[tuple[Family, Sequence[float]]] = set()
        """Histograms whose buckets have changed, with those of today, as the log has reported."""

    async def open(self, location: Location) -> None:
        """Opens the state; in memory, where its file can't be used.

        Raises:
            InUse: another exporter uses the file.
            Unreachable: the database can't be used.
        """
        try:
            self.backend = await self.in_thread(opened, location)
        except Unusable as error:
            self._store.state_write_failed()
            log.error(
                "the state file can't be used; counting from zero, and nothing is persisted",
                path=str(location),
                error=str(error),
                advice="fix it, or name another file with state.path, and restart",
            )
            self.backend = Database(None)
        if self.backend.set_aside is not None:
            self._store.state_write_failed()
            log.error(
                "the state file is damaged; counting from zero",
                set_aside=str(self.backend.set_aside),
                advice="keep it if its counts matter to you, delete it otherwise",
            )

    async def in_thread(self, act: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, act, *arguments)

    def close(self) -> None:
        self._thread.shutdown(wait=False)
        self.backend.close()

    def not_written(self) -> None:
        """What was being written is to be written next, with what came meanwhile."""
        both = Uncommitted()  # after a save that was cancelled, the thread still reads the former
        both.add(self.writing)
        both.add(self.pending)
        self.pending, self.writing = both, Uncommitted()

    async def workflow(self, owner: Owner) -> WorkflowRecord | None:
        """The record of a workflow; None: there is none."""
        rows = await self._read(lambda: self.backend.workflow(owner), record_codec.decode_workflow)
        committed = next((record for _, record in rows if record), None)
        return ChainMap(self.pending.workflows, self.writing.workflows).get(owner, committed)

    async def rendered(self, owner: Owner) -> Rendered | None:
        """The lines of a workflow's instances as of what is recorded of them, if there are any."""
        if owner in self.writing.owners | self.pending.owners:
            return None
        rows = await self._read(lambda: self.backend.rendered(owner), record_codec.decode_rendered)
        return next((rendered for _, rendered in rows), None)

    async def instances(self, owner: Owner) -> AsyncIterator[Sequence[tuple[str, InstanceRecord]]]:
        """The records of a workflow's watched instances by id, in slices, as far as they can be
        read."""
        uncommitted = self.writing.instances | self.pending.instances
        pending = {key[2]: record for key, record in uncommitted.items() if key[:2] == owner}
        for part in _slices(
            (i, record)
            for i, record in pending.items()
            if record is not None and record.removed_at is None
        ):
            yield part
            await asyncio.sleep(0)
        after = ""
        while True:
            some = partial(self.backend.instances, owner, after=after, limit=SLICE)
            rows = await self._read(some, record_codec.decode_instance)
            yield [(i, record) for i, record in rows if i not in pending and record is not None]
            if len(rows) < SLICE:
                return
            after = rows[-1][0]

    async def records(self, owner: Owner, ids: Collection[str]) -> dict[str, InstanceRecord | None]:
        """What is recorded of these instances, watched or not, as far as anything is."""
        uncommitted = ChainMap(self.pending.instances, self.writing.instances)
        newest = {i: uncommitted[*owner, i] for i in ids if (*owner, i) in uncommitted}
        found = dict[str, InstanceRecord | None]()
        for part in _slices(i for i in ids if i not in newest):
            found.update(await self._by_ids(owner, part))
        return found | {i: record for i, record in newest.items() if record is not None}

    async def series(
        self, owner: Owner
    ) -> tuple[dict[SeriesPlace, SeriesData | None], dict[SeriesPlace, SeriesData | None]]:
        """The records of the series of a workflow, of an account as such, or of neither: those on
        the disk, and the newest."""
        rows = await self._read(lambda: self.backend.series(owner), record_codec.decode_series)
        on_disk = {(*owner, *place): series for place, series in rows}
        uncommitted = self.writing.series | self.pending.series
        newest = {place: series for place, series in uncommitted.items() if place[:2] == owner}
        return on_disk, on_disk | newest

    async def drop_expired(self) -> None:
        """Drops what came and expired unwritten: while nothing can be written, these would become
        ever more."""
        expired: dict[Owner, list[str]] = {}
        for key, record in self.pending.instances.items():
            if record is None:
                expired.setdefault(key[:2], []).append(key[2])
        for owner, ids in expired.items():
            for part in _slices(ids):
                recorded = {instance_id for instance_id, _ in await self._by_ids(owner, part)}
                for key in ((*owner, i) for i in part if i not in recorded):
                    if self.pending.instances.get(key) is None:
                        self.pending.instances.pop(key, None)

    async def _by_ids(
        self, owner: Owner, ids: Sequence[str]
    ) -> list[tuple[str, InstanceRecord | None]]:
        return await self._read(
            lambda: self.backend.by_ids(owner, ids), record_codec.decode_instance
        )

    async def _read(
        self, rows: Callable[[], Iterable[tuple[T, bytes]]], decode: Callable[[bytes], V]
    ) -> list[tuple[T, V | None]]:
        found: list[tuple[T, V | None]] = []

        def read() -> bool:
            whole = True
            try:
                for key, data in rows():
                    try:
                        found.append((key, decode(data)))
                    except msgspec.DecodeError:
                        found.append((key, None))
                        whole = False
            except Exception as error:
                if not self.backend.is_damage(error):
                    raise NotRestored(str(error)) from error
                whole = False
            return whole

        if not await self.in_thread(read):
            self._unreadable()
        return found

    def reset(self, family: Family) -> None:
        """A series begins at zero: its histogram's buckets have changed."""
        reset = family, tuple(self._store.series.bounds.get(family, ()))
        if reset not in self._resets:
            self._resets.add(reset)
            log.warning(
                "the histogram's buckets have changed; counting from zero", metric=family.name
            )

    def _unreadable(self) -> None:
        if not self._broken:
            log.error(
                "parts of the state can't be read; counting these from zero",
                advice="check the disk",
            )
        self._broken = True
        self._store.state_write_failed()


def _slices(items: Iterable[T]) -> Iterable[list[T]]:
    """The items, `SLICE` at a time."""
    rest = iter(items)
    while part := list(islice(rest, SLICE)):
        yield part
