"""Keeps what was counted and observed through restarts.

Every second what changed is written in one transaction, and only then shown: what a scrape saw is
on the disk, so no restart takes it back. What is counted and what of each run was observed are
written together, so nothing is counted twice or lost.
"""

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from math import inf
from typing import TypeVar

import msgspec
import structlog
from msgspec.structs import replace

from exporter.clock import Clock
from exporter.log_dedup import OpenProblems
from exporter.metrics import catalogue
from exporter.metrics.catalogue import FAMILIES, WORKFLOW_LABELS, Family
from exporter.metrics.exposition import Exposition
from exporter.metrics.series import Changes, Histogram
from exporter.metrics.store import Store
from exporter.state.sqlite import Batch, Database, Owner, Unusable, is_damage
from exporter.watch.records import Kept, WorkflowRecord
from exporter.watch.sink import WorkflowKey
from exporter.watch.workflow_state import WorkflowState

log = structlog.get_logger(__name__)

T = TypeVar("T")

_EVERY = 1.0
_FORGET_AFTER = 7 * 86400.0
"""Seconds that a workflow's counts are kept while nobody watches it."""
_TIDY_EVERY = 3600.0

_BY_NAME = {family.name: family for family in FAMILIES}
_OF_NOW = frozenset(
    {
        catalogue.BUILD_INFO,
        catalogue.CONFIG_SUCCESSFUL,
        catalogue.CONFIG_SUCCESS_TIME,
        catalogue.STATE_WRITE_ERRORS,
    }
)
"""Families that mean nothing after a restart."""

_Value = float | tuple[tuple[float, ...], list[int], float]
"""Of a histogram: upper bounds, counts, and the sum."""

_Kept = tuple[_Value, float | None]
"""Of a series: its value, and when a counter or histogram began."""
_Place = tuple[Owner, str, str]
"""Of a series in the file: whose it is, its family, and its other labels."""

_INSTANCE = msgspec.msgpack.Decoder(Kept)
_WORKFLOW = msgspec.msgpack.Decoder(WorkflowRecord)
_SERIES = msgspec.msgpack.Decoder(_Kept)
_ENCODE = msgspec.msgpack.Encoder().encode


class _Unsaved:
    """What isn't on the disk yet: the newest of each."""

    def __init__(self) -> None:
        self.shown = Changes()
        self.series: dict[_Place, _Kept] = {}
        self.instances: dict[tuple[Owner, str], Kept | None] = {}
        self.workflows: dict[Owner, WorkflowRecord] = {}

    def update(self, newer: "_Unsaved") -> None:
        self.shown.update(newer.shown)
        self.series.update(newer.series)
        self.instances.update(newer.instances)
        self.workflows.update(newer.workflows)


