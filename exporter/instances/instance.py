"""The record of one watched instance: what is known of it, and which state its life is in.

Data only. `lifecycle` alone writes it: what happens to an instance, when it is polled,
when its series expire. `run_tracker` says what its responses mean for its run and steps, and knows
nothing of polls.
"""

from enum import Enum, IntEnum, StrEnum, auto
from math import inf
from typing import Literal

from msgspec import Struct

from exporter.clock import Moment
from exporter.cloudflare.errors import RequestFailed
from exporter.config.settings import Poll
from exporter.instances.run_tracker import APART, Run
from exporter.instances.state_records import InstanceRecord, LastRow
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


class Urgency(IntEnum):
    """What a turn at the budget is for. Within one urgency, first come, first served."""

    ERRORED = 0
    MISSED = 1
    """It was live and is in no list any more: its status isn't known until it is polled."""
    CONFIGURED = 2
    """Named in the configuration, and due."""
    PAGE = 3
    """A page of a list: it shows the statuses of 100 instances."""
    CHANGED = 4
    LIVE = 5


class PollReason(StrEnum):
    """What made a request for one instance due, as its page shows it."""

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
    """On the monotonic clock."""
    kind: Literal["simple", "detail"]
    """As in `polls_total`."""
    reason: PollReason


class Pending(Struct, frozen=True, gc=False):
    """A poll that waits for its turn at the budget."""

    urgency: Urgency
    reason: PollReason


class LastPoll(Struct, frozen=True, gc=False):
    """What the last poll came to."""

    request: PollRequest | None = None
    """Its last request; None before the first poll since the exporter started."""
    failure: RequestFailed | None = None
    not_found: int = 0
    """Polls in a row, this one included, that found that the instance doesn't exist."""


_NO_POLL, _NO_ROW = LastPoll(), LastRow()


class Instance(Struct, eq=False, gc=False):
    """One instance. Times are of the monotonic clock where nothing else is said.

    Tens of thousands of them are no work for the garbage collector: neither they nor what they
    hold refer back to them.
    """

    id: str
    scope: Scope
    poll: Poll
    """How often it is polled; fixed for as long as its workflow is attached."""
    since: float
    """Unix time. What ended before is history and not counted."""
    due: float = inf
    """When it is polled next; inf: once a list shows that it moved."""
    activity: Pending | PollRequest | None = None
    """Its poll that waits, or the request that is under way; None: idle."""
    wants_detail: bool = False
    """Whether its next request is a detail request, whatever a simple one would show."""
    detail_after: float = -inf
    """Until then progress alone is no reason for a detail request: the last response was large."""
    detailed_at: float = -inf
    """When the last poll began that brought a detail response; -inf: its steps aren't known."""
    checked_at: float = -inf
    """When a row or a response last showed its status."""
    last_poll: LastPoll = _NO_POLL
    row: LastRow = _NO_ROW
    run: Run | None = None
    """None until a row with times or a detail response showed one."""
    values: InstanceValues | None = None
    """What its series show. None: nothing was seen of it yet, or its series expired."""
    timeline: bytes | None = None
    """Its latest steps, packed; None before a detail response."""
    last_change: float = 0.0
    """Unix time at which its values last changed."""
    expires_at: float | None = None
    """When its series expire, and all that is known of it but what was counted."""

    @property
    def configured(self) -> bool:
        return self.scope is Scope.CONFIGURED

    @property
    def has_series(self) -> bool:
        return self.scope is not Scope.COUNTED

    @property
    def request(self) -> PollRequest:
        """The one that is under way; there must be one."""
        assert isinstance(self.activity, PollRequest), "only a request has a response"
        return self.activity

    @property
    def failure(self) -> RequestFailed | None:
        """Of the last poll; None when it succeeded, or found that the instance doesn't exist."""
        return self.last_poll.failure

    @property
    def awaits_first_poll(self) -> bool:
        """Whether it is configured and was never polled since the exporter started."""
        return self.configured and self.last_poll.request is None

    @property
    def detailed(self) -> bool:
        """Whether its steps are known, as of a detail response."""
        return self.detailed_at > -inf

    @property
    def live(self) -> bool:
        return self.run is not None and self.run.status not in ENDED

    @property
    def has_ended(self) -> bool:
        return self.run is not None and self.run.status in ENDED

    @property
    def status(self) -> str | None:
        """As the last response or, before one, the last row has it; None: nothing was seen of it
        yet, or its series expired."""
        return self.values.status if self.values else self.row.status

    @property
    def counts_as_live(self) -> bool:
        """Whether it is live, as far as is known, and its series don't expire."""
        return (self.status or "complete") not in ENDED and self.expires_at is None

    @property
    def row_is_newer(self) -> bool:
        """Whether its row changed after anything that the last detail response shows."""
        run, modified = self.run, self.row.modified
        return run is not None and modified is not None and run.newest + APART < modified

    @property
    def is_behind(self) -> bool:
        """Whether it shows another status than its row, which is newer."""
        return not self.configured and self.row_is_newer and self.row.status != self.status

    def steps_can_wait(self, at: float) -> bool:
        """Whether, at this moment, progress alone is no reason for a detail request."""
        return at < self.detail_after and self.live

    @property
    def is_news(self) -> bool:
        """Whether it ended since it is watched, as far as is known."""
        end = self.run.end if self.run else None
        return end is None or end >= self.since

    def record(self, now: Moment) -> InstanceRecord:
        """What of it outlives a restart."""
        ahead = now.wall - now.monotonic
        return InstanceRecord(
            since=self.since,
            shown=self.has_series,
            run=self.run,
            values=self.values,
            last_change=self.last_change,
            detailed_at=self.detailed_at + ahead,
            wants_detail=self.wants_detail,
            not_found=self.last_poll.not_found,
            expires_at=None if self.expires_at is None else self.expires_at + ahead,
            row=self.row,
        )
