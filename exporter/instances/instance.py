"""One watched instance: what is known of it, when it is polled, and when its series expire.
`Effects` says what the caller of a transition has to do.

This is data only, and `lifecycle` alone writes an `Instance`.
"""

from enum import Enum, StrEnum, auto
from math import inf
from typing import Literal, NamedTuple

from msgspec import Struct

from exporter.clock import Moment
from exporter.cloudflare.errors import RequestFailed
from exporter.config.settings import Poll
from exporter.instances.run import APART, Observations, Run
from exporter.instances.state_records import InstanceRecord, LastRow
from exporter.instances.urgency import Urgency
from exporter.instances.values import InstanceValues
from exporter.statuses import ENDED


class Scope(Enum):
    """Why an instance is watched, and whether it has series."""

    CONFIGURED = auto()
    """The configuration names it; it has series."""
    DISCOVERED = auto()
    """A list held it, and it has series."""
    COUNTED = auto()
    """A list held it. Its runs and steps are counted, and it has no series."""


class PollReason(StrEnum):
    """Why a request for an instance was made, in the words of its page."""

    FIRST = "first poll since the exporter started"
    DUE = "poll interval"
    AGAIN = "retry after a failed poll"
    CHANGED = "a simple response showed a change"
    REFRESH = "regular detail request, as only those show retries inside an open step"
    ROW = "its list row changed"
    MISSED = "missing from the lists"
    CONTROL = "all others failed; checks whether every poll does"
    EVENT = "an event announced a change"
    SPARE = "spare request budget"


class PollRequest(Struct, frozen=True, gc=False):
    """A request for one instance."""

    at: float
    """When its poll began (monotonic clock)."""
    kind: Literal["simple", "detail"]
    """The kind that `polls_total` shows."""
    reason: PollReason


class Pending(Struct, frozen=True, gc=False):
    """A poll that waits for its turn at the budget."""

    urgency: Urgency
    reason: PollReason


class LastPoll(Struct, frozen=True, gc=False):
    """How the last poll of an instance ended."""

    request: PollRequest | None = None
    """The last request of the poll; None if there was no poll since the exporter started."""
    failure: RequestFailed | None = None
    not_found: int = 0
    """How many polls in a row, this one included, found that the instance doesn't exist."""


class Instance(Struct, eq=False, gc=False):
    """One instance. Times are of the monotonic clock unless a field says otherwise.

    `gc=False` spares the garbage collector tens of thousands of them. That is safe, because nothing
    that an instance holds refers back to it.
    """

    id: str
    scope: Scope
    poll: Poll
    """How often it is polled; fixed for as long as its workflow is attached."""
    since: float
    """Unix time. What ended before is history and not counted."""
    due: float = inf
    """When it is polled next; inf: when a list shows that it has changed."""
    activity: Pending | PollRequest | None = None
    """Its poll that waits for a turn, or its request that is under way; None: neither."""
    wants_detail: bool = False
    """Whether its next request is to be a detail request, whatever a simple one would show."""
    detail_after: float = -inf
    """Until then, since the last response was large, progress alone causes no detail request."""
    detailed_at: float = -inf
    """When the poll began that brought the last detail response; -inf: its steps aren't known."""
    checked_at: float = -inf
    """When a row or a response last showed its status."""
    last_poll: LastPoll = LastPoll()
    row: LastRow = LastRow()
    """What its last list row showed."""
    run: Run | None = None
    """Its current run; None until a row with times or a detail response has shown one."""
    values: InstanceValues | None = None
    """What its series show; None: nothing is known yet, or its series have expired."""
    timeline: bytes | None = None
    """Its latest steps, packed; None before a detail response."""
    last_change: float = 0.0
    """Unix time at which its values last changed."""
    expires_at: float | None = None
    """When its series expire, and what is known of it is dropped, except what was counted."""

    @property
    def configured(self) -> bool:
        return self.scope is Scope.CONFIGURED

    @property
    def has_series(self) -> bool:
        return self.scope is not Scope.COUNTED

    @property
    def request(self) -> PollRequest:
        """The request that is under way; there must be one."""
        assert isinstance(self.activity, PollRequest), "only a request has a response"
        return self.activity

    @property
    def failure(self) -> RequestFailed | None:
        """Why the last poll failed; None if it succeeded, or found that the instance doesn't
        exist."""
        return self.last_poll.failure

    @property
    def lacks_detail(self) -> bool:
        """Whether it is known, and its last poll failed at a detail request: simple ones may
        succeed."""
        failed = self.last_poll.request if self.failure is not None else None
        return self.values is not None and failed is not None and failed.kind == "detail"

    @property
    def detailed(self) -> bool:
        """Whether its steps are known, as of a detail response."""
        return self.detailed_at > -inf

    @property
    def created(self) -> float | None:
        """Unix time at which it was created or, until a list has shown that, its run was queued."""
        return self.row.created or (self.run.queued if self.run else None)

    @property
    def live(self) -> bool:
        return self.run is not None and self.run.status not in ENDED

    @property
    def has_ended(self) -> bool:
        return self.run is not None and self.run.status in ENDED

    @property
    def status(self) -> str | None:
        """The status in its values or, without values, in its last row; None: none is known, or its
        series have expired."""
        return self.values.status if self.values else self.row.status

    @property
    def counts_as_live(self) -> bool:
        """Whether it is live, as far as is known, and its series are not about to expire."""
        known = self.status is not None and self.expires_at is None
        return known and self.status not in ENDED

    @property
    def row_is_newer(self) -> bool:
        """Whether its row is newer than everything that detail responses have shown."""
        run, modified = self.run, self.row.modified
        return run is not None and modified is not None and run.newest + APART < modified

    @property
    def is_behind(self) -> bool:
        """Whether its values have another status than its row, and the row is newer."""
        return not self.configured and self.row_is_newer and self.row.status != self.status

    def steps_can_wait(self, at: float) -> bool:
        """Whether progress alone is no reason for a detail request at this moment."""
        return at < self.detail_after and self.live

    @property
    def is_news(self) -> bool:
        """Whether its end is not history; an end that isn't known counts as news."""
        end = self.run.end if self.run else None
        return end is None or end >= self.since

    def record(self, now: Moment) -> InstanceRecord:
        """What the state holds of it, for after a restart."""
        offset = now.unix - now.monotonic
        return InstanceRecord(
            since=self.since,
            shown=self.has_series,
            run=self.run,
            values=self.values,
            last_change=self.last_change,
            detailed_at=self.detailed_at + offset,
            wants_detail=self.wants_detail,
            not_found=self.last_poll.not_found,
            expires_at=None if self.expires_at is None else self.expires_at + offset,
            row=self.row,
        )


class Effects(NamedTuple):
    """What the caller of a transition has to do."""

    record: bool = False
    """Write its record to the state."""
    show: bool = False
    """Show its values, if it has series."""
    observations: Observations | None = None
    """Count these."""
    backfilled: bool = False
    """They are of a run that had ended long before the instance was first polled."""
    needs_detail: bool = False
    """Request a detail: only that shows which run the row is about."""
    repeats: bool = False
    """Fetch no steps: a detail response has already shown this end, with all of them."""
    hide: bool = False
    """Remove its series."""
    remove: bool = False
    """Stop watching it. What was counted of its run stays known."""
    skipped: bool = False
    """Count that it ended, and its steps were not fetched after that."""


NOTHING = Effects()
