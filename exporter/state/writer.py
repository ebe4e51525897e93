"""Commits what changed to the state, and then has scrapes show it.

Every second, one transaction writes everything that changed. Only then is it shown: what a scrape
has seen is on the disk, so that no restart takes it back. Counts and what was observed of each run
are written together, so that nothing is counted twice or lost. If the state's file can't be used,
the state is in memory: then it outlives a reload, but a restart counts from zero.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Mapping
from functools import partial

import structlog

from exporter.clock import Clock, wait_at_most
from exporter.instances.state_records import InstanceRecord, WorkflowRecord
from exporter.log_dedup import OpenProblems, Throttle
from exporter.metrics.catalogue import WorkflowKey
from exporter.metrics.exposition import Exposition
from exporter.metrics.series import Changes
from exporter.metrics.store import Store
from exporter.state.access import StateAccess
from exporter.state.backend import LeaseLost, Location, NotRestored, Owner, Unreachable, Unusable
from exporter.state.leases import Leases
from exporter.state.record_codec import Records, batch_of, series_key
from exporter.state.watching import Watched, Watching

log = structlog.get_logger(__name__)

_EVERY = 1.0
"""Seconds between two writes."""
_EXPIRES_AFTER = 7 * 86400.0
"""Seconds until the counts of a workflow that nobody watches are deleted."""
_TIDY_EVERY = 3600.0
"""Seconds between two deletions of what has expired."""


class StateWriter:
    """Writes the state, and restores from it.

    Args:
        store: Its changes are committed.
        exposition: Shows them after that.
        leases: Which workflows this replica holds, and so may write.

    Attributes:
        watching: What is watched; to be set before the state is opened.
        turned: Set after each turn.
        saving: A lock that is held while something is committed and shown. Whoever else holds it
            prevents that.
        first_polls_shown: Whether scrapes see the results of the first polls of everything.
        problem: Why the state is not written; empty: it is.
        writes_since: When the write under way began (monotonic clock); None: none is under way.
    """

    def __init__(
        self, *, store: Store, exposition: Exposition, leases: Leases, clock: Clock
    ) -> None:
        self.watching: Watching
        self.turned = asyncio.Event()
        self.leases = leases
        self._access = StateAccess(store)
        self._pending = self._access.pending
        self._store = store
        self._exposition = exposition
        self._clock = clock
        self._owners: dict[WorkflowKey, Owner] = {}
        """The owner of each workflow that has series, or whose counts scrapes may still see."""
        self._shown: dict[Owner, int] = {}
        """Owners whose counts scrapes may see, each with the epoch of its lease: of a workflow for
        a moment two, when the label of its account is given to another account."""
        self.saving = asyncio.Lock()
        self._turning = asyncio.Lock()
        """Held during a turn: what the next one asks for depends on what this one has shown."""
        self._showing = asyncio.Lock()
        """Held while changes are shown, as the exposition takes one set of them after another."""
        self._leaving = self._left = False
        """Whether this replica is to take no turn but its last, and whether it has taken that."""
        self._closing = asyncio.Event()
        # Not at the start: what isn't attached yet would be taken for what nobody watches.
        self._tidied = clock.monotonic()
        self._problems = OpenProblems(Throttle(clock))
        self.problem = ""
        self.writes_since: float | None = None
        self.first_polls_shown = False

    async def open(self, location: Location) -> None:
        """Opens the state.

        Raises:
            InUse: another exporter uses the file.
            Unreachable: the database can't be used.
        """
        await self._access.open(location)
        await self._turn()

    async def workflows(self, account: str) -> set[str]:
        """The workflows of an account that were watched in the last days, and exist as far as is
        known.

        Raises:
            NotRestored: the state can't be read now.
        """
        records = await self._access.workflows(account)
        return {name for name, record in records.items() if record and not record.deleted}

    async def restore(self, workflow: WorkflowKey, owner: Owner) -> WorkflowRecord:
        """Restores the series of a workflow. Returns its record; a new one on first sight.

        From here on, unless this raises, the caller has to detach the workflow's series.

        Raises:
            NotRestored: the state can't be read now, or the workflow moves to another replica.
        """
        epoch = self.leases.held.get(owner, 0)
        found: dict[str, WorkflowRecord | None] = await self._access.records("workflows", owner)
        on_disk, newest = await self._access.series(owner)
        self._ensure_held(owner, epoch)
        # From here on nothing may raise. To the end of the loop nothing is awaited: a write in
        # between would replace the counts by the zeros that they begin at.
        self._owners[workflow], self._shown[owner] = owner, epoch
        self._store.attached(workflow)
        shown = Changes()
        for id_, series in newest.items():
            key = series_key(id_, workflow)
            if series is None or key is None:
                continue  # broken, or of another version of the exporter
            # A copy, since counting continues while the original is shown.
            if not self._store.restore(*key, series.copy()):
                self._access.log_reset(key[0])
            elif before := on_disk.get(id_):
                # What is committed is shown at once, even if nothing can be written now.
                shown.series[key] = before
        await self._show(shown)
        return found.get("") or WorkflowRecord(self._clock.now().steady)

    async def instances(self, owner: Owner) -> AsyncIterator[Mapping[str, InstanceRecord]]:
        """The records of a restored workflow's watched instances by id, in slices. Those that can't
        be read are left out.

        Raises:
            NotRestored: the state can't be read now, or the workflow moves to another replica.
        """
        async for part in self._access.instances(owner):
            self._ensure_held(owner, self._shown[owner])
            yield part

    def _ensure_held(self, owner: Owner, epoch: int) -> None:
        """Makes sure that this replica has held a workflow since this epoch, and still may attach
        it: it may have been about to give it up when it was not shown yet."""
        if not self.leases.may_attach(owner) or self.leases.held[owner] != epoch:
            raise NotRestored("another replica is to hold it, or held it meanwhile")

    async def records(self, owner: Owner, ids: Collection[str]) -> Mapping[str, InstanceRecord]:
        """The records of those of a restored workflow's instances that have one, watched or not.

        Raises:
            NotRestored: the state can't be read now, or the workflow moves to another replica.
        """
        records = await self._access.records("instances", owner, ids)
        self._ensure_held(owner, self._shown.get(owner, 0))
        # If a record can't be read, the past of its instance is history.
        unreadable = InstanceRecord(self._clock.now().steady)
        return {i: unreadable if record is None else record for i, record in records.items()}

    def detach(self, watched: Watched) -> None:
        """Takes what is pending of a workflow that is no longer attached. The state still holds it
        for a while."""
        self._collect_series()
        self._pending.records |= watched.take_changes()

    async def run(self) -> None:
        """Saves every second, or at least takes a turn, until `close` is called."""
        while not self._closing.is_set():
            # A reload may prevent saves for longer than a lease lasts.
            await (self.turn() if self.saving.locked() else self.save())
            await wait_at_most(_EVERY, self._closing)

    async def save(self) -> bool:
        """Commits what changed, then shows it. While that fails, gauges and the exporter's own
        metrics are shown all the same. Counts of workflows wait, since a restart would take them
        back.

        Returns:
            Whether it was committed.
        """
        async with self.saving:
            if not self._access.backend.is_there:
                self._failed("it was deleted or replaced; writing all of it again")
                await self._renew()
            if self._access.backend.unusable:
                self._store.state_write_failed()
            # Asked before the commit, during which more polls may end.
            polled, committed = self.first_polls_shown or not self.watching.unpolled(), False
            self.writes_since = began = self._clock.monotonic()
            try:
                await self._commit()
            except Exception as error:  # a record that can't be encoded raises, too
                self._failed(str(error))
                await self._show_without_counts()
                with contextlib.suppress(NotRestored, Unreachable):
                    await self._access.drop_expired()
                if self._access.backend.is_damage(error):
                    await self._renew()
            else:
                committed, self.problem = True, self._access.backend.unusable
                # The next turn would end after the leases can no longer be proven: until then,
                # counts are not shown.
                most = self.leases.lease / 2
                if self._clock.monotonic() - began > most:
                    slow = f"the database is slow: a commit and a turn took more than {most:g} s"
                    self._failed(slow)
                elif self._problems.over([]):
                    log.info("state write succeeded again")
            self.first_polls_shown = polled
            self.writes_since = None
            return committed

    async def _commit(self) -> None:
        """Commits what changed and shows it, then takes a turn among the replicas.

        Raises:
            Exception: it can't be committed.
        """
        now, tidy = self._clock.wall(), self._clock.monotonic() - self._tidied >= _TIDY_EVERY
        while True:
            # All workflows when it is tidied, so that the state notes when they were last watched.
            collected = self._collect(workflows=tidy)
            try:
                with self._pending.committing() as (records, shown):
                    await self._access.in_thread(self._write, records, now)
                    await self._show(shown)
                break
            except LeaseLost as error:
                self._lose(error.owners)
        self._drop_removed(collected)
        if tidy:
            expire = partial(self._access.backend.expire, after=_EXPIRES_AFTER, now=now)
            await self._access.in_thread(expire)
            self._tidied = self._clock.monotonic()
        await self._turn()

    async def _show_without_counts(self) -> None:
        """Shows what changed though it isn't committed, except for counts of workflows."""
        collected = self._collect_series()
        at_once = self._pending.take_uncounted()
        # Shielded: a save that is cancelled halfway would lose what is not shown yet.
        await asyncio.shield(self._show(at_once))
        self._drop_removed(collected)

    async def turn(self, *, leaving: bool = False) -> None:
        """Takes a turn among the replicas. If that fails, the next save fails too, and logs why."""
        with contextlib.suppress(Exception):
            await self._turn(leaving=leaving)

    async def leave(self) -> None:
        """Saves what is pending, then gives up all that this replica holds, for good."""
        # On a slow database, each turn takes seconds, and the process may be killed after some.
        self._leaving = True
        await self.save()
        await self.turn(leaving=True)

    async def _turn(self, *, leaving: bool = False) -> None:
        """Takes a turn among the replicas: renews leases, takes some, gives up some.

        Raises:
            Unreachable: the database can't be used.
        """
        async with self._turning:
            for _ in range(2):  # the second takes what the first has shown that nobody holds
                if self._left or (self._leaving and not leaving):
                    return
                self._left = leaving
                attached = self._shown.keys() | self._pending.owners
                turn = self.leases.turn(attached, self.watching.budget_uses(), leaving=leaving)
                began = self._clock.monotonic()
                seen = await self._access.in_thread(self._access.backend.take_turn, turn)
                lost = self.leases.took(turn, seen, began=began, shown=self._shown)
                self.watching.allot(seen.budgets)
                self._lose(lost)
                self.turned.set()
                if not self.leases.taking:
                    return

    def _lose(self, owners: Collection[Owner]) -> None:
        """Detaches workflows that other replicas hold now, and drops what is pending of them: the
        new holders will find out the same."""
        if not owners:
            return
        log.warning(
            "leases lost; other replicas have taken over",
            workflows=len(owners),
            advice="this replica was stopped, or cut off from the database, for longer than "
            "replica.lease; or the database was restored from a backup",
        )
        self.leases.lose(owners)
        self._store.leases_lost(len(owners))
        self.watching.detach_unheld()
        self._collect_series()
        self._pending.discard(owners)

    async def _show(self, changes: Changes) -> None:
        """Shows changes, all at once, while other tasks run."""
        async with self._showing:
            for _ in self._exposition.showing(changes):
                await asyncio.sleep(0)

    def _drop_removed(self, collected: Collection[WorkflowKey]) -> None:
        """Drops the workflows that scrapes no longer see.

        Args:
            collected: Those that had series when the changes were collected that are shown now.
        """
        still = {*collected, *self._store.workflows}
        self._owners = {key: owner for key, owner in self._owners.items() if key in still}
        self._shown = {owner: self._shown[owner] for owner in self._owners.values()}

    async def close(self) -> None:
        """Saves what is pending, gives up all leases, and closes the state."""
        self._closing.set()
        await self.leave()
        self._access.close()

    def _collect(self, *, workflows: bool) -> Collection[WorkflowKey]:
        """Takes what changed and, with `workflows`, the record of every attached workflow. Returns
        the workflows that have series after that."""
        # Counts and instances together, so that what is counted fits what is known of each run.
        for watched in self.watching.attached:
            self._pending.records |= watched.take_changes(workflow=workflows)
        return self._collect_series()

    def _collect_series(self) -> Collection[WorkflowKey]:
        self._pending.take(self._store.take(), self._owners)
        return [*self._store.workflows]

    def _write(self, records: Records, now: float) -> None:
        if records:
            batch = batch_of(records, self.leases.held, self._clock.now().steady)
            self._access.backend.write(batch, now=now)

    async def _renew(self) -> None:
        """Begins an empty file, and has everything written again."""
        try:
            await self._access.in_thread(self._access.backend.renew)
        except Unusable as error:
            self._failed(str(error))
            return
        self._store.series.touch()
        for watched in self.watching.attached:
            watched.record_all()

    def _failed(self, problem: str) -> None:
        self.problem = problem
        self._store.state_write_failed()
        if self._problems.news([problem]):
            log.error(
                "state write failed; counters frozen at last committed values",
                error=problem,
                advice="try the database with --check-api; it is written again once that succeeds"
                if self.leases.shared
                else "check the space, the permissions and the health of state.path's disk",
            )
