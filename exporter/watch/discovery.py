"""Discovery: list passes over the instances of one workflow.

Lists are the cheap way to poll: one request shows 100 instances. A pass reads a single list of all
instances or, where ended instances outnumber the live ones, a list for each live status and one of
what was created since the last pass. An instance may move between lists while they are read. If it
was live and is in none of them, it gets a poll of its own. Runs end in the statuses whose lists are
read last, so that a pass shows most ends soon after they happen.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil, inf

from exporter.cloudflare.errors import RequestFailed
from exporter.cloudflare.models import Row
from exporter.cloudflare.pagination import PAGE_SIZE
from exporter.cloudflare.times import latest, unix
from exporter.config.accounts import is_instance_id
from exporter.instances import lifecycle
from exporter.instances.instance import Instance, Scope
from exporter.instances.state_records import InstanceRecord
from exporter.state.backend import NotRestored
from exporter.state.writer import StateWriter
from exporter.statuses import ENDED, LIVE, RESTING
from exporter.watch.event_coverage import EventCoverage, kind_of
from exporter.watch.list_passes import LATE
from exporter.watch.list_reader import ListReader
from exporter.watch.poller import Poller
from exporter.watch.selector import Selector
from exporter.watch.series_limit import SeriesLimit

_WORTH = 1.3
"""How many times as much a pass over everything may cost as one by status: it misses nothing."""


@dataclass(eq=False)
class Discovery:
    """Discovers the instances of one workflow by its lists.

    Attributes:
        poller: Polls the instances that have changed.
        selector: Decides which instances are selected.
        writer: Has the records of instances that aren't watched.
        coverage: How completely events announce changes; None: the account has no events.
    """

    poller: Poller
    selector: Selector
    writer: StateWriter
    coverage: EventCoverage | None

    def __post_init__(self) -> None:
        self._watched = watched = self.poller.watched
        self._poll, self._clock = watched.poll, watched.clock
        self._record = watched.record
        self._began: float | None = None
        """When it was first discovered (monotonic clock); None: before this attachment."""
        if self._record.discovered_since is None:
            self._began = self._clock.monotonic()
            self._record.discovered_since = self._clock.now().steady
        self.series_limit = SeriesLimit(watched, self.selector)
        """Decides which instances have series."""
        self.lists = ListReader(self.poller, self._take)
        self.counts: dict[str, int] | None = None
        """The platform's counts of instances by status; None: not known."""
        self._left_out = False
        """Whether rows of this pass were left out, since the state couldn't be read."""
        self._whole_pass_at = -inf
        """When the last pass began that included ended instances (monotonic clock)."""

    async def begin_announced(self, instance_id: str) -> Instance | None:
        """Begins to watch an instance that an event announced before a list showed it. None if the
        selector doesn't take its id.

        Raises:
            NotRestored: the state can't be read now.
        """
        if not self.selector.takes_id(instance_id):
            return None
        recorded = [] if self._watched.was_removed(instance_id) else [instance_id]
        known = await self.writer.records(self._watched.owner, recorded)
        if self._watched.detached:
            raise NotRestored("it was detached meanwhile")
        instance = self._watched.instances.get(instance_id)
        return instance or self._watched.begin(instance_id, Scope.COUNTED, known.get(instance_id))

    async def read_before_first_pass(self) -> None:
        """Reads the lists of the statuses in which runs end, if there never was a list pass.

        The first pass may come much later, after those of other workflows. A run that ends until
        then is in none of its lists; because this has seen the run live, it is polled, and counted.
        """
        if self._record.last_pass is not None or self._watched.passes.done:
            return
        if self._began is not None:
            # A response has shown Cloudflare's time; this machine's clock may be behind it.
            elapsed = self._clock.monotonic() - self._began
            self._record.discovered_since = self._clock.latest() - elapsed
        if not self._whole_is_due():
            await self._read(self._live_lists(resting=False))  # the pass will report what fails

    async def list_pass(self) -> None:
        """Makes one list pass."""
        self._left_out = False
        self.series_limit.recount()
        started = self._clock.now()
        # The clock may have been ahead then, and be behind now.
        since = self._record.discovered_since or started.steady
        self._record.discovered_since = min(since, self._clock.latest())
        self._watched.passes.began = started.monotonic
        whole = self._whole_is_due()
        ended_too = whole or started.monotonic - self._whole_pass_at >= self._poll.ended_interval
        if whole:
            failures = await self._read([{}])
        else:
            ended = sorted(ENDED.intersection(self.selector.discover.statuses)) if ended_too else []
            last = min(started.steady, self._record.last_pass or self._record.discovered_since)
            others = [_created_since(last - LATE), *({"status": s} for s in ended)]
            failures = await self._read(self._live_lists(resting=True))
            failures += await self._read(self._live_lists(resting=False) + others)
            if not failures:
                failures = await self._read(self._missed_lists())
        self._watched.passes.end(failures)
        if not failures:
            if ended_too and not self._left_out:
                self._whole_pass_at = started.monotonic
            await self._finish(started.steady, ended_too=ended_too)
        await self.poller.report()

    async def _read(self, lists: Sequence[dict[str, str]]) -> list[RequestFailed]:
        """Reads lists at the same time, each as far as possible. Returns the failures."""
        async with asyncio.TaskGroup() as group:
            reads = [group.create_task(self.lists.read(parameters)) for parameters in lists]
        return [failure for read in reads if (failure := read.result()) is not None]

    def _whole_is_due(self) -> bool:
        """Whether the pass is to read one list of everything: where that costs about as little as
        lists by status, and for a first pass that counts history."""
        if self.counts is None or (self._record.last_pass is None and self._watched.backfill):
            return True
        pages = ceil(sum(self.counts.values()) / PAGE_SIZE)
        by_status = 1 + sum(
            ceil(count / PAGE_SIZE) for status, count in self.counts.items() if status not in ENDED
        )
        return pages <= by_status * _WORTH

    def _live_lists(self, *, resting: bool) -> list[dict[str, str]]:
        """The lists of the live statuses that have instances: either of those in `RESTING`, or of
        the others."""
        counts = self.counts or {}
        left_out = ENDED | self.lists.refused_statuses
        live = [s for s in dict.fromkeys((*LIVE, *counts)) if counts.get(s) and s not in left_out]
        return [{"status": s} for s in live if (s in RESTING) == resting]

    def _missed_lists(self) -> list[dict[str, str]]:
        """A list of what was created recently, if that shows missing instances for fewer requests
        than a poll of each.

        Many short runs may end between two passes. A page of the newest instances shows the ends of
        up to 100 of them, a poll the end of one. The list begins where it saves the most requests.
        """
        known = self._watched.instances.values()
        created = sorted(i.row.created for i in known if i.row.created is not None)
        unseen = (i for i in known if i.counts_as_live and self._is_unseen(i))
        missed = [i.row.created for i in unseen if i.row.created is not None]
        best, since = 0.0, None
        for count, moment in enumerate(sorted(missed, reverse=True), start=1):
            pages = 1 + (len(created) - bisect_left(created, moment)) / PAGE_SIZE
            if count - pages > best:
                best, since = count - pages, moment
        return [] if since is None else [_created_since(since)]

    def _is_unseen(self, instance: Instance) -> bool:
        """Whether neither a list nor a poll has shown a discovered instance since the pass
        began."""
        return not instance.configured and instance.checked_at < self._watched.passes.began

    async def _take(self, rows: list[Row]) -> None:
        """Takes the rows of a page, after reading the records that the state may have of them."""
        self.poller.correct_times(*rows)
        for row in rows:
            times = (row.created_on, row.modified_on, row.ended_on)
            self._watched.newest_row = max(self._watched.newest_row, unix(latest(times)) or -inf)
        unknown = [row.id for row in rows if row.id and self._may_be_recorded(row)]
        try:
            known = await self.writer.records(self._watched.owner, unknown)
        except NotRestored:
            known, self._left_out = {}, True
            rows = [row for row in rows if row.id not in unknown]
        for row in () if self._watched.detached else rows:
            self._take_row(row, known.get(row.id or ""))

    def _may_be_recorded(self, row: Row) -> bool:
        """Whether the state may have a record of the row's instance that is to be read. Most new
        instances were created later than any that the state has a record of."""
        if not row.id or not row.status or row.id in self._watched.instances:
            return False
        if self._watched.was_removed(row.id):
            return False
        is_newer = (unix(row.created_on) or -inf) > self._record.newest_unwatched
        return not is_newer and self.selector.takes_id(row.id) and not self._is_passed_over(row)

    def _is_passed_over(self, row: Row) -> bool:
        """Whether an instance that isn't watched needn't be: its row shows an end that is neither
        news nor selected."""
        end = unix(row.ended_on)
        if row.status not in ENDED or self.selector.takes(row.status or "", end, self._watched.now):
            return False
        # Without an end, its creation counts; without times, it is history.
        moved = unix(row.created_on) or 0.0 if end is None else end
        return moved < self._watched.since_of()

    def _take_row(self, row: Row, known: InstanceRecord | None) -> None:
        if not row.status or not row.id or not is_instance_id(row.id):
            self.poller.ignored("a row without a status or a valid id")
            return
        instance = self._watched.instances.get(row.id)
        if not self.selector.takes_id(row.id) or (instance is None and self._is_passed_over(row)):
            return
        instance = instance or self._watched.begin(row.id, Scope.COUNTED, known)
        if instance.configured:
            self.poller.put(instance, lifecycle.on_configured_row(instance, row.status))
            return
        before = instance.row.status
        effects = self._watched.apply(lifecycle.on_row, instance, row)
        if not effects.record:
            return
        kind = kind_of(before, row.status)
        # Events of changes before the first pass may have come before this process began.
        if self.coverage and kind and row.status != before and self._watched.passes.done:
            self.coverage.found(self._watched.key.workflow, row.id, kind, self._clock.monotonic())
        self.series_limit.choose(instance)
        details_matter = instance.has_series or row.status in ENDED
        if effects.needs_detail or (details_matter and not effects.repeats):
            pending = lifecycle.request_detail(instance, unclear=effects.needs_detail)
            self.poller.put(instance, pending, record=True)

    async def _finish(self, started: float, *, ended_too: bool) -> None:
        """Ends a list pass that succeeded: chooses again which instances have series, and polls
        those that were in no list.

        Args:
            started: When the pass began, in Unix time.
            ended_too: Whether it included ended instances.
        """
        self.series_limit.recount()
        async for instance in self._watched.each():
            if instance.configured:
                continue
            self.series_limit.choose(instance)
            if instance.has_series and not (instance.detailed or instance.wants_detail):
                # Rows don't have its steps.
                self.poller.put(instance, lifecycle.request_detail(instance), record=True)
            ended = ended_too and instance.has_series and not instance.live
            listed = instance.counts_as_live or (ended and instance.expires_at is None)
            if listed and self._is_unseen(instance):
                # It ended, was restarted or deleted, or moved between lists as they were read.
                pending = lifecycle.on_missing_from_lists(instance)
                self.poller.put(instance, pending, record=True)
        if not self._left_out:  # otherwise the next pass has to read the same lists again
            self._record.last_pass = started


def _created_since(moment: float) -> dict[str, str]:
    """The parameters of the list of what was created since a Unix time."""
    return {"date_start": datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
