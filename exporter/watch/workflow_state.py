"""Which instances of one workflow are watched, and what the state is to record of them."""

import heapq
from collections.abc import Iterable, Mapping
from math import inf

from msgspec.structs import replace

from exporter.clock import Clock
from exporter.config.settings import Poll
from exporter.watch import lifecycle
from exporter.watch.effects import Effects
from exporter.watch.instance import Instance, Scope
from exporter.watch.records import InstanceRecord, Record, WorkflowRecord
from exporter.watch.selector import Selector
from exporter.watch.sink import Sink, WorkflowKey
from exporter.watch.tracker import APART

UNWATCHED_FOR = 7 * 86400.0
"""Seconds until the record of a removed instance expires. When a configuration that was rolled back
names it again before, it continues with what is recorded."""
_RAISED_BY = 3600.0
"""Seconds by which the horizon is raised at least where no list pass raises it."""


class WorkflowState:
    """The instances of one workflow.

    An instance is watched, as it is configured or as it was discovered, until it is *removed*, by a
    configuration that no longer selects it, or *expires*, deleted on the platform or old. What is
    known then is in the state alone: of a removed one the whole record, for a week; of an expired
    one the moment up to which all of it was counted, until no list can hold it. When it comes back,
    nothing is counted twice.

    Args:
        key: The workflow.
        record: What the state holds of the workflow.
        ids: The configured instances.
        selector: Which others are watched too; None: none.
        since: Unix time; what ended before it of a configured instance that is new is history.
        sink: Gets what is shown, and what no longer is.

    Attributes:
        ids: The configured instances, which are always watched.
        poll, sink, clock: Those of everything that watches the workflow.
    """

    def __init__(
        self,
        key: WorkflowKey,
        *,
        record: WorkflowRecord,
        ids: Iterable[str],
        selector: Selector | None,
        since: float,
        poll: Poll,
        sink: Sink,
        clock: Clock,
    ) -> None:
        self.key = key
        self.poll, self.sink, self.clock = poll, sink, clock
        self.instances: dict[str, Instance] = {}
        self.last_pass = record.last_pass
        """Unix time at which the last list pass that succeeded began."""
        self.horizon = record.horizon
        """Unix time before which no end of a discovered instance is news any more."""
        self.discovered_since = record.discovered_since
        """Unix time at which instances were first discovered; None: they never were."""
        self.newest_unwatched = record.newest_unwatched
        """Unix time; the state holds nothing of instances that were created later and aren't
        watched."""
        self.changed: set[str] = set()
        """Watched instances whose record has changed since the state last took note."""
        self._unwatched: dict[str, Record | None] = {}
        """What the state is to record of instances that are watched no longer; None: nothing."""
        self._record = record
        self.ids = frozenset(ids)
        self._selector = selector
        self._since = since
        self.lists_as_of = self.last_pass_began()
        """When the list pass began that covers all instances: the one under way or, where one
        has failed, the last that succeeded (monotonic clock); None: no pass has succeeded."""

    @property
    def record(self) -> WorkflowRecord:
        """What the state is to hold of the workflow."""
        return replace(
            self._record,
            last_pass=self.last_pass,
            horizon=self.horizon,
            discovered_since=self.discovered_since,
            newest_unwatched=self.newest_unwatched,
        )

    @property
    def missing(self) -> list[str]:
        """Configured instances that are not watched yet."""
        return sorted(self.ids - self.instances.keys())

    def begin_configured(self, known: Mapping[str, Record | None]) -> None:
        """Watches the configured instances that are missing.

        Args:
            known: What the state holds of them, as `begin` takes it.
        """
        for instance_id in self.missing:
            self.begin(
                instance_id,
                Scope.CONFIGURED,
                since=self._since,
                due=self.clock.monotonic(),
                known=known.get(instance_id, -inf),
            )

    def begin(
        self,
        instance_id: str,
        scope: Scope,
        *,
        since: float,
        due: float = inf,
        known: Record | None = -inf,
    ) -> Instance:
        """Watches an instance; one that was removed and comes back is as it was.

        Args:
            since: Unix time; what ended before it is history.
            known: What the state holds of it; None: that can't be read, so none of the past is
                counted; -inf: nothing.
        """
        instance = Instance(instance_id, scope, max(since, self.since_of(known)), due)
        # Since when it is watched is known from here on, whether it is ever seen or not.
        self.changed.add(instance_id)
        self._unwatched.pop(instance_id, None)
        if isinstance(known, InstanceRecord):
            self._take_record(instance, known, scope=scope)
        self.instances[instance_id] = instance
        if instance.has_series:
            self.show(instance)
        return instance

    def since_of(self, known: Record | None) -> float:
        """Unix time before which an end of an instance that isn't watched was counted already, if
        it is one to be counted; `known` as of `begin`."""
        counted = self.clock.steady() if known is None else -inf
        if isinstance(known, float):
            counted = known + APART
        return max(self.horizon, counted)

    def _unwatch(self, instance_id: str, record: Record | None, newest: float) -> None:
        """Has the state record of an instance that is watched no longer what is known of it.

        Args:
            newest: Unix time that is not before its creation, nor before any end that was counted.
        """
        self._unwatched[instance_id] = record
        self.newest_unwatched = max(self.newest_unwatched, newest)

    def _expire(self, instance: Instance) -> None:
        """Watches an expired instance no longer; up to when all of it was counted is recorded."""
        del self.instances[instance.id]
        run, end = instance.run, None
        if run is not None and instance.live:
            # To the millisecond: both times are of one store.
            seen = max(run.newest, -inf if run.start is None else run.start)
            end = seen + 0.001 - APART
        elif run is not None:
            end = self.clock.steady() if run.end is None else run.end
        newest = -inf if run is None else run.newest + APART
        times = (newest, end, instance.row.created)
        self._unwatch(instance.id, end, max(time for time in times if time is not None))

    def expire_old(self) -> None:
        """Raises the horizon to what was removed, or ended, too long ago to come back."""
        if self._selector is None:  # otherwise list passes raise it
            # No further than what has expired: the clock may be days ahead.
            old = min(self.clock.steady() - UNWATCHED_FOR, self.newest_unwatched)
            if old > self.horizon + _RAISED_BY or old == self.newest_unwatched > self.horizon:
                self.horizon = old

    def as_of(self, *, readable: bool) -> float | None:
        """The moment (monotonic clock) as of which the status of 99% of the live instances is
        known; None: of none.

        One in a hundred may be moving from list to list, or have ended: the next polls show. While
        others can be read, an instance that can't is left out: it is reported as such.
        """
        lists = inf if self._selector is None else self.lists_as_of
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

    def last_pass_began(self) -> float | None:
        """`last_pass` on the monotonic clock."""
        if self.last_pass is None:
            return None
        return self.last_pass - self.clock.steady() + self.clock.monotonic()

    def apply(self, instance: Instance, effects: Effects) -> None:
        """Does what a transition asks for: counts, shows, hides, records."""
        if effects.record:
            self.changed.add(instance.id)
        if effects.observations:
            self.sink.counted(self.key, instance.id, effects.observations)
        if effects.show and instance.has_series:
            self.show(instance)
        if effects.hide:
            self.sink.removed(self.key, instance.id)
        if effects.skipped:
            self.sink.skipped(self.key)
        if effects.remove:
            self._expire(instance)

    def show(self, instance: Instance) -> None:
        """Shows what is known of an instance."""
        if instance.values is not None:
            self.sink.shown(self.key, instance.id, instance.values, instance.last_change)

    def take_changes(self) -> dict[str, Record | None]:
        """What the state is to record from now on, by instance; None: nothing."""
        now = self.clock.now()
        watched = {i: self.instances[i].record(now) for i in self.changed if i in self.instances}
        taken = {**self._unwatched, **watched}
        self.changed.clear()
        self._unwatched.clear()
        return taken

    def record_all(self) -> None:
        """Has the state record everything again: it was lost.

        What was counted of instances that aren't watched is lost with it, so the horizon is raised.
        """
        self.changed.update(self.instances)
        self.horizon = max(self.horizon, self.newest_unwatched + APART)

    def restore(self, instance_id: str, record: Record | None) -> None:
        """Takes the record of an instance that is watched, if it is still one to be watched.

        None: it can't be read.
        """
        if record is None:
            return
        now, selector = self.clock.steady(), self._selector
        watched = selector is not None and selector.takes_id(instance_id)
        if isinstance(record, float):  # as a former version recorded what isn't watched
            self._unwatch(instance_id, record, record + APART)
        elif instance_id in self.ids and record.removed_at is None:
            due = self.clock.monotonic()
            self._restore(Instance(instance_id, Scope.CONFIGURED, self._since, due), record)
            if not record.shown:
                self.changed.add(instance_id)
        elif watched and record.removed_at is None and (record.run or record.wants_detail):
            self._restore(Instance(instance_id, Scope.COUNTED, record.since), record)
        elif record.run is None:
            # Unseen, it has the end that was counted before, if any was.
            end = record.since - APART if record.since > self.horizon else None
            self._unwatch(instance_id, end, record.since)
        else:
            newest = max(now, record.run.newest) + APART
            removed_at = record.removed_at or now
            self._unwatch(instance_id, replace(record, removed_at=removed_at), newest)

    def _restore(self, instance: Instance, record: InstanceRecord) -> None:
        self.instances[instance.id] = instance
        self._take_record(instance, record)
        if instance.has_series:
            self.show(instance)

    def _take_record(
        self, instance: Instance, record: InstanceRecord, *, scope: Scope | None = None
    ) -> None:
        lists_at = self.last_pass_began()
        lifecycle.restore(
            instance, record, scope=scope, now=self.clock.now(), list_pass_at=lists_at
        )
