"""Pulls lifecycle events from an account's queue, and polls the instances that they are about.

An event is only a hint: events come twice, late, out of order or never, and `errored` may also mean
an attempt that will be retried. So an event alone changes no count and no status; a poll does. A
message is acknowledged once its instance was polled, or the state has recorded that it is due.

With replicas, the one that holds the lease of the queue pulls. It passes events of workflows that
other replicas hold on to them, as notices in the state.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf

import structlog

from exporter.clock import wait_at_most
from exporter.cloudflare.errors import RequestFailed
from exporter.cloudflare.event_queue import BATCH, UNREADABLE, Event, EventQueue, event_of
from exporter.instances import lifecycle
from exporter.instances.instance import Instance
from exporter.instances.run import APART
from exporter.log_dedup import OpenProblems, Throttle
from exporter.metrics.catalogue import EventResult
from exporter.state.backend import EVENT_QUEUE, NotRestored
from exporter.state.event_relay import EventRelay
from exporter.statuses import ENDED, PAUSED
from exporter.watch.account_workflows import AccountWorkflows, Attachment
from exporter.watch.event_coverage import EventCoverage

log = structlog.get_logger(__name__)

_REPEATS = (1.0, 2.0, 5.0, 15.0)
"""Seconds after which an instance is polled again, if the last poll didn't show the change."""
_CHECK = 0.2
"""Seconds between checks whether polls have shown the awaited changes; longer if there are many."""
_BUSY, _IDLE, _LONGEST_BACKOFF = 1.0, 5.0, 60.0
"""Seconds between pulls: while messages come, while none come, and at most after failures."""
_MOST_AWAITED = 10_000
"""Maximum awaited changes and unacknowledged messages. While there are as many, nothing is
pulled."""
_GIVEN_UP_AFTER = 600.0
"""Seconds after which an awaited change that no poll has shown is left to the list passes."""
_STATUS = {"completed": "complete", "errored": "errored", "terminated": "terminated"}


def shows(instance: Instance, event: Event) -> bool:
    """Whether what is known of an instance includes what an event announced, or something later."""
    status, run = instance.status, instance.run
    if status is None:
        return False
    times = (run.queued, run.start, run.end, run.newest) if run else ()
    moved = max((t for t in (*times, instance.row.modified) if t is not None), default=-inf)
    if moved > event.at + APART:
        return True
    as_new, live = moved >= event.at - APART, status not in ENDED
    if event.kind in _STATUS:
        # If only an attempt failed and is retried, its step is still open.
        open_steps = instance.values.open_steps if instance.values else ()
        retried = any(step.retry_limit is not None for step in open_steps)
        return as_new and (status == _STATUS[event.kind] or (event.kind == "errored" and retried))
    if event.kind == "paused":
        return status in PAUSED
    waits = event.kind == "started" and status in PAUSED | {"queued"}
    return not waits and (live or as_new)


@dataclass(slots=True, eq=False)
class _Awaited:
    """A change that isn't shown yet. Times are of the monotonic clock."""

    event: Event
    since: float
    """When its first message came."""
    leases: list[str] = field(default_factory=list)
    """The leases of its messages that aren't acknowledged."""
    messages: int = 0
    """Messages that announced it."""
    polls: int = 0
    """Polls for it so far, the one that waits or is under way included."""
    due: float = -inf
    """When it is polled for next; inf: once the poll that waits or is under way has ended."""
    shown: bool = False
    """Whether a poll has shown it."""


