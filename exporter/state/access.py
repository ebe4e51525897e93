"""Access to the state: its backend, the one thread that uses it, and what isn't committed yet.

What is read is what is on the disk, together with what is still to be written. What can't be read
is left out.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import msgspec
import structlog

from exporter.instances.state_records import InstanceRecord, WorkflowRecord
from exporter.metrics.catalogue import Family
from exporter.metrics.series import SeriesData
from exporter.metrics.store import Store
from exporter.state.backend import Backend, Location, NotRestored, Owner, Table
from exporter.state.open_state import opened
from exporter.state.record_codec import DECODE
from exporter.state.uncommitted import Uncommitted

log = structlog.get_logger(__name__)

T = TypeVar("T")

SLICE = 100
"""Records that are read or restored before others may run: they take a few milliseconds."""
READS_AT_ONCE = 8
"""Reads that the state's thread may have to do before a commit or a turn. If it were those of all
workflows that are being restored, a slow database would let leases expire meanwhile."""


class StateAccess:
    """The state, once it is open. A record that can't be read is None: it may have been damaged
    since it was written, and SQLite doesn't notice flipped bits.

    Every method that reads raises `NotRestored` if the state can't be read now.

    Args:
        store: Counts what goes wrong.

    Attributes:
        backend: The open state; to be used by `in_thread` only.
        pending: What isn't on the disk yet.
    """

    def __init__(self, store: Store) -> None:
        self.backend: Backend
        self.pending = Uncommitted()
        self._store = store
        self._reading = asyncio.Semaphore(READS_AT_ONCE)
        # Not one of the event loop's threads: a name server that doesn't respond may block them
        # all.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="state")
        self._broken = False
        self._resets: set[tuple[Family, Sequence[float]]] = set()
        """Histograms whose buckets have changed, with the new ones, that the log has reported."""

    async def open(self, location: Location) -> None:
        """Opens the state, as `open_state` does."""
        self.backend = await self.in_thread(opened, location)
        if self.backend.set_aside is not None:
            self._store.state_write_failed()

    async def in_thread(self, act: Callable[..., T], *arguments: object) -> T:
        """What a function returns that is called in the thread of the state."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, act, *arguments)

    def close(self) -> None:
        self._thread.shutdown(wait=False)
        self.backend.close()

    async def workflows(self, account: str) -> dict[str, WorkflowRecord | None]:
        """The records of an account's workflows, by name."""
        return await self._read("workflows", self.backend.workflows, account)

    async def instances(self, owner: Owner) -> AsyncIterator[Mapping[str, InstanceRecord]]:
        """The records of a workflow's watched instances by id, in slices."""
        pending: dict[str, Any] = self.pending.of("instances", owner)
        watched = [(i, r) for i, r in pending.items() if r is not None and r.removed_at is None]
        for part in _slices(watched):
            yield dict(part)
            await asyncio.sleep(0)
        after = ""
        while True:
            found = await self._read("instances", self.backend.watched, owner, after, SLICE)
            yield {i: r for i, r in found.items() if i not in pending and r is not None}
            if len(found) < SLICE:
                return
            *_, after = found

    async def records(
        self, table: Table, owner: Owner, ids: Collection[str] = ("",)
    ) -> dict[str, Any]:
        """An owner's records in a table that have these ids, by id."""
        pending = self.pending.records
        newest = {i: pending[table, owner, i] for i in ids if (table, owner, i) in pending}
        found = dict[str, Any]()
        for part in _slices(i for i in ids if i not in newest):
            found |= await self._read(table, self.backend.by_ids, table, owner, part)
        return found | {i: record for i, record in newest.items() if record is not None}

    async def series(
        self, owner: Owner
    ) -> tuple[dict[str, SeriesData | None], dict[str, SeriesData | None]]:
        """The records of a workflow's series by id: first as they are on the disk, then the
        newest."""
        on_disk = await self._read("series", self.backend.records, "series", owner)
        return on_disk, {**on_disk, **self.pending.of("series", owner)}

    async def drop_expired(self) -> None:
        """Drops the pending deletions of records that were never written. While nothing can be
        written, they would become ever more.

        Raises:
            Unreachable: some of the records may still be being written.
        """
        expired = defaultdict[tuple[Table, Owner], list[str]](list)
        for (table, owner, id_), record in self.pending.records.items():
            if record is None:
                expired[table, owner].append(id_)
        if expired:
            await self.in_thread(self.backend.ensure_idle)
        for (table, owner), ids in expired.items():
            for part in _slices(ids):
                recorded = await self._read(table, self.backend.by_ids, table, owner, part)
                for key in ((table, owner, i) for i in part if i not in recorded):
                    if self.pending.records.get(key) is None:
                        self.pending.records.pop(key, None)

    async def _read(
        self, table: Table, select: Callable[..., Iterable[tuple[str, bytes]]], *arguments: object
    ) -> dict[str, Any]:
        """The records of the selected rows by id; None: the record can't be read."""
        found = dict[str, Any]()

        def read() -> bool:
            """Whether all of them could be read."""
            try:
                for id_, data in select(*arguments):
                    try:
                        found[id_] = DECODE[table](data)
                    except msgspec.DecodeError:
                        found[id_] = None
            except Exception as error:
                if not self.backend.is_damage(error):
                    raise NotRestored(str(error)) from error
                return False
            return None not in found.values()

        async with self._reading:
            complete = await self.in_thread(read)
        if not complete:
            self._store.state_write_failed()
            if not self._broken:
                log.error(
                    "parts of the state can't be read; counting these from zero",
                    advice="check the disk",
                )
            self._broken = True
        return found

    def log_reset(self, family: Family) -> None:
        """Logs that a histogram begins at zero because its buckets have changed."""
        reset = family, tuple(self._store.series.bounds.get(family, ()))
        if reset not in self._resets:
            self._resets.add(reset)
            log.warning(
                "the histogram's buckets have changed; counting from zero", metric=family.name
            )


def _slices(items: Iterable[T]) -> Iterable[list[T]]:
    """The items, `SLICE` at a time."""
    rest = iter(items)
    while part := list(islice(rest, SLICE)):
        yield part
