"""What is known of one watched instance, and when to look at it."""

from math import inf

from exporter.clock import Clock
from exporter.cloudflare.errors import RequestFailed
from exporter.statuses import ENDED
from exporter.watch.fingerprints import Change, Fingerprints, changes
from exporter.watch.poll_reason import PollReason, PollRequest
from exporter.watch.records import InstanceRecord
from exporter.watch.tracker import APART, InstanceValues, Run


class Instance:
    """One instance. Times are of the monotonic clock where nothing else is said.

    Attributes:
        configured: Listed in the configuration; others were discovered.
        shown: Has series; what no selector takes is only counted.
        since: Unix time; what ended before it is history and not counted.
        due: When to look at it; inf: when a list says that it moved.
        busy: A look waits for its turn or is under way.
        waits: How urgently, while a look waits for its turn.
        detail_after: Until then, progress alone is no reason for a full answer: the last was large.
        wants_detail: The next look is a full one, whatever a simple one would say.
        last_change: Unix time.
        changed: What moved then.
        why: What the look that waits or is under way is for.
        look: The last call on it, whatever came of it.
        timeline: Its steps, packed; None before a full answer.
        looked_at: When a row or an answer last told of it.
        failure: Of the last look; None when it succeeded.
        not_found: Responses in a row that say that it doesn't exist.
        forget_at: When its series and all that is known of it go, but what was counted.
        created: `created_on` of the last row, Unix time.
        modified: `modified_on` of the last row, Unix time.
        sweep: Number of the last sweep that held it.
        left: Unix time at which it was taken out of the configuration; None: it is watched.
    """

    __slots__ = (
        "busy",
        "changed",
        "checked_at",
        "configured",
        "created",
        "detail_after",
        "detailed_at",
        "due",
        "expires_at",
        "failure",
        "fingerprints",
        "id",
        "last_change",
        "last_request",
        "left",
        "modified",
        "not_found",
        "row_status",
        "run",
        "seen_in_pass",
        "shown",
        "since",
        "timeline",
        "tried",
        "values",
        "waits",
        "wants_detail",
        "why",
    )

    def __init__(
        self, instance_id: str, *, configured: bool, since: float, due: float = inf
    ) -> None:
        self.id = instance_id
        self.configured = configured
        self.shown = True
        self.since = since
        self.due = due
        self.busy = False
        self.tried = False
        self.waits: int | None = None
        self.wants_detail = False
        self.run: Run | None = None
        self.values: InstanceValues | None = None
        self.fingerprints = Fingerprints()
        self.last_change = 0.0
        self.changed: tuple[Change, ...] = ()
        self.why = PollReason.FIRST
        self.last_request: PollRequest | None = None
        self.timeline: bytes | None = None
        self.checked_at = -inf
        self.detailed_at = -inf
        self.detail_after = -inf
        self.failure: RequestFailed | None = None
        self.not_found = 0
        self.expires_at: float | None = None
        self.created: float | None = None
        self.modified: float | None = None
        self.row_status: str | None = None
        self.seen_in_pass = 0
        self.left: float | None = None

    @property
    def seen(self) -> bool:
        return self.values is not None

    @property
    def live(self) -> bool:
        return self.run is not None and self.run.status not in ENDED

    @property
    def row_is_newer(self) -> bool:
        """Whether its row moved after anything that the last detail response shows."""
        run, modified = self.run, self.modified
        return run is not None and modified is not None and run.newest + APART < modified

    @property
    def status(self) -> str | None:
        """As a response or, before one, a row told it."""
        return self.values.status if self.values else self.row_status

    @property
    def counts_as_live(self) -> bool:
        """Whether it lives, as far as is known, and its series don't expire."""
        # Of some, no row told more than the status.
        live = self.live if self.run else (self.row_status or "complete") not in ENDED
        return live and self.expires_at is None

    @property
    def is_news(self) -> bool:
        """Whether it ended since it is watched, as far as is known."""
        end = self.run.end if self.run else None
        return end is None or end >= self.since

    def take(self, run: Run, values: InstanceValues, *, at: float) -> bool:
        """Takes what a row or an answer told at Unix time `at`; whether any figure moved."""
        moved = values != self.values
        if moved:
            along = self.changed if self.wants_detail else ()
            self.changed = changes(self.values, values, along=along)
            self.last_change = at
        self.run, self.values = run, values
        return moved

    def kept(self, clock: Clock) -> InstanceRecord:
        """What of it outlives a restart."""
        ahead = clock.wall() - clock.monotonic()
        return InstanceRecord(
            since=self.since,
            shown=self.shown,
            run=self.run,
            values=self.values,
            fingerprints=self.fingerprints.fingerprints,
            last_change=self.last_change,
            detailed_at=self.detailed_at + ahead,
            wants_detail=self.wants_detail,
            not_found=self.not_found,
            expires_at=None if self.expires_at is None else self.expires_at + ahead,
            created=self.created,
            modified=self.modified,
            row_status=self.row_status,
            left=self.left,
        )

    def restore(self, kept: InstanceRecord, clock: Clock) -> None:
        """Takes what was kept."""
        ahead = clock.wall() - clock.monotonic()
        self.since = kept.since
        self.shown = self.configured or kept.shown
        self.run, self.values = kept.run, kept.values
        self.fingerprints.restore(kept.fingerprints)
        self.last_change = kept.last_change
        self.detailed_at = min(clock.monotonic(), kept.detailed_at - ahead)
        self.wants_detail = kept.wants_detail
        self.not_found = kept.not_found
        self.expires_at = None if kept.expires_at is None else kept.expires_at - ahead
        self.created, self.modified = kept.created, kept.modified
        self.row_status = kept.row_status
