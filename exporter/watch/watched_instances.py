"""Which instances of one workflow are watched, and what the state is to record of them."""

import asyncio
import heapq
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from math import inf
from typing import Concatenate, ParamSpec

from msgspec.structs import replace

from exporter.clock import Clock, Moment
from exporter.cloudflare.errors import RequestFailed
from exporter.cloudflare.models import Row, Summary
from exporter.config.settings import Poll
from exporter.instances import lifecycle
from exporter.instances.instance import Instance, Scope
from exporter.instances.lifecycle import NOTHING, Effects
from exporter.instances.run_tracker import APART
from exporter.instances.state_records import (
    UNWATCHED_FOR,
    InstanceRecord,
    WorkflowRecord,
    newest_of,
)
from exporter.metrics.labels import WorkflowKey
from exporter.metrics.store import Store
from exporter.watch.selector import Selector

P = ParamSpec("P")

_RAISED_BY = 3600.0
"""Seconds by which the horizon is raised at least to what was removed."""
LATE = 60.0
"""Seconds by which a row may appear in lists after its instance was created."""
_OLD = 3600.0
"""Seconds after its end from which a run that is counted on first sight is history."""
_STRETCH = 1000
"""Instances that are gone through at a stretch."""


@dataclass(eq=False, kw_only=True)
class WatchedInstances:
    """The instances of one workflow.

    An instance is watched, as it is configured or as it was discovered, until it is *removed*, by a
    configuration that no longer selects it, or *expires*, deleted on the platform or old. What is
    known of a removed one then is in the state alone, for a week. One that expired leaves a horizon
    behind, once no list shows news of it. So when either comes back, nothing is counted twice.

    Attributes:
        key: The workflow.
        record: What the state is to hold of the workflow; a copy of what it holds.
        ids: The configured instances, which are always watched.
        selector: Which others are watched too; None: none.
        backfill: Whether what had ended when instances were first watched counts, too; None: of
            configured ones.
        store: Gets what is shown, and what no longer is.
        poll, clock: Those of everything that watches the workflow.
    """

    key: WorkflowKey
    record: WorkflowRecord
    ids: frozenset[str]
    selector: Selector | None
    backfill: bool | None
    poll: Poll
    store: Store
    clock: Clock

    def __post_init__(self) -> None:
        self.record = replace(self.record)
        self.instances: dict[str, Instance] = {}
        self.changed: set[str] = set()
        """Watched instances whose record has changed since the state last took note."""
        self._progressed: set[str] = set()
        """Those of which more is shown than is recorded."""
        self._unwatched: dict[str, InstanceRecord | None] = {}
        """What the state is to record of instances that are watched no longer; None: nothing."""
        self.over = False
        """Whether the workflow was detached: responses that still come change nothing."""
        self.newest_row = -inf
        """Unix time of the newest time in a list row, by Cloudflare's clock."""
        self.pass_began = -inf
        """When the list pass began that is under way, or was the last (monotonic clock)."""
        self.pass_done = False
        """Whether a list pass was made, whatever came of it."""
        self.pass_failure: RequestFailed | None = None
        """Of the last list pass; None when it succeeded."""

    @property
    def missing(self) -> list[str]:
        """Configured instances that are not watched yet."""
        return sorted(self.ids - self.instances.keys())

    @property
    def now(self) -> float:
        """Unix time; where this machine's clock is behind, that of the newest thing in lists."""
        return max(self.clock.steady(), self.newest_row)

    async def each(self) -> AsyncIterator[Instance]:
        """The instances as of now, but those removed meanwhile; lets others run every few
        milliseconds."""
        for n, instance in enumerate([*self.instances.values()], start=1):
            if self.instances.get(instance.id) is instance:
                yield instance
            if not n % _STRETCH:
                await asyncio.sleep(0)

    def begin(self, instance_id: str, scope: Scope, known: InstanceRecord | None) -> Instance:
        """Watches an instance; one that was removed and comes back is as it was.

        Args:
            known: What the state holds of it; None: nothing.
        """
        # Since when it is watched is known from here on, whether it is ever seen or not.
        self.changed.add(instance_id)
        return self._watch(instance_id, scope, known)

    def _watch(self, instance_id: str, scope: Scope, known: InstanceRecord | None) -> Instance:
        now, configured = self.clock.now(), scope is Scope.CONFIGURED
        since = self.since_of(configured=configured)
        due = now.monotonic if configured else inf
        instance = Instance(instance_id, scope, self.poll, since, due)
        if known is not None:
            lifecycle.restore(instance, known, list_pass_at=self.last_pass_began(), now=now)
        self.instances[instance_id] = instance
        if instance.has_series and instance.values is not None:
            self.store.restored(self.key, instance_id, instance.values, instance.last_change)
        return instance

    def since_of(self, *, configured: bool = False) -> float:
        """Unix time; ends before it, of an instance that isn't watched, are history or were
        counted."""
        first = self.record.since if configured else self.record.discovered_since
        if self.backfill or (self.backfill is None and configured) or first is None:
            first = -inf
        return max(first, self.record.horizon)

    def raise_horizon(self) -> None:
        """Raises the horizon to what was removed too long ago to come back."""
        horizon, newest = self.record.horizon, self.record.newest_unwatched
        # No further than what was removed: the clock may be days ahead.
        old = min(self.clock.steady() - UNWATCHED_FOR, newest)
        if old > horizon + _RAISED_BY or old == newest > horizon:
            self.record.horizon = old

    def as_of(self, *, readable: bool) -> float | None:
        """The moment (monotonic clock) as of which the status of 99% of the live instances is
        known; None: of none.

        One in a hundred may be moving from list to list, or have ended: the next polls show. While
        others can be read, an instance that can't is left out: it is reported as such.
        """
        lists = inf if self.selector is None else self._lists_as_of()
        if lists is None:
            return None
        known = [
            i.checked_at
            for i in self.instances.values()
            if i.counts_as_live and not (readable and i.failure is not None)
        ]
        now = self.clock.monotonic()
        oldest = heapq.nsmallest(len(known) // 100 + 1, known)[-1] if known else now
        return min(lists, oldest)

    def _lists_as_of(self) -> float | None:
        """When the list pass began that covers all instances: the one under way or, where one has
        failed, the last that succeeded (monotonic clock); None: no pass has succeeded."""
        failed = not self.pass_done or self.pass_failure is not None
        return self.last_pass_began() if failed else self.pass_began

    @property
    def settled(self) -> float:
        """Until when what had expired is in no list as news any more (monotonic clock)."""
        return (self.last_pass_began() or -inf) - LATE

    def last_pass_began(self) -> float | None:
        """When the last list pass that succeeded began (monotonic clock); None: none has."""
        if self.record.last_pass is None:
            return None
        # The clock that it was recorded by may have been ahead.
        age = max(0.0, self.clock.steady() - self.record.last_pass)
        return self.clock.monotonic() - age

    def correct_times(self, *responses: Row | Summary) -> None:
        """Drops times of rows or a response that stand for none, or can't have passed: one of these
        would make all that comes later seem old."""
        limit = self.clock.latest_possible()
        if dropped := sum(response.correct_times(limit) for response in responses):
            self.store.ignored(dropped)

    def apply(
        self,
        transition: Callable[Concatenate[Instance, Moment, P], Effects],
        instance: Instance,
        *what: P.args,
        **also: P.kwargs,
    ) -> Effects:
        """Makes a transition of `lifecycle` now and does what it asks for, unless the instance is
        no longer watched."""
        if self.instances.get(instance.id) is not instance:
            return NOTHING
        known = instance.run
        effects = transition(instance, self.clock.now(), *what, **also)
        self.take_effect(instance, effects)
        if known is None and instance.configured and effects.observations:
            ended = effects.observations.run and instance.run and instance.run.end
            if ended and ended < self.clock.steady() - _OLD:
                self.store.backfilled(self.key)
        return effects

    def take_effect(self, instance: Instance, effects: Effects) -> None:
        """Does what a transition asks for: counts, shows, hides, records."""
        if effects.record:
            self.changed.add(instance.id)
        elif effects.show:
            self._progressed.add(instance.id)
        if effects.observations:
            self.store.counted(self.key, instance.id, effects.observations)
        if effects.show and instance.has_series:
            self.show(instance)
        if effects.hide:
            self.store.removed(self.key, instance.id)
        if effects.skipped:
            self.store.skipped(self.key)
        if effects.remove:
            del self.instances[instance.id]
            self._progressed.discard(instance.id)
            self._unwatched[instance.id] = None
            newest = newest_of(instance.run, instance.row)
            self.record.horizon = max(self.record.horizon, newest + APART)

    def show(self, instance: Instance) -> None:
        """Shows what is known of an instance."""
        if instance.values is not None:
            self.store.shown(self.key, instance.id, instance.values, instance.last_change)

    def take_changes(self) -> dict[str, InstanceRecord | None]:
        """What the state is to record from now on, by instance; None: nothing."""
        now = self.clock.now()
        watched = {i: self.instances[i].record(now) for i in self.changed if i in self.instances}
        taken = {**self._unwatched, **watched}
        self.changed.clear()
        self._unwatched.clear()
        return taken

    def record_progress(self) -> None:
        """Has the state record all that is shown."""
        self.changed |= self._progressed
        self._progressed.clear()

    def record_all(self) -> None:
        """Has the state record everything again: it was lost.

        What was counted of instances that aren't watched is lost with it, so the horizon is raised.
        """
        self.changed.update(self.instances)
        self.record.horizon = max(self.record.horizon, self.record.newest_unwatched + APART)

    def restore(self, instance_id: str, record: InstanceRecord) -> None:
        """Takes the record of an instance that was watched, if it still is one to be watched."""
        discovered = self.selector is not None and self.selector.takes_id(instance_id)
        if instance_id in self.ids:
            self._watch(instance_id, Scope.CONFIGURED, record)
            if not record.shown:
                self.changed.add(instance_id)
        elif discovered and (record.run or record.wants_detail):
            self._watch(instance_id, Scope.COUNTED, record)
        elif record.run is not None:
            # Once the record expires, all that it holds is before the horizon, whatever the clock.
            removed = max(self.clock.steady(), newest_of(record.run, record.row))
            self._unwatched[instance_id] = replace(record, removed_at=removed)
            self.record.newest_unwatched = max(self.record.newest_unwatched, removed + APART)
        else:
            self._unwatched[instance_id] = None
