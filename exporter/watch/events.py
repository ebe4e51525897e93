"""Pulls the queue of an account's lifecycle events: each makes its instance due.

An event is a hint: events come twice, late, in no order or never, and `errored` also means an
attempt that is retried. So nothing is counted, and no status shown, from an event alone. A message
is acknowledged once what it made due is done or recorded in the state.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

import structlog

from exporter.clock import Clock
from exporter.cloudflare.errors import RequestFailed
from exporter.cloudflare.queue import BATCH, Event, Message, Queue, event_of
from exporter.log_dedup import OpenProblems
from exporter.statuses import ENDED
from exporter.watch import lifecycle
from exporter.watch.attachment import Attachment
from exporter.watch.event_coverage import EventCoverage
from exporter.watch.instance import Instance
from exporter.watch.records import NotRestored
from exporter.watch.tracker import APART
from exporter.watch.workflow_roster import WorkflowRoster

log = structlog.get_logger(__name__)

_REPEATS = (1.0, 2.0, 5.0, 15.0)
"""Seconds after which an instance is polled again that doesn't show yet what its event said."""
_CHECK = 0.2
"""Seconds after which it is checked whether polls showed what is awaited; more where much is."""
_BUSY, _IDLE, _LONGEST_BACKOFF = 1.0, 5.0, 60.0
_MOST_AWAITED = 10_000
"""Changes that are polled for, and messages to acknowledge, at once; until there are fewer, others
stay in the queue."""
_LONGEST = 600.0
"""Seconds until a change that can't be polled for is left to the list passes."""
_PAUSED = frozenset({"paused", "waitingForPause"})
_STATUS = {"completed": "complete", "errored": "errored", "terminated": "terminated"}


def shows(instance: Instance, event: Event) -> bool:
    """Whether what is known of an instance holds what an event announced, or something later."""
    status, run = instance.status, instance.run
    if status is None:
        return False
    times = (run.queued, run.start, run.end, run.newest) if run else ()
    moved = max((t for t in (*times, instance.row.modified) if t is not None), default=-inf)
    if moved > event.at + APART:
        return True
    as_new, live = moved >= event.at - APART, status not in ENDED
    if event.kind in _STATUS:
        # An attempt that failed and is retried leaves its step open.
        open_steps = instance.values.open_steps if instance.values else ()
        retried = live and any(step.retry_limit is not None for step in open_steps)
        return as_new and (status == _STATUS[event.kind] or (event.kind == "errored" and retried))
    if event.kind == "paused":
        return status in _PAUSED
    waits = event.kind == "started" and status in _PAUSED | {"queued"}
    return not waits and (live or as_new)


@dataclass(slots=True, eq=False)
class _Awaited:
    """A change that isn't shown yet."""

    event: Event
    since: float
    leases: list[str]
    polling: bool = False
    polls: int = 0
    due: float = -inf
    messages: int = 1


@dataclass(slots=True)
class _Done:
    """What to acknowledge with the next commit, and what then is shown."""

    leases: list[str] = field(default_factory=list)
    shown: list[float] = field(default_factory=list)