class StateWriter:
    """Writes to the state file, and restores from it.

    Args:
        database: Open.
        store: Whose changes are kept.
        exposition: Shows them once they are.
        accounts: By label, what the file knows each account as: renamed, it keeps its counts.
    """

    def __init__(
        self,
        database: Database,
        *,
        store: Store,
        exposition: Exposition,
        accounts: Mapping[str, str],
        clock: Clock,
    ) -> None:
        self._database = database
        self._store = store
        self._exposition = exposition
        self._clock = clock
        self._watched: dict[Owner, WorkflowState] = {}
        self._workflows: dict[Owner, WorkflowRecord] = {}
        """As they are on the disk, or will be with the next write."""
        self._unsaved, self._writing = _Unsaved(), _Unsaved()
        # Its own: a name server that doesn't answer may hold all of the event loop's threads.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="state")
        self._saving = asyncio.Lock()
        self._closing = asyncio.Event()
        self._tidied = -inf
        self._troubles = OpenProblems(clock)
        self._broken = False
        self.configure(accounts)
        self.progress = clock.monotonic()
        """When a write last ended, whatever came of it (monotonic clock)."""
        self.first_looks_over: Callable[[], bool] = lambda: True
        self.first_looks_shown = False
        """Whether scrapes see what the first looks at everything brought."""
        if database.set_aside is not None:
            store.state_write_failed()
            log.error(
                "the state file is damaged; counting anew",
                set_aside=str(database.set_aside),
                advice="keep it if its counts matter to you, delete it otherwise",
            )
        exposition.follows = False
        self._restore_series("", "")

    def configure(self, accounts: Mapping[str, str]) -> None:
        """Knows accounts as another configuration does. Those whose names or ids change are to
        be released before."""
        self._accounts = accounts
        self._anew: set[Family] = set()

    def adopt_account(self, account: str) -> None:
        """Restores what is kept of an account as such."""
        self._restore_series(account, "")

    def first_watched(self, workflow: WorkflowKey) -> float:
        """When a workflow was first watched, in Unix time: now, if it never was."""
        return self._workflow(self._owner(*workflow)).since

    def sharded_since(self, workflow: WorkflowKey, shards: int) -> float:
        """Since when so many exporters share a workflow, in Unix time: now, if they were others."""
        owner = self._owner(*workflow)
        kept = self._workflow(owner)
        if kept.shards != shards:
            kept = replace(kept, shards=shards, sharded_since=self._clock.steady())
            self._unsaved.workflows[owner] = self._workflows[owner] = kept
        return kept.sharded_since

    def adopt(self, watched: WorkflowState) -> None:
        """Restores what is kept of a workflow, and keeps it from now on."""
        owner = self._owner(*watched.key)
        watched.recall(self._workflow(owner))
        self._restore_series(*watched.key)
        unsaved = {p: k for p, k in self._not_on_disk().instances.items() if p[0] == owner}
        for (_, instance_id), newest in unsaved.items():
            if newest is not None:
                watched.restore(instance_id, newest)
        for instance_id, data in self._read(self._database.instances(owner)):
            if (owner, instance_id) in unsaved:
                continue
            kept = self._decoded(_INSTANCE, data)
            if kept is not None:
                watched.restore(instance_id, kept)
            elif instance_id in watched.instances:
                # What was counted of it can't be told: nothing of the past is counted again.
                watched.instances[instance_id].since = self._clock.steady()
        self._watched[owner] = watched

    def release(self, watched: WorkflowState) -> None:
        """Keeps a workflow no longer; what is on the disk of it stays there for a while."""
        owner = self._owner(*watched.key)
        self._collect_series()
        self._collect_from(owner, watched)
        # No longer among those whose time on the disk is renewed.
        del self._watched[owner], self._workflows[owner]

    async def run(self) -> None:
        """Saves every second, until it is closed."""
        while not self._closing.is_set():
            await self.save()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_EVERY):
                    await self._closing.wait()

    async def save(self) -> None:
        """Writes what changed, then shows it.

        While it can't be written, gauges and the exporter's own figures are shown all the same;
        what is counted of workflows waits, since a restart would take it back.
        """
        async with self._saving:
            if not self._database.is_there:
                self._failed("it was deleted or replaced; it is written anew")
                await self._renew()
            over = self.first_looks_over()
            self._collect()
            self._writing, self._unsaved = self._unsaved, _Unsaved()
            try:
                await self._in_thread(self._write, self._writing)
            except sqlite3.Error as error:
                self._failed(str(error))
                self._unsaved = self._not_on_disk()
                self._collect_series()
                at_once, self._unsaved.shown = _parted(self._unsaved.shown)
                self._exposition.show(at_once)
                if is_damage(error):
                    await self._renew()
            else:
                self._exposition.show(self._writing.shown)
                if self._troubles.over([]):
                    log.info("the state is written again")
            self._writing = _Unsaved()
            self.first_looks_shown = self.first_looks_shown or over
            self.progress = self._clock.monotonic()

    def _not_on_disk(self) -> _Unsaved:
        """What isn't on the disk, or may not be: it is being written."""
        both = _Unsaved()
        both.update(self._writing)
        both.update(self._unsaved)
        return both

    @contextlib.asynccontextmanager
    async def still(self) -> AsyncIterator[None]:
        """While nothing is being written."""
        async with self._saving:
            yield

    async def close(self) -> None:
        """Saves what is left."""
        self._closing.set()
        await self.save()
        self._thread.shutdown(wait=False)
        self._database.close()

    async def _in_thread(self, act: Callable[..., None], *arguments: object) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, act, *arguments)

    def _owner(self, account: str, workflow: str) -> Owner:
        return self._accounts.get(account, account), workflow

    def _workflow(self, owner: Owner) -> WorkflowRecord:
        if owner not in self._workflows:
            kept = self._not_on_disk().workflows.get(owner)
            if kept is None:
                for data in self._read(self._database.workflow(owner)):
                    kept = self._decoded(_WORKFLOW, data)
            self._workflows[owner] = kept or WorkflowRecord(self._clock.steady())
            self._unsaved.workflows[owner] = self._workflows[owner]
        return self._workflows[owner]

    def _restore_series(self, account: str, workflow: str) -> None:
        owner, shown = self._owner(account, workflow), Changes()
        prefix = tuple(filter(None, (account, workflow)))
        on_disk = {
            (owner, name, labels): self._decoded(_SERIES, data)
            for name, labels, data in self._read(self._database.series(owner))
        }
        unsaved = {p: k for p, k in self._not_on_disk().series.items() if p[0] == owner}
        for place, kept in {**on_disk, **unsaved}.items():
            family, rest = _BY_NAME.get(place[1]), tuple(json.loads(place[2]))
            if family is None or kept is None or len(prefix) + len(rest) != len(family.labels):
                continue  # of another version of the exporter, or broken
            key = family, (*prefix, *rest)
            if not self._store.restore(*key, _value(kept), kept[1]):
                if family not in self._anew:
                    log_reset(family)
                self._anew.add(family)
            elif (before := on_disk.get(place)) and place not in self._writing.series:
                # What is on the disk is shown at once, even if nothing new can be written there.
                shown.values[key] = _value(before)
                if before[1] is not None:
                    shown.created[key] = before[1]
        self._exposition.show(shown)

    def _decoded(self, decoder: msgspec.msgpack.Decoder[T], data: bytes) -> T | None:
        """What is kept, or None where it can't be read: SQLite doesn't see a bit that flipped."""
        try:
            return decoder.decode(data)
        except msgspec.DecodeError:
            self._unreadable()
            return None

    def _read(self, rows: Iterator[T]) -> Iterator[T]:
        """What is in the file, as far as that can be read: it may have been damaged since."""
        try:
            yield from rows
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
            self._unreadable()

    def _unreadable(self) -> None:
        if not self._broken:
            log.error(
                "parts of the state can't be read; they are counted anew from now on",
                advice="look at the disk",
            )
        self._broken = True
        self._store.state_write_failed()

    def _is_on_disk(self, instance: tuple[Owner, str]) -> bool:
        """Whether the file holds anything of an instance, or may."""
        try:
            return self._database.holds(*instance)
        except sqlite3.ProgrammingError:
            return False  # it is closed: there is no file, and an empty one is to come
        except sqlite3.Error:
            return True

    def _collect(self) -> None:
        # All at one moment, so that what is counted and what was observed of runs fit together.
        self._collect_series()
        for owner, watched in self._watched.items():
            self._collect_from(owner, watched)

    def _collect_series(self) -> None:
        changes = self._store.take()
        self._unsaved.shown.update(changes)
        # What is gone is out of sight, not forgotten: the workflow may be watched again.
        self._unsaved.series.update(self._series(changes))

    def _collect_from(self, owner: Owner, watched: WorkflowState) -> None:
        pending, writing = self._unsaved.instances, self._writing.instances
        for instance_id in watched.changed:
            key, newest = (owner, instance_id), watched.kept(instance_id)
            came = newest is None and key in pending and key not in writing
            if came and not self._is_on_disk(key):
                # It came and went unwritten: while nothing can be, these would become ever more.
                del pending[key]
            else:
                pending[key] = newest
        watched.changed.clear()
        kept = replace(
            self._workflow(owner),
            last_pass=watched.last_pass,
            horizon=watched.horizon,
            discovered_since=watched.discovered_since,
        )
        if kept != self._workflows[owner]:
            self._unsaved.workflows[owner] = self._workflows[owner] = kept

    def _write(self, unsaved: _Unsaved) -> None:
        now, tidy = self._clock.wall(), self._clock.monotonic() - self._tidied >= _TIDY_EVERY
        workflows = dict(self._workflows) if tidy else unsaved.workflows
        batch = Batch(
            {owner: _ENCODE(kept) for owner, kept in workflows.items()},
            {
                key: None if kept is None else _ENCODE(kept)
                for key, kept in unsaved.instances.items()
            },
            {place: _ENCODE(kept) for place, kept in unsaved.series.items()},
        )
        if batch:
            self._database.write(batch, now=now)
        if tidy:
            self._database.forget(before=now - _FORGET_AFTER, accounts=self._accounts.values())
            self._tidied = self._clock.monotonic()

    def _series(self, changes: Changes) -> Iterator[tuple[_Place, _Kept]]:
        for (family, labels), value in changes.values.items():
            if family in _OF_NOW or value is None:
                continue
            named = 2 if _is_of_workflow(family) else 1 if family.labels[:1] == ("account",) else 0
            account, workflow = (*labels[:named], "", "")[:2]
            kept: _Value = (
                (value.bounds, value.counts, value.sum)
                if isinstance(value, Histogram)
                else float(value)
            )
            place = self._owner(account, workflow), family.name, json.dumps(labels[named:])
            yield place, (kept, changes.created.get((family, labels)))

    async def _renew(self) -> None:
        """Begins an empty file, and has everything written to it."""
        try:
            await self._in_thread(self._database.renew)
        except Unusable as error:
            self._failed(str(error))
            return
        self._unsaved.workflows.update(self._workflows)
        self._store.series.touch()
        for watched in self._watched.values():
            watched.keep_all()

    def _failed(self, trouble: str) -> None:
        self._store.state_write_failed()
        if self._troubles.news([trouble]):
            log.error(
                "the state can't be written; counts are shown as of the last write",
                error=trouble,
                advice="see to the room, the permissions and the health of state.path's disk",
            )


def _value(kept: _Kept) -> float | Histogram:
    """A copy: what is counted goes on."""
    value, _ = kept
    return value if isinstance(value, float) else Histogram(value[0], value[1].copy(), value[2])


def log_reset(family: Family) -> None:
    """Says that what was counted in former buckets is gone."""
    log.warning("the histogram's buckets have changed; it starts anew", metric=family.name)


def _is_of_workflow(family: Family) -> bool:
    return family.labels[: len(WORKFLOW_LABELS)] == WORKFLOW_LABELS


def _parted(changes: Changes) -> tuple[Changes, Changes]:
    """What may be shown before it is written, and what is counted of workflows."""
    at_once, counts = Changes(instances=changes.instances), Changes()
    for key, value in changes.values.items():
        family, _ = key
        counted = _is_of_workflow(family) and family.kind in ("counter", "histogram")
        part = counts if counted and value is not None else at_once
        part.values[key] = value
        if key in changes.created:
            part.created[key] = changes.created[key]
        if key in changes.exemplars:
            part.exemplars[key] = changes.exemplars[key]
    return at_once, counts
