"""Persists what was counted and observed through restarts.

Every second what changed is written in one transaction, and only then shown: what a scrape saw is
on the disk, so no restart takes it back. What is counted and what of each run was observed are
written together, so nothing is counted twice or lost. Without a usable file the state is in memory:
it then outlives a reload, and a restart counts from zero.
"""

import asyncio
import contextlib
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from math import inf
from typing import TypeVar

import msgspec
import structlog

from exporter.clock import Clock
from exporter.cloudflare.budget_shares import Allotment, BudgetUse
from exporter.log_dedup import OpenProblems
from exporter.metrics.catalogue import Family
from exporter.metrics.exposition import Exposition
from exporter.metrics.series import Changes
from exporter.metrics.store import Store
from exporter.state.backend import (
    Backend,
    Batch,
    Horizon,
    LeaseLost,
    Location,
    Owner,
    Unreachable,
    Unusable,
)
from exporter.state.leases import Leases
from exporter.state.location import opened
from exporter.state.records import (
    INSTANCE,
    SERIES,
    WORKFLOW,
    Place,
    SeriesRecord,
    data_of,
    encode,
    instance_row,
    series_key,
    series_records,
    without_counts,
)
from exporter.state.sqlite import Database
from exporter.watch.records import InstanceRecord, NotRestored, Record, WorkflowRecord
from exporter.watch.sink import WorkflowKey
from exporter.watch.workflow_state import UNWATCHED_FOR, WorkflowState

log = structlog.get_logger(__name__)

T = TypeVar("T")
V = TypeVar("V")

_EVERY = 1.0
_EXPIRES_AFTER = 7 * 86400.0
"""Seconds until a workflow's counts are deleted that nobody watches."""
_TIDY_EVERY = 3600.0
_SLICE = 100
"""Records, or series, that are restored or shown at a stretch: they take a few milliseconds."""


class _Pending:
    """What isn't committed yet: the newest of each."""

    def __init__(self) -> None:
        self.shown = Changes()
        self.series: dict[Place, SeriesRecord] = {}
        self.instances: dict[tuple[Owner, str], Record | None] = {}
        self.workflows: dict[Owner, WorkflowRecord] = {}

    def update(self, newer: "_Pending") -> None:
        self.shown.update(newer.shown)
        self.series.update(newer.series)
        self.instances.update(newer.instances)
        self.workflows.update(newer.workflows)

    @property
    def owners(self) -> set[Owner]:
        """Whose records these are."""
        series, instances = (place[0] for place in self.series), (o for o, _ in self.instances)
        return {*series, *instances, *self.workflows}

    def discard(self, owners: Collection[Owner]) -> None:
        """Drops the records of these, which are another replica's to write."""
        self.series = {p: s for p, s in self.series.items() if p[0] not in owners}
        self.instances = {p: i for p, i in self.instances.items() if p[0] not in owners}
        self.workflows = {o: w for o, w in self.workflows.items() if o not in owners}


