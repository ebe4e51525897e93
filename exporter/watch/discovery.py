"""Discovery: the lists of one workflow's instances, read one list pass after another.

Lists are the cheap poll, 100 instances a request. A pass reads either everything or, where ended
instances outnumber the live ones, the live statuses one by one and what was created since the last
pass; what was live and is in neither gets a poll of its own. None is shown twice, and what is
missed while moving from one list to another is found by that poll or the next pass. Runs end from
the lists that are read last: few ends are older than a pass when it shows them.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil, inf

from exporter.cloudflare.errors import RequestFailed
from exporter.cloudflare.models import Row, latest, unix
from exporter.config.accounts import is_instance_id
from exporter.instances import lifecycle
from exporter.instances.instance import Instance, Pending, Scope
from exporter.instances.state_records import InstanceRecord
from exporter.state.backend import NotRestored
from exporter.state.writer import StateWriter
from exporter.statuses import ENDED, LIVE, RESTING
from exporter.watch.event_coverage import EventCoverage, kind_of
from exporter.watch.list_reader import ListReader
from exporter.watch.poller import Poller
from exporter.watch.selector import Selector
from exporter.watch.series_limit import SeriesLimit
from exporter.watch.watched_instances import LATE

# How much more a pass over everything may cost than one by status: it misses none.
_WORTH = 1.3


@dataclass(eq=False)
class Discovery:
    """What lists show of one workflow's instances.

    Attributes:
        poller: Holds the instances, and polls those that changed.
        selector: Which have series.
        writer: Holds what is recorded of instances that aren't watched.
        coverage: Of the account's events; None: there are none.
    """

    poller: Poller
    selector: Selector
    writer: StateWriter
    coverage: EventCoverage | None

    def __post_init__(self) -> None:
        self._watched = watched = self.poller.watched
        self._store, self._poll, self._clock = watched.store, watched.poll, watched.clock
        self._record = watched.record
        if self._record.discovered_since is None:
            self._record.discovered_since = self._clock.steady()
        self.series_limit = SeriesLimit(watched, self.selector)
        """Which instances have series."""
        self.lists = ListReader(self.poller, self._take)
        self.counts: dict[str, int] | None = None
        """The platform's counts by status, if it has any."""
        self._left_out = False
        """Whether rows were left out in this pass, since the state couldn't be read."""
        self._whole_pass_at = -inf

    async def begin_announced(self, instance_id: str) -> Instance | None:
        """Begins with an instance that an event announced before a list did; None: the selector
        doesn't take its id.

        Raises:
            NotRestored: the state can't be read now.
        """
        if not self.selector.takes_id(instance_id):
            return None
        known = await self.writer.records(self._watched.key, [instance_id])
        if self._watched.over:
            raise NotRestored("it was detached meanwhile")
        if instance_id not in self._watched.instances:
            self._watched.begin(instance_id, Scope.COUNTED, known.get(instance_id))
        return self._watched.instances[instance_id]

    async def read_before_first_pass(self) -> None:
        """Reads the lists from which runs end, the first time ever.

        What ends after that, while the lists of other workflows are read, is in no list of the
        first pass: it is missed, and counted.
        """
        first = self._record.last_pass is None and not self._watched.pass_done
        if first and not self._whole_is_due():
            await self._read(self._live_lists(resting=False))  # the list pass reports what fails

    async def list_pass(self) -> None:
        """Reads the lists once."""
        self._left_out = False
        if not self._watched.pass_done:
            await self._resume()
        self.series_limit.recount()
        started, wall = self._clock.monotonic(), self._clock.steady()
        # The clock may have been ahead then, and be behind now.
        since = self._record.discovered_since or wall
        self._record.discovered_since = min(since, self._clock.latest())
        self._watched.pass_began = started
        whole = self._whole_is_due()
        ended_too = whole or started - self._whole_pass_at >= self._poll.ended_interval
        if whole:
            failures = await self._read([{}])
        else:
            ended = sorted(self.selector.ended_statuses) if ended_too else []
            last = min(wall, self._record.last_pass or self._record.discovered_since)
            others = [_created_since(last - LATE), *map(_of_status, ended)]
            failures = await self._read(self._live_lists(resting=True))
            failures += await self._read(self._live_lists(resting=False) + others)
            if not failures:
                failures = await self._read(self._missed_lists())
        self._watched.pass_done = True
        self._watched.pass_failure = failures[0] if failures else None
        if not failures and not self._watched.over:
            if ended_too and not self._left_out:
                self._whole_pass_at = started
            await self._after(wall, ended_too=ended_too)
        await self.poller.report()

    async def _read(self, lists: Sequence[dict[str, str]]) -> list[RequestFailed]:
        """Reads lists side by side, each as far as that succeeds; what failed."""
        if self._watched.over:
            return []
        async with asyncio.TaskGroup() as group:
            reads = [group.create_task(self.lists.read(parameters)) for parameters in lists]
        return [failure for read in reads if (failure := read.result()) is not None]

    async def _resume(self) -> None:
        """Continues with what was put off when the exporter stopped."""
        async for instance in self._watched.each():
            if not instance.configured and instance.wants_detail:
                self.poller.put(instance, lifecycle.request_detail(instance))

    def _whole_is_due(self) -> bool:
        """Whether everything is read: for history that counts, and where it is about as cheap."""
        if self.counts is None or (self._record.last_pass is None and self._watched.backfill):
            return True
        pages = ceil(sum(self.counts.values()) / 100)
        by_status = 1 + sum(
            ceil(count / 100) for status, count in self.counts.items() if status not in ENDED
        )
        return pages <= by_status * _WORTH

    def _live_lists(self, *, resting: bool) -> list[dict[str, str]]:
        """The lists of the live: of those that rest, or of the others."""
        counts = self.counts or {}
        left_out = ENDED | self.lists.refused_statuses
        live = [s for s in dict.fromkeys((*LIVE, *counts)) if counts.get(s) and s not in left_out]
        return [_of_status(s) for s in live if (s in RESTING) == resting]

    def _missed_lists(self) -> list[dict[str, str]]:
        """The list of what was created since some of the missed were, where that saves requests.

        Of runs that live for minutes, many end between two passes: a page of the newest instances
        shows the ends of up to 100 of them, a poll that of one.
        """
        known = self._watched.instances.values()
        created = sorted(i.row.created for i in known if i.row.created is not None)
        unseen = (i for i in known if i.counts_as_live and self._is_unseen(i))
        missed = [i.row.created for i in unseen if i.row.created is not None]
        best, since = 0.0, None
        for count, moment in enumerate(sorted(missed, reverse=True), start=1):
            pages = 1 + (len(created) - bisect_left(created, moment)) / 100
            if count - pages > best:
                best, since = count - pages, moment
        return [] if since is None else [_created_since(since)]

    def _is_unseen(self, instance: Instance) -> bool:
        """Whether neither a list nor a poll has shown it since the pass began."""
        return not instance.configured and instance.checked_at < self._watched.pass_began

    async def _take(self, rows: list[Row]) -> None:
        """Takes the rows of a page, of those that may be recorded with what the state holds."""
        self._watched.correct_times(*rows)
        for row in rows:
            times = (row.created_on, row.modified_on, row.ended_on)
            self._watched.newest_row = max(self._watched.newest_row, unix(latest(times)) or -inf)
        unknown = [row.id for row in rows if row.id and self._may_be_recorded(row)]
        known: Mapping[str, InstanceRecord] = {}
        try:
            if unknown:
                known = await self.writer.records(self._watched.key, unknown)
        except NotRestored:
            self._left_out = True
            rows = [row for row in rows if row.id not in unknown]
        for row in () if self._watched.over else rows:
            self._take_row(row, known.get(row.id or ""))

    def _may_be_recorded(self, row: Row) -> bool:
        """Whether the state may hold something of an instance that isn't watched, and it matters:
        most that are new were created later than any that the state holds."""
        created = unix(row.created_on)
        if self._watched.over or not row.id or not row.status or row.id in self._watched.instances:
            return False
        if created is not None and created > self._record.newest_unwatched:
            return False
        return self.selector.takes_id(row.id) and not self._is_passed_over(row)

    def _is_passed_over(self, row: Row) -> bool:
        """Whether the row of an instance that isn't watched shows nothing to count or to show."""
        end = unix(row.ended_on)
        if row.status not in ENDED or self.selector.takes(row.status or "", end, self._watched.now):
            return False
        # Without times it is history on the first pass, and what is known of it afterwards.
        moved = unix(row.created_on) or 0.0 if end is None else end
        return moved < self._watched.since_of()

    def _take_row(self, row: Row, known: InstanceRecord | None) -> None:
        if not row.status or not row.id or not is_instance_id(row.id):
            self._store.ignored()
            return
        if not self.selector.takes_id(row.id):
            return
        instance = self._watched.instances.get(row.id)
        if instance is None:
            if self._is_passed_over(row):
                return
            instance = self._watched.begin(row.id, Scope.COUNTED, known)
            if instance.wants_detail:  # as when it was removed
                self._put(instance, lifecycle.request_detail(instance))
        if instance.configured:
            self.poller.put(instance, lifecycle.on_configured_row(instance, row.status))
            return
        before = instance.row.status
        effects = self._watched.apply(lifecycle.on_row, instance, row)
        if not effects.record:
            return
        kind = kind_of(before, row.status)
        # What changed before the first pass wasn't announced to this process, perhaps.
        if self.coverage and kind and row.status != before and self._watched.pass_done:
            self.coverage.found(self._watched.key.workflow, row.id, kind, self._clock.monotonic())
        self.series_limit.choose(instance)
        details_matter = instance.has_series or row.status in ENDED
        if effects.needs_detail or (details_matter and not effects.repeats):
            self._put(instance, lifecycle.request_detail(instance))

    def _put(self, instance: Instance, pending: Pending | None) -> None:
        self._watched.changed.add(instance.id)
        self.poller.put(instance, pending)

    async def _after(self, started: float, *, ended_too: bool) -> None:
        """Ends a list pass that succeeded: what was in no list, and what is too old?"""
        self.series_limit.recount()
        async for instance in self._watched.each():
            if instance.configured:
                continue
            self.series_limit.choose(instance)
            if instance.has_series and not (instance.detailed or instance.wants_detail):
                # Rows don't have its steps.
                self._put(instance, lifecycle.request_detail(instance))
            ended = ended_too and instance.has_series and not instance.live
            listed = instance.counts_as_live or (ended and instance.expires_at is None)
            if listed and self._is_unseen(instance):
                # It moved from list to list as they were read, ended, restarted, or was deleted.
                self._put(instance, lifecycle.on_missing_from_lists(instance))
        if self._watched.over:
            return
        if not self._left_out:  # otherwise the next pass reads the same lists
            self._record.last_pass = started


def _of_status(status: str) -> dict[str, str]:
    """Parameters of the list of one status."""
    return {"status": status}


def _created_since(moment: float) -> dict[str, str]:
    """Parameters of a list of what was created since a Unix time."""
    return {"date_start": datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
