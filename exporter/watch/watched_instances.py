"""The watched instances of one workflow, and what the state is to record of them."""

import asyncio
import heapq
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Concatenate, ParamSpec

from msgspec.structs import replace

from exporter.clock import Clock, Moment
from exporter.config.settings import Poll
from exporter.instances import lifecycle
from exporter.instances.instance import NOTHING, Effects, Instance, Scope
from exporter.instances.run import APART, Observations
from exporter.instances.state_records import (
    UNWATCHED_FOR,
    InstanceRecord,
    WorkflowRecord,
    newest_of,
)
from exporter.metrics.catalogue import WorkflowKey
from exporter.metrics.store import Store
from exporter.state.backend import Owner, RecordKey
from exporter.state.record_codec import Record, Records
from exporter.watch.list_passes import ListPasses
from exporter.watch.selector import Selector

P = ParamSpec("P")

_RAISED_BY = 3600.0
"""Seconds of the steps in which the horizon is raised, at least; the last one may be smaller."""
_STRETCH = 1000
"""Instances that are visited before other tasks may run."""


def of_nearly_all(moments: Sequence[float]) -> float:
    """The moment before which 1% of these are; inf without any."""
    return heapq.nsmallest(len(moments) // 100 + 1, moments)[-1] if moments else inf


@dataclass(eq=False, kw_only=True)
class WatchedInstances:
    """The instances of one workflow.

    A configured or discovered instance is watched until it is *removed*, because the configuration
    no longer selects it, or *expires*, because it was deleted on the platform or is old. The record
    of a removed instance stays in the state for a week. An instance that expired has no record:
    once no list can show news of it, its last time raises the workflow's *horizon*, before which
    nothing is news. So when either kind comes back, nothing is counted twice.

    Attributes:
        key: The workflow as the labels name it.
        owner: The same as the state names it.
        record: What the state is to hold of the workflow.
        configured_ids: The ids of the configured instances, which are always watched.
        selector: Which other instances are watched; None: no others.
        backfill: Whether to count what had ended before the first poll; None: of configured
            instances only.
        store: Gets the values to show.
        poll: How often to poll.
        clock: The time.
    """

    key: WorkflowKey
    owner: Owner
    record: WorkflowRecord
    configured_ids: frozenset[str]
    selector: Selector | None
    backfill: bool | None
    poll: Poll
    store: Store
    clock: Clock

    def __post_init__(self) -> None:
        # A copy: the state may still have to write the one that was restored, as it is. A workflow
        # that was deleted may be back.
        self.record = replace(self.record, deleted=False)
        self._recorded: WorkflowRecord | None = None
        """The workflow's record as of the last `take_changes`; None: that is to return it."""
        self.instances: dict[str, Instance] = {}
        self.changed: set[str] = set()
        """Watched instances whose record has changed since `take_changes`."""
        self._unwatched: dict[str, InstanceRecord | None] = {}
        """The records of instances that are no longer watched; None: the record is to be
        deleted."""
        self.detached = False
        """Whether the workflow was detached. Responses that still come then change nothing."""
        self.newest_row = -inf
        """The latest time in any list row, in Unix time by Cloudflare's clock."""
        self.passes = ListPasses(self.record, self.clock)

    @property
    def now(self) -> float:
        """Unix time; if this machine's clock is behind, the latest time in any list row."""
        return max(self.clock.now().steady, self.newest_row)

    @property
    def configured(self) -> list[Instance]:
        """The configured instances."""
        return [self.instances[instance_id] for instance_id in self.configured_ids]

    async def each(self) -> AsyncIterator[Instance]:
        """The instances that are watched now, without those that stop being watched meanwhile. Lets
        other tasks run every few milliseconds."""
        for n, instance in enumerate([*self.instances.values()], start=1):
            if self.instances.get(instance.id) is instance:
                yield instance
            if not n % _STRETCH:
                await asyncio.sleep(0)

    def begin(self, instance_id: str, scope: Scope, known: InstanceRecord | None) -> Instance:
        """Begins to watch an instance; one that comes back continues from its record.

        Args:
            known: Its record in the state; None: there is none.
        """
        # Recorded at once, so that `since` outlives a restart even if no poll ever succeeds.
        self.changed.add(instance_id)
        return self._watch(instance_id, scope, known)

    def was_removed(self, instance_id: str) -> bool:
        """Whether an instance is no longer watched since the last `take_changes`. The record that
        the state still has of it may lack what was counted last."""
        return instance_id in self._unwatched

    def _watch(self, instance_id: str, scope: Scope, known: InstanceRecord | None) -> Instance:
        now, configured = self.clock.now(), scope is Scope.CONFIGURED
        since = self.since_of(configured=configured)
        due = now.monotonic if configured else inf
        instance = Instance(instance_id, scope, self.poll, since, due)
        if known is not None:
            lifecycle.restore(instance, now, known, list_pass_at=self.passes.last_succeeded)
        self.instances[instance_id] = instance
        self._show(instance)
        return instance

    def since_of(self, *, configured: bool = False) -> float:
        """The Unix time from which ends count that come from an instance not watched so far:
        earlier ones are history, or were counted."""
        first = self.record.since if configured else self.record.discovered_since
        if self.backfill or (self.backfill is None and configured) or first is None:
            first = -inf
        return max(first, self.record.horizon)

    def raise_horizon(self) -> None:
        """Raises the horizon past the removed instances whose records have expired."""
        horizon, newest = self.record.horizon, self.record.newest_unwatched
        # Not past the newest of them: this machine's clock may be days ahead.
        old = min(self.clock.now().steady - UNWATCHED_FOR, newest)
        if old > horizon + _RAISED_BY or old == newest > horizon:
            self.record.horizon = old

    def as_of(self, *, readable: bool) -> float | None:
        """The moment (monotonic clock) as of which the statuses of 99% of the live instances are
        known; None: no list pass has succeeded yet.

        The other 1% may be moving between lists, or have ended; the next polls show that. With
        `readable`, which says that the workflow can be read, instances whose polls fail are left
        out: there is a metric for them.
        """
        lists = inf if self.selector is None else self.passes.as_of
        if lists is None:
            return None
        known = [
            i.checked_at
            for i in self.instances.values()
            if i.counts_as_live and not (readable and i.failure is not None)
        ]
        return min(lists, of_nearly_all(known), self.clock.monotonic())

    def apply(
        self,
        transition: Callable[Concatenate[Instance, Moment, P], Effects],
        instance: Instance,
        *what: P.args,
        **also: P.kwargs,
    ) -> Effects:
        """Makes a transition of `lifecycle` now and does what its effects ask for, unless the
        instance is no longer watched."""
        if self.instances.get(instance.id) is not instance:
            return NOTHING
        first = instance.run is None or instance.run.newest == -inf
        effects = transition(instance, self.clock.now(), *what, **also)
        if effects.record:
            self.changed.add(instance.id)
        if effects.observations is not None:
            self.store.counted(self.key, instance.id, effects.observations)
        if effects.backfilled or self._counts_history(instance, effects, first=first):
            self.store.backfilled(self.key)
        if effects.show:
            self._show(instance)
        if effects.hide:
            self.store.removed(self.key, instance.id)
        if effects.skipped:
            self.store.skipped(self.key)
        if effects.remove:
            del self.instances[instance.id]
            self._unwatched[instance.id] = None
            newest = newest_of(instance.run, instance.row)
            self.record.horizon = max(self.record.horizon, newest + APART)
        return effects

    def _counts_history(self, instance: Instance, effects: Effects, *, first: bool) -> bool:
        """Whether what is counted of a discovered instance comes from a run that had ended before
        the workflow was discovered or, if it is live, had started before that and is counted for
        the first time."""
        if not self.backfill or instance.configured or instance.run is None:
            return False
        counts = effects.observations not in (None, Observations())
        moment = instance.run.end or (instance.run.start if first else None)
        return counts and (moment or inf) < (self.record.discovered_since or -inf)

    def _show(self, instance: Instance) -> None:
        """Shows the values of an instance, if it has series and any value is known."""
        if instance.has_series and instance.values is not None:
            self.store.shown(self.key, instance.id, instance.values, instance.last_change)

    def take_changes(self, *, workflow: bool = False) -> Records:
        """The records of the workflow and its instances that have changed since the last call.

        Args:
            workflow: Whether to return the workflow's record even if it has not changed.
        """
        now = self.clock.now()
        watched = {i: self.instances[i].record(now) for i in self.changed if i in self.instances}
        changed = {**self._unwatched, **watched}
        records: dict[RecordKey, Record | None] = {
            ("instances", self.owner, i): record for i, record in changed.items()
        }
        self.changed.clear()
        self._unwatched.clear()
        if workflow or self.record != self._recorded:
            self._recorded = records["workflows", self.owner, ""] = replace(self.record)
        return records

    def record_all(self) -> None:
        """Has `take_changes` return everything again, since the state was lost.

        With it, the records of instances that aren't watched were lost. The horizon is raised past
        them, so that nothing of theirs is counted twice.
        """
        self.changed.update(self.instances)
        self._recorded = None
        self.record.horizon = max(self.record.horizon, self.record.newest_unwatched + APART)

    def restore(self, instance_id: str, record: InstanceRecord) -> None:
        """Continues to watch an instance from its record; or removes it, if it is no longer
        selected."""
        discovered = self.selector is not None and self.selector.takes_id(instance_id)
        if instance_id in self.configured_ids:
            self._watch(instance_id, Scope.CONFIGURED, record)
            if not record.shown:
                self.changed.add(instance_id)
        elif discovered and (record.values or record.wants_detail):
            self._watch(instance_id, Scope.COUNTED, record)
        elif record.run is not None:
            # Not before its own times, even if the clock is behind: when the record expires, the
            # horizon has to pass them.
            removed = max(self.clock.now().steady, newest_of(record.run, record.row))
            self._unwatched[instance_id] = replace(record, removed_at=removed)
            self.record.newest_unwatched = max(self.record.newest_unwatched, removed + APART)
        else:
            self._unwatched[instance_id] = None