class StateWriter:
    """Writes the state, and restores from it (`exporter.watch.attachment.State`).

    Args:
        store: Whose changes are persisted.
        exposition: Shows them once they are.
        leases: Which workflows are this replica's to write.

    Attributes:
        accounts: By label, the name of each account in the state. May be replaced while nothing of
            the accounts whose names change is attached.
        budgets: What is used of each credential's budget, for the other replicas.
        allotted: Takes what may be used of them.
        lost: Detaches, at once, what other replicas have taken.
        turned: Set after each turn.
    """

    def __init__(
        self, *, store: Store, exposition: Exposition, leases: Leases, clock: Clock
    ) -> None:
        self.accounts: Mapping[str, str] = {}
        self.budgets: Callable[[], Mapping[str, BudgetUse]] = dict
        self.allotted: Callable[[Mapping[str, Allotment]], None] = lambda _: None
        self.lost: Callable[[], None] = lambda: None
        self.turned = asyncio.Event()
        self.leases = leases
        self._backend: Backend
        self._store = store
        self._exposition = exposition
        self._clock = clock
        self._attached: dict[Owner, WorkflowState] = {}
        self._workflows: dict[Owner, WorkflowRecord] = {}
        """As they are on the disk, or will be with the next write."""
        self._pending, self._writing = _Pending(), _Pending()
        self._shown: dict[Owner, int] = {}
        """The workflows whose counts scrapes may see, with the epochs of their leases."""
        self._collected: Collection[Owner] = ()
        """Those that had series when what is written was collected."""
        # Its own: a name server that doesn't respond may hold all of the event loop's threads.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="state")
        self._saving = asyncio.Lock()
        self._turning = asyncio.Lock()
        self._left = False
        self._closing = asyncio.Event()
        # Not at once: what isn't attached yet would be taken for what nobody watches.
        self._tidied = clock.monotonic()
        self._problems = OpenProblems(clock)
        self._resets: set[tuple[Family, Sequence[float]]] = set()
        """Histograms whose buckets have changed, with those of today, as the log has reported."""
        self._broken = False
        self.writes_since: float | None = None
        """When the write under way began (monotonic clock); None: there is none."""
        self.first_polls_over: Callable[[], bool] = lambda: True
        self.first_polls_shown = False
        """Whether scrapes see what the first polls of everything brought."""
        exposition.counts_shown = lambda: clock.monotonic() < leases.proven_until

    async def open(self, location: Location) -> None:
        """Opens the state, and restores what belongs to no account.

        Raises:
            InUse: another exporter uses the file.
            Unreachable: the database can't be used.
        """
        try:
            self._backend = await self._in_thread(opened, location)
        except Unusable as error:
            self._store.state_write_failed()
            log.error(
                "the state file can't be used; counting from zero, and nothing is persisted",
                path=str(location),
                error=str(error),
                advice="fix it, or name another file with state.path, and restart",
            )
            self._backend = Database(None)
        if self._backend.set_aside is not None:
            self._store.state_write_failed()
            log.error(
                "the state file is damaged; counting from zero",
                set_aside=str(self._backend.set_aside),
                advice="keep it if its counts matter to you, delete it otherwise",
            )
        await self._turn()
        await self.restore_series()

    @property
    def shared(self) -> bool:
        """Whether several replicas use the state."""
        return self._backend.shared

    async def restore(self, workflow: WorkflowKey) -> WorkflowRecord:
        """Restores the series of a workflow; its record, a new one on first sight."""
        owner = self._owner(*workflow)
        await self.restore_series(*workflow)
        rows = await self._read(lambda: self._backend.workflow(owner), WORKFLOW)
        record = next((r for _, r in rows if r), None)
        for uncommitted in (self._writing, self._pending):
            record = uncommitted.workflows.get(owner, record)
        if record is None:
            return WorkflowRecord(self._clock.steady())
        self._workflows[owner] = record
        return record

    async def instances(
        self, workflow: WorkflowKey
    ) -> AsyncIterator[Sequence[tuple[str, Record | None]]]:
        """The records of a workflow's watched instances by id, in slices; None: it can't be read.

        Raises:
            NotRestored: the state can't be read now.
        """
        owner, after = self._owner(*workflow), ""
        pending = {
            instance_id: record
            for uncommitted in (self._writing, self._pending)
            for (other, instance_id), record in uncommitted.instances.items()
            if other == owner
        }
        for part in _slices(
            (i, record)
            for i, record in pending.items()
            if isinstance(record, InstanceRecord) and record.removed_at is None
        ):
            yield part
            await asyncio.sleep(0)
        while True:
            rows = await self._read(
                lambda after=after: self._backend.instances(owner, after=after, limit=_SLICE),  # type: ignore[misc]
                INSTANCE,
            )
            yield [(i, record) for i, record in rows if i not in pending]
            if len(rows) < _SLICE:
                return
            after = rows[-1][0]

    async def records(
        self, workflow: WorkflowKey, ids: Collection[str]
    ) -> Mapping[str, Record | None]:
        """What is recorded of these instances, watched or not, as far as anything is; None: it
        can't be read.

        Raises:
            NotRestored: the state can't be read now.
        """
        owner = self._owner(*workflow)
        if owner in self._attached:
            self._collect_from(owner, self._attached[owner])
        pending, writing = self._pending.instances, self._writing.instances
        newest = {
            i: (pending if (owner, i) in pending else writing)[owner, i]
            for i in ids
            if (owner, i) in pending or (owner, i) in writing
        }
        found = dict[str, Record | None]()
        for part in _slices(i for i in ids if i not in newest):
            found.update(await self._by_ids(owner, part))
        return found | {i: record for i, record in newest.items() if record is not None}

    def attach(self, watched: WorkflowState) -> None:
        """Persists a workflow from now on."""
        self._attached[self._owner(*watched.key)] = watched

    def detach(self, watched: WorkflowState) -> None:
        """Takes what is pending of a workflow, and persists nothing more; what the state holds of
        it stays there for a while."""
        owner = self._owner(*watched.key)
        self._collect_series()
        self._collect_from(owner, watched)
        # No longer among those whose time on the disk is renewed.
        del self._attached[owner], self._workflows[owner]

    async def run(self) -> None:
        """Saves every second, until it is closed."""
        while not self._closing.is_set():
            await self.save()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_EVERY):
                    await self._closing.wait()

    async def save(self) -> None:
        """Commits what changed, then shows it.

        While that fails, gauges and the exporter's own metrics are shown all the same; what is
        counted of workflows waits, since a restart would take it back.
        """
        async with self._saving:
            if not self._backend.is_there:
                self._failed("it was deleted or replaced; writing all of it again")
                await self._renew()
            over = self.first_polls_over()
            self.writes_since = self._clock.monotonic()
            try:
                await self._commit()
            except Exception as error:  # also of a record that can't be encoded
                self._failed(str(error))
                self._pending = self._uncommitted()
                self._collect_series()
                self._collected = self._in_store()
                at_once, self._pending.shown = without_counts(self._pending.shown)
                await self._show(at_once)
                self._hide()
                with contextlib.suppress(NotRestored):
                    await self._drop_expired()
                if self._backend.is_damage(error):
                    await self._renew()
            else:
                if self._problems.over([]):
                    log.info("state write succeeded again")
            self._writing = _Pending()
            self.first_polls_shown = self.first_polls_shown or over
            self.writes_since = None

    async def _commit(self) -> None:
        """Commits what changed and shows it, then takes a turn among the replicas.

        Raises:
            Exception: it can't be committed.
        """
        while True:
            self._collect()
            self._writing, self._pending = self._pending, _Pending()
            try:
                await self._in_thread(self._write, self._writing)
                break
            except LeaseLost as error:
                self._pending = self._uncommitted()
                self._lose(error.owners)
        await self._show(self._writing.shown)
        self._hide()
        self._writing = _Pending()
        await self._turn()

    async def turn(self) -> None:
        """Takes a turn among the replicas; later, where the database can't be used now."""
        with contextlib.suppress(Unreachable):
            await self._turn()

    async def leave(self) -> None:
        """Saves what is pending, then gives up all that this replica holds, for good."""
        await self.save()
        with contextlib.suppress(Unreachable):
            await self._turn(leaving=True)

    async def _turn(self, *, leaving: bool = False) -> None:
        """Renews leases, takes some, gives up some.

        Raises:
            Unreachable: the database can't be used.
        """
        async with self._turning:
            if self._left:
                return
            self._left = leaving
            attached = {*self._shown, *self._uncommitted().owners}
            turn = self.leases.turn(attached, self.budgets(), leaving=leaving)
            began = self._clock.monotonic()
            seen = await self._in_thread(self._backend.take_turn, turn)
            lost = self.leases.took(turn, seen, began=began, shown=self._shown)
            self.allotted(seen.budgets)
        self._lose(lost)
        self.turned.set()

    def _lose(self, owners: Collection[Owner]) -> None:
        """Detaches what other replicas hold now: what is pending of it is theirs to find out."""
        if not owners:
            return
        log.warning(
            "leases lost; other replicas have taken over",
            workflows=len(owners),
            advice="this replica was stopped, or cut off from the database, for longer than "
            "replica.lease",
        )
        self.leases.lose(owners)
        self._store.leases_lost(len(owners))
        self.lost()
        self._collect_series()
        for uncommitted in (self._writing, self._pending):
            uncommitted.discard(owners)

    async def _drop_expired(self) -> None:
        """Drops what came and expired unwritten: while nothing can be written, these would become
        ever more."""
        expired: dict[Owner, list[str]] = {}
        for (owner, instance_id), record in self._pending.instances.items():
            workflow = self._workflows.get(owner)
            horizon = None if workflow is None else workflow.horizon
            if record is None or (isinstance(record, float) and record < (horizon or -inf)):
                expired.setdefault(owner, []).append(instance_id)
        for owner, ids in expired.items():
            for part in _slices(ids):
                recorded = {instance_id for instance_id, _ in await self._by_ids(owner, part)}
                for key in ((owner, i) for i in part if i not in recorded):
                    if not isinstance(self._pending.instances.get(key), InstanceRecord):
                        self._pending.instances.pop(key, None)

    async def _show(self, changes: Changes) -> None:
        """Shows what changed: a slice as a whole, so that no scrape waits for long."""
        for part in changes.slices(_SLICE):
            self._exposition.show(part)
            await asyncio.sleep(0)

    def _hide(self) -> None:
        """Scrapes no longer see the workflows whose removal has been shown."""
        still = {*self._collected, *self._in_store()}
        self._shown = {owner: epoch for owner, epoch in self._shown.items() if owner in still}

    def _in_store(self) -> set[Owner]:
        return {self._owner(*workflow) for workflow in self._store.workflows}

    def _uncommitted(self) -> _Pending:
        """What isn't on the disk, or may not be: it is being written."""
        both = _Pending()
        both.update(self._writing)
        both.update(self._pending)
        return both

    @contextlib.asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """While nothing is committed, and scrapes see what they saw before."""
        async with self._saving:
            yield

    async def close(self) -> None:
        """Saves what is pending, and leaves the replicas."""
        self._closing.set()
        await self.leave()
        self._thread.shutdown(wait=False)
        self._backend.close()

    async def _in_thread(self, act: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, act, *arguments)

    def want(self, account: str, workflows: Collection[str]) -> None:
        """Has the workflows of an account watched by this replica, or by another."""
        self.leases.wanted[account] = {self._owner(account, name) for name in workflows}

    def holder(self, workflow: WorkflowKey) -> tuple[str, str] | None:
        """The name of the live replica that holds a workflow, and its page's address, as of the
        last turn; None: there is none."""
        lease = self.leases.seen.leases.get(self._owner(*workflow))
        return lease and (lease.replica.name, lease.replica.url)

    def may_attach(self, workflow: WorkflowKey) -> bool:
        """Whether this replica holds the workflow's lease, and keeps it."""
        return self._owner(*workflow) in self.leases.attachable

    def _owner(self, account: str, workflow: str) -> Owner:
        return self.accounts.get(account, account), workflow

    async def restore_series(self, account: str = "", workflow: str = "") -> None:
        """Restores the series of a workflow, of an account as such, or those of neither."""
        owner = self._owner(account, workflow)
        on_disk = {
            (owner, *place): series
            for place, series in await self._read(lambda: self._backend.series(owner), SERIES)
        }
        # Together, lest a zero that they begin at is written over what was counted.
        if workflow:
            self._shown[owner] = self.leases.held.get(owner, 0)
            self._store.found(WorkflowKey(account, workflow))
        elif account:
            self._store.account_found(account)
        pending = {
            place: series
            for uncommitted in (self._writing, self._pending)
            for place, series in uncommitted.series.items()
            if place[0] == owner
        }
        shown = Changes()
        for place, series in {**on_disk, **pending}.items():
            key = series_key(place, account, workflow)
            if series is None or key is None:
                continue  # broken, or of another version of the exporter
            if not self._store.restore(*key, data_of(series)):
                self._report_reset(key[0])
            elif (before := on_disk.get(place)) and place not in self._writing.series:
                # What is on the disk is shown at once, even if nothing new can be written there.
                shown.series[key] = data_of(before)
        await self._show(shown)

    def _report_reset(self, family: Family) -> None:
        reset = family, tuple(self._store.series.bounds.get(family, ()))
        if reset not in self._resets:
            self._resets.add(reset)
            log.warning(
                "the histogram's buckets have changed; counting from zero", metric=family.name
            )

    async def _by_ids(self, owner: Owner, ids: Sequence[str]) -> list[tuple[str, Record | None]]:
        return await self._read(lambda: self._backend.by_ids(owner, ids), INSTANCE)

    async def _read(
        self, rows: Callable[[], Iterable[tuple[T, bytes]]], decoder: msgspec.msgpack.Decoder[V]
    ) -> list[tuple[T, V | None]]:
        """What is in the file, as far as that can be read: it may have been damaged since. None:
        SQLite doesn't see a bit that flipped."""
        found: list[tuple[T, V | None]] = []

        def read() -> bool:
            whole = True
            try:
                for key, data in rows():
                    try:
                        found.append((key, decoder.decode(data)))
                    except msgspec.DecodeError:
                        found.append((key, None))
                        whole = False
            except Exception as error:
                if not self._backend.is_damage(error):
                    raise NotRestored(str(error)) from error
                whole = False
            return whole

        if not await self._in_thread(read):
            self._unreadable()
        return found

    def _unreadable(self) -> None:
        if not self._broken:
            log.error(
                "parts of the state can't be read; counting these from zero",
                advice="check the disk",
            )
        self._broken = True
        self._store.state_write_failed()

    def _collect(self) -> None:
        self._collect_series()  # with the instances, so that counts and observed runs fit together
        for owner, watched in self._attached.items():
            self._collect_from(owner, watched)
        self._collected = self._in_store()

    def _collect_series(self) -> None:
        changes = self._store.take()
        self._pending.shown.update(changes)
        # What is no longer shown stays in the state: the workflow may be attached again.
        self._pending.series.update(series_records(changes, self.accounts))

    def _collect_from(self, owner: Owner, watched: WorkflowState) -> None:
        for instance_id, record in watched.take_changes().items():
            self._pending.instances[owner, instance_id] = record
        if (workflow := watched.record) != self._workflows.get(owner):
            self._pending.workflows[owner] = self._workflows[owner] = workflow

    def _write(self, pending: _Pending) -> None:
        now, tidy = self._clock.wall(), self._clock.monotonic() - self._tidied >= _TIDY_EVERY
        workflows = dict(self._workflows) if tidy else pending.workflows
        batch = Batch(
            {owner: encode(record) for owner, record in workflows.items()},
            {key: instance_row(record) for key, record in pending.instances.items()},
            {place: encode(series) for place, series in pending.series.items()},
            self.leases.held,
            {owner: self._horizon(record) for owner, record in workflows.items()} if tidy else {},
        )
        if batch:
            self._backend.write(batch, now=now)
        if tidy:
            self._backend.expire(after=_EXPIRES_AFTER, now=now, accounts=self.accounts.values())
            self._tidied = self._clock.monotonic()

    def _horizon(self, workflow: WorkflowRecord) -> Horizon:
        ended = -inf if workflow.horizon is None else workflow.horizon
        return Horizon(min(ended, self._clock.steady() - UNWATCHED_FOR), ended)

    async def _renew(self) -> None:
        """Begins an empty file, and has everything written to it."""
        try:
            await self._in_thread(self._backend.renew)
        except Unusable as error:
            self._failed(str(error))
            return
        self._pending.workflows.update(self._workflows)
        self._store.series.touch()
        for watched in self._attached.values():
            watched.record_all()

    def _failed(self, problem: str) -> None:
        self._store.state_write_failed()
        if self._problems.news([problem]):
            log.error(
                "state write failed; counters frozen at last committed values",
                error=problem,
                advice="try the database with --check-api; it is written again once that succeeds"
                if self.shared
                else "check the space, the permissions and the health of state.path's disk",
            )


def _slices(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while part := list(islice(rest, _SLICE)):
        yield part