class Events:
    """The events of one account.

    Args:
        queue: Where they come from.
        roster: The account's workflows.
        coverage: Compares them with what list passes find.
        list_interval: Seconds between list passes while events announce nearly all.

    Attributes:
        backlog: Messages in the queue, roughly; None: it was never pulled.
        trusted: Whether list passes may be `list_interval` apart.
        on_distrust: Called when they no longer may.
    """

    def __init__(
        self,
        queue: Queue,
        roster: WorkflowRoster,
        coverage: EventCoverage,
        *,
        list_interval: float,
        clock: Clock,
    ) -> None:
        self.backlog: float | None = None
        self.trusted = False
        self.coverage = coverage
        self.list_interval = list_interval
        self.on_distrust: Callable[[], None] = lambda: None
        self._queue = queue
        self._roster = roster
        self._sink, self._state = roster.attacher.sink, roster.attacher.state
        self._account = roster.attacher.settings.account
        self._clock = clock
        self._awaited: dict[Event, _Awaited] = {}
        self._done = _Done()
        self._problems = OpenProblems(clock)
        self._backoff = 0.0
        self._pause = _BUSY
        self._pull_at = -inf
        self._log = log.bind(account=self._account.label)

    async def run(self) -> None:
        """Pulls without end."""
        while True:
            try:
                await self.step()
            except Exception as error:  # a fault of ours: it must not end the watching
                if self._problems.news([type(error).__name__]):
                    self._log.exception("events failed: a fault of the exporter")
                await asyncio.sleep(_LONGEST_BACKOFF)
            pause = max(0.0, self._pull_at - self._clock.monotonic())
            if self._is_full or self._awaited:
                check = min(_BUSY, _CHECK + len(self._awaited) / 1000)
                pause = check if self._is_full else min(pause, check)
            await asyncio.sleep(pause)

    @property
    def _is_full(self) -> bool:
        return len(self._awaited) + len(self._done.leases) >= _MOST_AWAITED

    async def step(self) -> None:
        """Pulls if it is time, polls for what came, and acknowledges what is done."""
        now = self._clock.monotonic()
        if now >= self._pull_at and not self._is_full:
            await self._pull()
        for awaited in list(self._awaited.values()):
            await self._follow(awaited)
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
            self._take(message)
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

    def _take(self, message: Message) -> None:
        lease, event = message.lease_id, event_of(message)
        if lease is None:
            return
        if event is None:
            self._finish("", "unreadable", [lease])
            return
        account_id, attachment = self._account.account_id, self._attached(event)
        if not event.kind or (account_id or event.account_id) != event.account_id:
            self._finish("", "other", [lease])
            return
        if attachment is None:
            if event.workflow not in self._roster.wanted:  # otherwise it is being attached
                self._finish(event.kind, "other", [lease])
            return
        now = self._clock.monotonic()
        self.coverage.announced(event, now)
        instance = attachment.state.instances.get(event.instance_id)
        if (awaited := self._awaited.get(event)) is not None:
            awaited.leases.append(lease)
            awaited.messages += 1
        elif instance is not None and shows(instance, event):
            self._finish(event.kind, "known", [lease])
        else:
            self._awaited[event] = _Awaited(event, now, [lease])

    def _attached(self, event: Event) -> Attachment | None:
        attachment = self._roster.attached.get(event.workflow)
        return None if attachment is None or attachment.poller.over else attachment

    async def _follow(self, awaited: _Awaited) -> None:
        """Polls for a change until it is shown."""
        event, now = awaited.event, self._clock.monotonic()
        attachment = self._attached(event)
        if attachment is None or now - awaited.since > _LONGEST:
            self._end(awaited, "unconfirmed")
            return
        instance = attachment.state.instances.get(event.instance_id)
        if instance is not None and shows(instance, event):
            if attachment.discovery is not None:
                attachment.discovery.choose(instance)
            self._end(awaited, "shown")
        elif awaited.polling and instance is not None:
            # The round repeats a poll that failed.
            if instance.activity is None and instance.failure is None:
                self._polled(awaited, now)
        elif now >= awaited.due:
            await self._poll(awaited, attachment, instance)

    async def _poll(
        self, awaited: _Awaited, attachment: Attachment, instance: Instance | None
    ) -> None:
        event, discovery = awaited.event, attachment.discovery
        if instance is None:
            if discovery is None:
                self._end(awaited, "other")
                return
            if event.kind not in _STATUS:
                self._end(awaited, "listed")
                return
            try:
                instance = await discovery.look_up(event.instance_id)
            except NotRestored:
                return  # the next step tries again
            if instance is None:
                self._end(awaited, "other")
                return
        pending = lifecycle.on_event(instance, event.kind)
        if not instance.wants_detail:
            self._end(awaited, "listed")
            return
        attachment.state.changed.add(instance.id)
        attachment.poller.put(instance, pending)
        awaited.polling = True
        if instance.run is not None:
            # The next commit records that it is due.
            self._done.leases += awaited.leases
            awaited.leases.clear()

    def _polled(self, awaited: _Awaited, now: float) -> None:
        if awaited.polls == len(_REPEATS):
            self._end(awaited, "unconfirmed")
            return
        awaited.polling, awaited.due = False, now + _REPEATS[awaited.polls]
        awaited.polls += 1

    def _end(self, awaited: _Awaited, result: str) -> None:
        del self._awaited[awaited.event]
        if result == "shown" and awaited.event.at > -inf:
            self._done.shown.append(awaited.event.at)
        self._finish(awaited.event.kind, result, awaited.leases, messages=awaited.messages)

    def _finish(self, kind: str, result: str, leases: list[str], *, messages: int = 1) -> None:
        for _ in range(messages):
            self._sink.event_seen(self._account.label, kind, result)
        self._done.leases += leases

    async def _acknowledge(self) -> None:
        """Commits what events made due or had shown, then acknowledges their messages."""
        done = self._done
        if not (done.leases or done.shown):
            return
        self._done = _Done()
        if not await self._state.save():
            self._done.leases[:0], self._done.shown[:0] = done.leases, done.shown
            return
        for at in done.shown:
            # This machine's clock may be behind Cloudflare's.
            self._sink.event_shown(max(0.0, self._clock.wall() - at))
        for start in range(0, len(done.leases), BATCH):
            try:
                await self._queue.ack(done.leases[start : start + BATCH])
            except RequestFailed as failure:
                self._failed(failure)  # they come back, and are known then
                return

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