class Events:
    """The events of one account.

    Args:
        queue: Where they come from.
        workflows: The account's workflows.
        list_interval: Seconds between list passes while events announce nearly everything.

    Attributes:
        coverage: Compares events with what list passes find.
        relay: Passes events on to other replicas, and receives theirs.
        backlog: Roughly the messages in the queue; None: this replica doesn't pull it.
        trusted: Whether list passes may be `list_interval` apart.
        on_distrust: Called when they no longer may be.
    """

    def __init__(
        self, queue: EventQueue, workflows: AccountWorkflows, *, list_interval: float
    ) -> None:
        self.backlog: float | None = None
        self.trusted = False
        self.coverage = EventCoverage()
        self.list_interval = list_interval
        self.on_distrust: Callable[[], None] = lambda: None
        self._queue = queue
        self._workflows = workflows
        self.relay = EventRelay(workflows.settings.stored_as)
        self._store, self._writer = workflows.store, workflows.writer
        self._account = workflows.settings.account
        self._clock = workflows.clock
        self._awaited: dict[Event, _Awaited] = {}
        self._done: set[_Awaited] = set()
        """Those whose messages may be acknowledged after the next commit."""
        self._problems = OpenProblems(Throttle(self._clock))
        self._backoff = 0.0
        self._pause = _BUSY
        self._pull_at = -inf
        self._log = log.bind(account=self._account.label)

    @property
    def pulls(self) -> bool:
        """Whether it is this replica that pulls the queue."""
        return self._writer.leases.proven and self._workflows.holds(EVENT_QUEUE)

    async def run(self) -> None:
        """Pulls events. Never returns."""
        while True:
            self.relay.arrived.clear()
            try:
                await self.step()
            except Exception as error:  # a fault of ours must not end this for good
                if self._problems.news([type(error).__name__]):
                    self._log.exception("events failed: a fault of the exporter")
                await asyncio.sleep(_LONGEST_BACKOFF)
            pause = max(0.0, self._pull_at - self._clock.monotonic()) if self.pulls else _BUSY
            if self._is_full or self._awaited:
                check = min(_BUSY, _CHECK + len(self._awaited) / 1000)
                pause = check if self._is_full else min(pause, check)
            await wait_at_most(pause, self.relay.arrived)

    @property
    def _is_full(self) -> bool:
        here = len(self._awaited) + sum(len(awaited.leases) for awaited in self._done)
        return here >= _MOST_AWAITED or self.relay.full

    async def step(self) -> None:
        """Pulls if that is due, polls for what came, and acknowledges what is done."""
        if not self.pulls:
            self.backlog, self._backoff = None, 0.0
        elif self._clock.monotonic() >= self._pull_at and not self._is_full:
            await self._pull()
        for event in self.relay.received():
            self._await(event)
        for awaited in list(self._awaited.values()):
            await self._advance(awaited)
        await self._acknowledge()
        self._trust()

    async def _pull(self) -> None:
        try:
            pulled = await self._queue.pull()
        except RequestFailed as failure:
            self._failed(failure)
            return
        self.backlog = pulled.backlog
        self._backoff = 0.0
        if self._problems.over([]):
            self._log.info("events can be pulled again")
        for message in pulled.messages:
            if message.lease_id is not None:
                self._await(event_of(message), [message.lease_id])
        full = len(pulled.messages) >= BATCH
        self._pause = _BUSY if pulled.messages else min(self._pause * 1.5, _IDLE)
        self._pull_at = self._clock.monotonic() + (0.0 if full else self._pause)

    def _failed(self, failure: RequestFailed) -> None:
        self._backoff = min(max(_BUSY, self._backoff * 2), _LONGEST_BACKOFF)
        self._pull_at = self._clock.monotonic() + self._backoff
        if self._problems.news([failure.reason]):
            self._log.warning(
                "failed to pull events; polls and list passes continue",
                result=failure.reason,
                error=str(failure),
                advice=failure.advice,
            )

    def _await(self, event: Event, leases: Sequence[str] = ()) -> None:
        awaited = self._awaited.setdefault(event, _Awaited(event, self._clock.monotonic()))
        awaited.leases += leases
        awaited.messages += 1

    async def _advance(self, awaited: _Awaited) -> None:
        """Takes the next step for an awaited change: polls for it, passes it on or ends it."""
        event, now = awaited.event, self._clock.monotonic()
        attachment = self._workflows.attached.get(event.workflow)
        if event is UNREADABLE:
            self._end(awaited, "unreadable")
        elif not self._is_ours(event):
            self._end(awaited, "other")
        elif not self._workflows.holds(event.workflow):
            self.relay.pass_on(event, new=bool(awaited.leases))
            self._done.add(self._awaited.pop(event))
        elif now - awaited.since > _GIVEN_UP_AFTER:
            self._end(awaited, "unconfirmed")
        elif attachment is not None:  # otherwise, its workflow is still being attached
            await self._poll_for(awaited, attachment, now)

    def _is_ours(self, event: Event) -> bool:
        """Whether an event is about a workflow that some replica should watch."""
        ours = event.account_id in ("", self._account.account_id or event.account_id)
        return event.kind != "" and ours and self._workflows.wants(event.workflow)

    async def _poll_for(self, awaited: _Awaited, attachment: Attachment, now: float) -> None:
        """Polls until the change is shown, or `_REPEATS` is exhausted."""
        event, polling = awaited.event, awaited.due == inf
        if not awaited.polls:
            self.coverage.announced(event, now)
        instance = attachment.watched.instances.get(event.instance_id)
        polled = instance is not None and instance.activity is None and instance.failure is None
        # Only a poll shows whether the change of an event without a time is known.
        judged = event.at > -inf or (polling and polled)
        if instance is not None and judged and shows(instance, event):
            if awaited.polls and attachment.discovery is not None:
                attachment.discovery.series_limit.choose(instance)
            self._end(awaited, "shown" if awaited.polls else "known")
        elif polling and instance is not None:
            if polled and awaited.polls > len(_REPEATS):
                self._end(awaited, "unconfirmed")
            elif polled:  # a poll that failed is repeated by the rounds
                awaited.due = now + _REPEATS[awaited.polls - 1]
        elif polling or now >= awaited.due:
            await self._poll(awaited, attachment, instance)

    async def _poll(
        self, awaited: _Awaited, attachment: Attachment, instance: Instance | None
    ) -> None:
        event, discovery = awaited.event, attachment.discovery
        if instance is None and discovery is not None:
            if event.kind not in _STATUS:
                self._end(awaited, "listed")
                return
            try:
                instance = await discovery.begin_announced(event.instance_id)
            except NotRestored:
                return  # the next step tries again
        if instance is None:
            self._end(awaited, "other")
            return
        pending = lifecycle.on_event(instance, event.kind)
        if not instance.wants_detail:
            self._end(awaited, "listed")
            return
        attachment.poller.put(instance, pending, record=True)
        awaited.polls, awaited.due = awaited.polls + 1, inf
        self._done.add(awaited)

    def _end(self, awaited: _Awaited, result: EventResult) -> None:
        awaited.shown = result == "shown"
        for _ in range(awaited.messages):
            self._store.event_seen(self._account.label, awaited.event.kind, result)
        self._done.add(self._awaited.pop(awaited.event))

    async def _acknowledge(self) -> None:
        """Commits what events have made due, or polls have shown, then acknowledges their
        messages."""
        if not self._done or not await self._writer.save():
            return
        done, self._done = self._done, set()
        self.relay.done(awaited.event for awaited in done)
        leases = []
        for awaited in done:
            leases += awaited.leases
            awaited.leases.clear()
            if awaited.shown and awaited.event.at > -inf:
                # This machine's clock may be behind Cloudflare's.
                self._store.event_shown(max(0.0, self._clock.now().unix - awaited.event.at))
        try:
            for start in range(0, len(leases), BATCH):
                await self._queue.ack(leases[start : start + BATCH])
        except RequestFailed as failure:
            self._failed(failure)  # the messages will come again, and be known then

    def _trust(self) -> None:
        """Decides whether list passes may be rare."""
        now = self._clock.monotonic()
        trusted = not self._backoff and self.coverage.is_good(now)
        if trusted == self.trusted:
            return
        self.trusted = trusted
        ratio = f"{self.coverage.ratio(now) or 0:.3f}"
        if trusted:
            every = f"{self.list_interval:g}s"
            self._log.info(
                "events announce changes; fewer list passes", coverage=ratio, every=every
            )
        else:
            self._log.warning(
                "events miss changes; list passes are back at poll.interval",
                coverage=ratio,
                advice="check the workflows' event subscriptions and the queue (docs/events.md)",
            )
            self.on_distrust()
