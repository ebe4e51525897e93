"""Discovery: the lists of one workflow's instances, read sweep by sweep.

Lists are the cheap look, 100 instances a call. A sweep reads either everything or, where ended
instances outnumber the live ones, the live statuses one by one and what was created since the last
sweep; what was live and is in neither gets a call of its own. Nobody is shown twice, and who is
missed while moving from one list to another is found by that call or the next sweep.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Iterator
from datetime import UTC, datetime
from math import ceil, inf

import structlog

from exporter.clock import Clock
from exporter.cloudflare.errors import RequestFailed
from exporter.cloudflare.models import Row, unix
from exporter.config.accounts import is_instance_id
from exporter.config.settings import Poll
from exporter.statuses import ENDED, LIVE
from exporter.watch.instance import Instance
from exporter.watch.list_reader import Lister, ListReader
from exporter.watch.list_rows import has_times, take_row
from exporter.watch.poll_queue import Urgency
from exporter.watch.poll_reason import PollReason
from exporter.watch.poller import Poller
from exporter.watch.selector import Selector
from exporter.watch.series_cap import SeriesCap
from exporter.watch.sink import Sink
from exporter.watch.tracker import same_time

log = structlog.get_logger(__name__)

# Rows may appear in lists so many seconds after they were created.
_LATE = 60.0
# For so long a clock may be ahead before what comes is taken for history.
_QUIET = 7 * 86400.0
# How much dearer a sweep over everything may be than one by status: it misses nobody.
_WORTH = 1.3


class Discovery:
    """What lists tell of one workflow's instances.

    Args:
        poller: Holds the instances, and looks at those that moved.
        selector: Which are shown.
        backfill: Whether what ended before instances were first discovered counts, too.
    """

    def __init__(
        self,
        poller: Poller,
        selector: Selector,
        *,
        lister: Lister,
        sink: Sink,
        poll: Poll,
        backfill: bool,
        clock: Clock,
    ) -> None:
        self.poller = poller
        self.pass_done = False
        """Whether a sweep was made, whatever came of it."""
        self.counts: dict[str, int] | None = None
        """The platform's counts by status, if it told any."""
        self._state = poller.state
        if self._state.discovered_since is None:
            self._state.discovered_since = clock.steady()
        self._places = SeriesCap(poller.state, selector, sink=sink, poll=poll, clock=clock)
        self._lists = ListReader(
            self._state.key.workflow,
            lister,
            turn=poller.page_turn,
            take=self._take,
            over=lambda: poller.over,
            sink=sink,
            clock=clock,
        )
        self._sink = sink
        self._poll = poll
        self._backfill = backfill
        self._clock = clock
        self._newest = -inf
        """Unix time of the newest thing that a row told, by Cloudflare's clock."""
        self._pass = 0
        self._whole_pass_at = -inf

    def reselect(self) -> None:
        """Applies a selector that is new to the restored instances."""
        self._places.reselect()

    @property
    def _selector(self) -> Selector:
        return self._places.selector

    @property
    def progress(self) -> float:
        """When a page was last read, or refused (monotonic clock)."""
        return self._lists.progress

    @property
    def _now(self) -> float:
        """Unix time; where this machine's clock is behind, that of the newest thing in lists."""
        return max(self._clock.steady(), self._newest)

    @property
    def _since(self) -> float:
        """Unix time; what ended before it is history and not counted."""
        return -inf if self._backfill else self._state.discovered_since or -inf

    async def list_pass(self) -> int:
        """Reads the lists once; the number of pages that took."""
        self._pass += 1
        if self._pass == 1:
            self._resume()
        self._places.pass_begins()
        started, wall = self._clock.monotonic(), self._clock.steady()
        # The clock may have been ahead.
        self._state.discovered_since = min(self._state.discovered_since or wall, wall)
        self._state.lists_as_of = self._lists_as_of(started)
        whole = self._whole_is_due()
        ended_too = whole or started - self._whole_pass_at >= self._poll.ended_interval
        lists = [{}] if whole else self._by_status(wall)
        if ended_too and not whole:
            lists += [{"status": status} for status in sorted(self._selector.ended_statuses)]
        failures: list[RequestFailed] = []
        pages = 0
        for read in await asyncio.gather(*map(self._lists.read, lists), return_exceptions=True):
            if isinstance(read, RequestFailed):
                failures.append(read)
            elif isinstance(read, BaseException):
                raise read
            else:
                pages += read
        if not failures and not whole:
            try:
                pages += await self._read_missed()
            except RequestFailed as failure:
                failures.append(failure)
        self.pass_done = True
        self.poller.pass_failure = failures[0] if failures else None
        if not failures and not self.poller.over:
            if ended_too:
                self._whole_pass_at = started
            self._after(wall, ended_too=ended_too)
        self._state.lists_as_of = self._lists_as_of(started)
        return max(1, pages)

    def _lists_as_of(self, began: float) -> float | None:
        """When the pass began that tells of all instances: this one, unless one has failed."""
        failed = not self.pass_done or self.poller.pass_failure is not None
        return self._state.last_pass_began() if failed else began

    def _resume(self) -> None:
        """Goes on with what was put off when the exporter stopped."""
        self._forget_ends()
        for instance in list(self._state.instances.values()):
            if not instance.configured and instance.wants_detail:
                self._want(instance)

    def _whole_is_due(self) -> bool:
        """Whether everything is read: for history that counts, and where it is about as cheap."""
        if self.counts is None or (self._state.last_pass is None and self._backfill):
            return True
        pages = ceil(sum(self.counts.values()) / 100)
        by_status = 1 + sum(
            ceil(count / 100) for status, count in self.counts.items() if status not in ENDED
        )
        return pages <= by_status * _WORTH

    def _by_status(self, now: float) -> list[dict[str, str]]:
        """The lists of the live, and of what was created since the last sweep that succeeded."""
        counts = self.counts or {}
        live = [s for s in dict.fromkeys((*LIVE, *counts)) if s not in ENDED and counts.get(s)]
        last = self._state.last_pass or self._state.discovered_since or now
        recent = min(now, last) - _LATE
        return [
            *({"status": s} for s in live if s not in self._lists.refused_statuses),
            _created_since(recent),
        ]

    async def _read_missed(self) -> int:
        """Lists what was created since some of the missed were, where that saves calls.

        Of runs that live for minutes, many end between two sweeps: a page of the newest instances
        tells the ends of up to 100 of them, a call of its own that of one.
        """
        known = self._state.instances.values()
        created = sorted(i.created for i in known if i.created is not None)
        missed = sorted((i.created for i in self._missed() if i.created is not None), reverse=True)
        best, since, shards = 0.0, None, self._state.share.shard.count
        for count, moment in enumerate(missed, start=1):
            # Of what a list holds, this shard knows its share.
            pages = 1 + (len(created) - bisect_left(created, moment)) * shards / 100
            if count - pages > best:
                best, since = count - pages, moment
        return 0 if since is None else await self._lists.read(_created_since(since))

    def _missed(self) -> Iterator[Instance]:
        """Live ones that the lists of this sweep don't hold."""
        for instance in self._state.instances.values():
            if (
                not instance.configured
                and instance.counts_as_live
                and instance.seen_in_pass < self._pass
            ):
                yield instance

    def _take(self, row: Row) -> None:
        if self.poller.over:
            return
        if not row.status or not row.id or not is_instance_id(row.id):
            self._sink.ignored_row()
            return
        times = (row.created_on, row.modified_on, row.ended_on)
        self._newest = max(self._newest, *(unix(time) or -inf for time in times))
        if not self._selector.takes_id(row.id) or not self._state.share.has(row.id):
            return
        instance = self._state.instances.get(row.id)
        if instance is None:
            self._take_new(row.id, row.status, row)
        elif not instance.configured:
            if instance.not_found and instance.live:
                # It is there, whatever looks say.
                again = self._clock.monotonic() + self._poll.ended_interval
                instance.expires_at, instance.due = None, min(instance.due, again)
            instance.seen_in_pass = self._pass
            instance.checked_at = self._clock.monotonic()
            self._take_known(instance, row)

    def _take_new(self, instance_id: str, status: str, row: Row) -> None:
        taken = self._selector.takes(status, unix(row.ended_on), self._now)
        ended = status in ENDED
        if ended and not taken and self._is_history(instance_id, row):
            return
        instance = self._state.begin(instance_id, configured=False, since=self._since, shown=False)
        instance.seen_in_pass, instance.checked_at = self._pass, self._clock.monotonic()
        if not self._note(instance, row):
            self._places.choose(instance, self._now)
        if instance.shown or ended:
            self._want(instance)

    def _take_known(self, instance: Instance, row: Row) -> None:
        modified = unix(row.modified_on)
        if instance.modified is not None and modified is not None:
            if modified < instance.modified:
                return  # from a replica that is behind
            if modified == instance.modified and row.status == instance.row_status:
                return
        elif row.status == instance.row_status:
            return
        told = self._note(instance, row)
        if instance.shown or not instance.live or not told:
            self._want(instance)

    def _note(self, instance: Instance, row: Row) -> bool:
        """Takes what a row tells, but steps; False when only a call can tell which run this is."""
        self._state.changed.add(instance.id)
        instance.created, instance.modified = unix(row.created_on), unix(row.modified_on)
        instance.row_status = row.status
        if not has_times(row):
            return False
        now = self._clock.steady()
        taken = take_row(instance.run, instance.values, row, now=now, since=instance.since)
        if taken is None:
            return False
        instance.take(taken.run, taken.values, at=self._clock.wall())
        self._places.choose(instance, self._now)
        if taken.observations:
            self._sink.counted(self._state.key, instance.id, taken.observations)
        if instance.shown:
            self._state.show(instance)
        return True

    def _want(self, instance: Instance, urgency: Urgency | None = None) -> None:
        instance.wants_detail = True
        self._state.changed.add(instance.id)
        if instance.failure is not None:
            return  # it is polled again after its pause
        if urgency is None:
            # A live one shows its status from the row; steps can wait, what ended can't for ever.
            status = instance.row_status
            known = status not in ENDED and instance.values is not None
            urgency = Urgency.LIVE if known else Urgency.CHANGED
            if status == "errored" and instance.is_news:
                urgency = Urgency.ERRORED
        why = PollReason.MISSED if urgency is Urgency.MISSED else PollReason.ROW
        self.poller.want(instance, urgency, why if instance.tried else PollReason.FIRST)

    def _after(self, started: float, *, ended_too: bool) -> None:
        """Ends a sweep that succeeded: who was in no list, and who is too old?"""
        self._places.recount()
        for instance in self._state.instances.values():
            if instance.configured:
                continue
            was_shown = instance.shown
            self._places.choose(instance, self._now)
            if instance.shown and not was_shown:
                self._state.show(instance)
            if instance.shown and not instance.fingerprints.seen and not instance.wants_detail:
                self._want(instance)  # all that is known of it comes from rows
            ended_unseen = ended_too and instance.shown and not instance.live
            if ended_unseen and instance.seen_in_pass < self._pass and instance.expires_at is None:
                self._want(instance, Urgency.MISSED)  # deleted, perhaps, or restarted
        for instance in self._missed():
            # It moved from list to list as they were read, or it ended.
            self._want(instance, Urgency.MISSED)
        self._state.last_pass = started
        self._places.pass_ends()
        self._forget_ends()

    def _forget_ends(self) -> None:
        """Of what ended long before the last sweep, every end was seen."""
        if self._state.last_pass is not None:
            # Long before the newest, too: a clock that is ahead makes no history of what comes.
            last = self._state.last_pass
            seen = min(last, max(self._newest, last - _QUIET))
            # A longer poll.forget_after brings back nothing of what is forgotten.
            self._state.forget_ends(seen - self._poll.forget_after - _LATE)

    def _is_history(self, instance_id: str, row: Row) -> bool:
        """Whether the end of an unknown instance was counted already, or never is to be."""
        end = unix(row.ended_on)
        if end is None:
            # It tells no times: history on the first sweep, and what is known of it afterwards.
            created = unix(row.created_on) or 0.0
            counted = self._state.ends.get(instance_id, -inf)
            return created < self._since_of(instance_id) or created <= counted
        known = self._state.ends.get(instance_id)
        if known is not None and same_time(known, end):
            return True
        return end < self._since_of(instance_id)

    def _since_of(self, instance_id: str) -> float:
        """Unix time before which an end of an instance unknown till now isn't to be counted."""
        return max(self._since, self._state.since_of(instance_id))


def _created_since(moment: float) -> dict[str, str]:
    """Parameters of a list of what was created since a Unix time."""
    return {"date_start": datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
