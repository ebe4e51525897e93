"""Which instances of one workflow are watched, and what is known of those that were."""

import heapq
from collections.abc import Iterable
from math import inf
from typing import TypeGuard

from msgspec.structs import replace

from exporter.clock import Clock
from exporter.watch import lifecycle
from exporter.watch.instance import Instance, Scope
from exporter.watch.lifecycle import Effects
from exporter.watch.records import InstanceRecord, Record, WorkflowRecord
from exporter.watch.selector import Selector
from exporter.watch.sink import Sink, WorkflowKey
from exporter.watch.tracker import APART

_REMOVED_FOR = 7 * 86400.0
"""Seconds until the record of a removed instance expires: named again before, by a configuration
that was rolled back, say, it isn't counted twice."""


class WorkflowState:
    """The instances of one workflow.

    An instance is watched, as it is configured or as it was discovered, until it is *removed*, by a
    configuration that no longer selects it, or *expires*, deleted on the platform or old. The whole
    record of a removed one stays for a week. Of an expired one stays the moment up to which all of
    it was counted, until no list can hold it. When it comes back, nothing is counted twice.

    Args:
        key: The workflow.
        record: What the state holds of the workflow.
        ids: The configured instances.
        selector: Which others are watched too; None: none.
        since: Unix time; what ended before it of an instance unknown until now is history.
        sink: Gets what is shown, and what no longer is.
    """

    def __init__(
        self,
        key: WorkflowKey,
        *,
        record: WorkflowRecord,
        ids: Iterable[str],
        selector: Selector | None,
        since: float,
        sink: Sink,
        clock: Clock,
    ) -> None:
        self.key = key
        self.instances: dict[str, Instance] = {}
        self.ends: dict[str, float] = {}
        """Up to when, in Unix time, all was counted of expired instances that lists may still hold:
        the end of the run, mostly."""
        self.last_pass = record.last_pass
        """Unix time at which the last list pass that succeeded began."""
        self.horizon = -inf if record.horizon is None else record.horizon
        """Unix time before which no end of a discovered instance is news any more."""
        self.discovered_since = record.discovered_since
        """Unix time at which instances were first discovered; None: they never were."""
        self.changed: set[str] = set()
        """Instances whose record has changed since the state last took note."""
        self._record = record
        self._removed: dict[str, InstanceRecord] = {}
        self._selector = selector
        self._sink = sink
        self._clock = clock
        self.lists_as_of = self.last_pass_began()
        """When the list pass began that covers all instances: the one under way or, where one
        has failed, the last that succeeded (monotonic clock); None: no pass has succeeded."""
        now = clock.monotonic()
        for instance_id in sorted(set(ids)):
            self.begin(instance_id, Scope.CONFIGURED, since=since, due=now)

    @property
    def record(self) -> WorkflowRecord:
        """What the state is to hold of the workflow."""
        return replace(
            self._record,
            last_pass=self.last_pass,
            horizon=self.horizon,
            discovered_since=self.discovered_since,
        )

    def _is_over(self, removed_at: float | None) -> TypeGuard[float]:
        """Whether the record of an instance removed at a Unix time has expired."""
        return removed_at is not None and self._clock.steady() - removed_at >= _REMOVED_FOR

    def begin(self, instance_id: str, scope: Scope, *, since: float, due: float = inf) -> Instance:
        """Watches an instance; one that comes back is as it was when it was removed."""
        since = max(since, self.since_of(instance_id))
        instance = Instance(instance_id, scope, since, due)
        # Since when it is watched is known from here on, whether it is ever seen or not.
        self.changed.add(instance_id)
        known = self._removed.pop(instance_id, None)
        if known is not None:
            self._take_record(instance, known, scope=scope)
        self.instances[instance_id] = instance
        if instance.has_series:
            self.show(instance)
        return instance

    def since_of(self, instance_id: str) -> float:
        """Unix time before which an end of an instance unknown till now was counted already, if it
        is one to be counted."""
        counted = self.ends.get(instance_id, -inf) + APART
        return max(self.horizon, counted)

    def _never_seen(self, instance_id: str, since: float) -> None:
        """Has of an instance that goes unseen the end that was counted before, if any was."""
        if since > self.horizon:
            self.ends[instance_id] = since - APART

    def _expire(self, instance: Instance) -> None:
        """Watches an expired instance no longer; up to when all of it was counted stays known."""
        self.changed.add(instance.id)
        del self.instances[instance.id]
        run, now = instance.run, self._clock.steady()
        if run is not None and instance.live:
            # To the millisecond: both times are of one store.
            seen = max(run.newest, -inf if run.start is None else run.start)
            self.ends[instance.id] = seen + 0.001 - APART
        elif run is not None:
            self.ends[instance.id] = now if run.end is None else run.end

    def expire_ends(self, before: float) -> None:
        """Takes no end before a Unix time for news any more."""
        self.horizon = max(self.horizon, before)
        for instance_id in [i for i, end in self.ends.items() if end < self.horizon]:
            del self.ends[instance_id]
            self.changed.add(instance_id)

    def expire_old(self) -> None:
        """Expires what was removed, or ended, too long ago to come back."""
        removed = ((i, record.removed_at) for i, record in self._removed.items())
        over = {i: at for i, at in removed if self._is_over(at)}
        for instance_id in over:
            del self._removed[instance_id]
            self.changed.add(instance_id)
        old = list(over.values())
        if self._selector is None:  # otherwise list passes tell which ends are old
            before = self._clock.steady() - _REMOVED_FOR
            old += [end + APART for end in self.ends.values() if end < before]
        if old:
            # No further than what has expired: the clock may be days ahead.
            self.expire_ends(max(old))

    def as_of(self, *, readable: bool) -> float | None:
        """The moment (monotonic clock) as of which the status of 99% of the live instances is
        known; None: of none.

        One in a hundred may be moving from list to list, or have ended: the next polls tell. While
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
        now = self._clock.monotonic()
        oldest = heapq.nsmallest(len(known) // 100 + 1, known)[-1] if known else now
        return min(lists, oldest)

    def last_pass_began(self) -> float | None:
        """`last_pass` on the monotonic clock."""
        if self.last_pass is None:
            return None
        return self.last_pass - self._clock.steady() + self._clock.monotonic()

    def apply(self, instance: Instance, effects: Effects) -> None:
        """Does what a transition asks for: counts, shows, hides, records."""
        if effects.record:
            self.changed.add(instance.id)
        if effects.observations:
            self._sink.counted(self.key, instance.id, effects.observations)
        if effects.show and instance.has_series:
            self.show(instance)
        if effects.hide:
            self._sink.removed(self.key, instance.id)
        if effects.skipped:
            self._sink.skipped(self.key)
        if effects.remove:
            self._expire(instance)

    def show(self, instance: Instance) -> None:
        """Shows what is known of an instance."""
        if instance.values is not None:
            self._sink.shown(self.key, instance.id, instance.values, instance.last_change)

    def record_of(self, instance_id: str) -> Record | None:
        """What of an instance is to outlive a restart; None: nothing."""
        instance = self.instances.get(instance_id)
        if instance is not None:
            return instance.record(self._clock.now())
        return self._removed.get(instance_id) or self.ends.get(instance_id)

    def record_all(self) -> None:
        """Has all records written again, whatever the state holds."""
        self.changed.update(self.instances, self._removed, self.ends)

    def restore(self, instance_id: str, record: Record | None) -> None:
        """Takes the record of an instance, if it is still one to be watched, or may be again.

        None: it can't be read. What was counted of it is unknown, so none of the past is counted.
        """
        instance = self.instances.get(instance_id)
        if record is None:
            if instance is not None:
                lifecycle.count_from(instance, self._clock.steady())
            return
        if isinstance(record, float):
            self._restore_end(instance_id, record)
            return
        if instance is None:
            instance = self._restore_unnamed(instance_id, record)
        elif record.removed_at is None and record.shown:
            self.changed.discard(instance_id)  # the state holds what follows
        if instance is not None:
            self._take_record(instance, record)
            if instance.has_series:
                self.show(instance)

    def _take_record(
        self, instance: Instance, record: InstanceRecord, *, scope: Scope | None = None
    ) -> None:
        lists_at = self.last_pass_began()
        lifecycle.restore(
            instance, record, scope=scope, now=self._clock.now(), list_pass_at=lists_at
        )

    def _restore_end(self, instance_id: str, end: float) -> None:
        instance = self.instances.get(instance_id)
        if end >= self.horizon:
            self.ends[instance_id] = end
        elif instance is None:
            self.changed.add(instance_id)
        if instance is not None:
            lifecycle.count_from(instance, self.since_of(instance_id))

    def _restore_unnamed(self, instance_id: str, record: InstanceRecord) -> Instance | None:
        """Has what isn't configured in its place; the instance, if it is watched."""
        removed_at = record.removed_at
        if removed_at is None and not (self._selector and self._selector.takes_id(instance_id)):
            removed_at = self._clock.steady()
            self.changed.add(instance_id)
        if record.run is None:
            self.changed.add(instance_id)
            self._never_seen(instance_id, record.since)
        elif self._is_over(removed_at):
            self.changed.add(instance_id)
            self.expire_ends(removed_at)
        elif removed_at is not None:
            self._removed[instance_id] = replace(record, removed_at=removed_at)
        else:
            self.instances[instance_id] = Instance(instance_id, Scope.COUNTED, record.since)
        return self.instances.get(instance_id)
