"""Looks at the instances of one workflow: a simple answer an interval, and the full one on first
sight, on change, and once in a while. Of discovered instances, lists tell what moved."""

import asyncio
import heapq
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from math import inf
from typing import Protocol

from msgspec.structs import replace

from exporter.clock import Clock
from exporter.cloudflare.errors import RequestFailed
from exporter.cloudflare.models import Detail, Summary
from exporter.config.settings import Poll
from exporter.watch.failures import Failures, by_class
from exporter.watch.fingerprints import Fingerprints, changes
from exporter.watch.instance import Instance
from exporter.watch.poll_log import PollLog
from exporter.watch.poll_queue import PollQueue, Urgency
from exporter.watch.poll_reason import PollReason, PollRequest
from exporter.watch.sink import RoundOutcome, Sink
from exporter.watch.step_timeline import pack
from exporter.watch.tracker import Freshness, judge, track
from exporter.watch.workflow_state import WorkflowState

_SPARE = 0.3
"""The share of the budget that goes to looks at discovered instances of which no list says that
they moved, while nothing more urgent waits."""
_FREE = 256 * 1024
"""Bytes of full answers, a `poll.interval`, that an instance's progress may cost. After a larger
one the next has to wait as many intervals as it is larger: so what a long run costs grows with its
steps, not with their square."""
_LONGEST_REST = 3600.0


class Upstream(Protocol):
    """The calls a poller makes; each raises `RequestFailed`."""

    async def instance(self, workflow: str, instance_id: str) -> Summary: ...
    async def instance_detail(self, workflow: str, instance_id: str) -> tuple[Detail, int]: ...


class Poller:
    """Polls the instances of one workflow, round by round.

    Args:
        state: The instances, restored.
        queue: Where polls wait for their turn.
        log: Reports what fails; it outlives this attachment of the workflow.
    """

    def __init__(
        self,
        state: WorkflowState,
        *,
        upstream: Upstream,
        sink: Sink,
        poll: Poll,
        queue: PollQueue,
        log: PollLog,
        clock: Clock,
    ) -> None:
        self.key = state.key
        self.state = state
        self.instances = state.instances
        self.up = False
        """Whether the workflow as a whole can be read: its lists, and some of its instances."""
        self.tried = False
        """Whether every configured instance was polled, whatever came of it."""
        self.pass_failure: RequestFailed | None = None
        """Of the last list pass; None when it succeeded."""
        self.unmatched = False
        """Whether the account's list has no workflow of this name, as the log says."""
        self.over = False
        """Whether the workflow was detached: responses that still come change nothing."""
        self.round_started = clock.monotonic()
        self._upstream = upstream
        self._sink = sink
        self._poll = poll
        self._queue = queue
        self._clock = clock
        self._busy = 0
        self._as_of = clock.monotonic()
        self._failures = Failures(poll)
        self._idle = asyncio.Event()
        self._rounds = asyncio.Lock()
        self._log = log

    def detach(self) -> None:
        """Ends the watching of the workflow."""
        self.over = True
        for instance in self.instances.values():
            self._cancel_waiting(instance)
        self._idle.set()

    def lag(self) -> float:
        """Seconds that the oldest configured instance that is due is behind its plan."""
        waiting = (i.due for i in self.instances.values() if i.configured and not i.busy)
        return max(0.0, self._clock.monotonic() - min(waiting, default=inf))

    async def round(self, *, whole: bool = False) -> None:
        """Looks at what is due.

        A look that outlasts the round goes on and holds up nobody; a `whole` round waits for all.
        """
        async with self._rounds:
            if not self.over:
                await self._round(whole=whole)

    async def _round(self, *, whole: bool) -> None:
        self.round_started = now = self._clock.monotonic()
        # A round may come a little early (jitter): what falls due before the middle of the
        # interval belongs to it.
        horizon = now + self._poll.interval / 2
        due = [i for i in self.instances.values() if not i.busy and i.due <= horizon]
        spare = [i for i in due if not i.configured and i.failure is None]
        for instance in due:
            if instance.configured or instance.failure is not None:
                self.want(instance, Urgency.CONFIGURED, _why_due(instance))
        room = int(self._queue.budget.rate * self._poll.interval * _SPARE) - len(self._queue)
        for instance in heapq.nsmallest(max(0, room), spare, key=lambda i: i.due):
            self.want(instance, Urgency.LIVE, PollReason.SPARE)
        try:
            async with asyncio.timeout(None if whole else self._poll.interval * 0.9):
                await self._polled()
                others = self.instances.values()
                control = self._failures.control(others, since=now, now=self._clock.monotonic())
                if control is not None and not self.over:
                    self.want(control, Urgency.CONFIGURED, PollReason.CONTROL)
                    await self._polled()
        except TimeoutError:
            pass
        self._settle()

    async def _polled(self) -> None:
        """Returns once no poll waits or is under way."""
        self._idle.clear()
        if self._busy and not self.over:
            await self._idle.wait()

    def want(self, instance: Instance, urgency: Urgency, why: PollReason) -> None:
        """Has an instance looked at once; one that waits already is moved up if need be."""
        if instance.busy and (instance.waits is None or instance.waits <= urgency):
            return
        if not instance.busy:
            instance.busy = True
            self._busy += 1
        self._put(instance, urgency, why)

    def _put(self, instance: Instance, urgency: Urgency, why: PollReason) -> None:
        instance.waits, instance.why = urgency, why
        due = min(instance.due, self._clock.monotonic())
        self._queue.put(
            partial(self._run_poll, instance),
            urgency,
            due=due,
            # Moved up or forgotten meanwhile, it isn't to be made in this place.
            wanted=lambda: instance.waits == urgency,
        )

    async def page_turn(self) -> None:
        """Waits until a page of the workflow's lists may be requested."""
        await self._queue.turn(Urgency.PAGE)

    async def stop(self) -> None:
        """Ends the round under way, whatever it still waits for: looks were stopped before."""
        self.over = True
        self._idle.set()
        async with self._rounds:
            pass

    async def _run_poll(self, instance: Instance) -> None:
        instance.waits, before = None, instance.last_request
        try:
            await self._poll_now(instance)
        except RequestFailed as failure:
            self._failed(instance, failure, before)
        except Exception as error:  # a fault of ours: it must not end the watching of the rest
            self._log.fault(instance, error)
            self._failed(instance, RequestFailed("invalid_answer", type(error).__name__), before)
        else:
            if instance.not_found:
                self.state.changed.add(instance.id)
            self._failures.succeeded(instance, now=self._clock.monotonic())
        finally:
            instance.busy, instance.tried = False, True
            self._ended_one()

    def _ended_one(self) -> None:
        self._busy -= 1
        if not self._busy:
            self._idle.set()

    async def _poll_now(self, instance: Instance) -> None:
        now = self._clock.monotonic()
        instance.due = now + self._poll.interval
        simple, current = None, True
        resting = now < instance.detail_after and instance.live
        refresh = instance.live and now - instance.detailed_at >= self._poll.detail_refresh
        full = (refresh or instance.wants_detail) and not resting
        if instance.fingerprints.seen and not full:
            instance.last_request = PollRequest(now, "simple", instance.why)
            with self._counted("simple"):
                simple = await self._upstream.instance(self.key.workflow, instance.id)
            freshness = judge(instance.run, simple)
            if freshness is Freshness.STALE or (resting and freshness is Freshness.OPEN):
                return
            current = freshness is Freshness.CURRENT
        if simple and current and instance.fingerprints.knows(simple, but_progress=resting):
            if resting and self._watches(instance):
                self._progressed(instance, simple)
        else:
            again = refresh and not instance.wants_detail
            why = PollReason.CHANGED if simple else PollReason.REFRESH if again else instance.why
            instance.last_request = PollRequest(now, "detail", why)
            detail = await self._detail(instance)
            if not self._take(instance, detail, after=simple if current else None):
                return
            instance.detailed_at, instance.wants_detail = now, False
        if instance.live:
            return
        instance.due = now + (self._poll.ended_interval if instance.configured else inf)
        age = self._clock.steady() - (instance.modified or -inf)
        if instance.row_is_newer and age < self._poll.detail_refresh:
            # The response is of a replica that is behind.
            instance.due = now + max(age, self._poll.interval)

    def _progressed(self, instance: Instance, simple: Summary) -> None:
        """Takes what a simple answer tells of a run that goes on; its steps have to wait.

        It isn't kept in the state: that would write what is known of thousands of steps each time,
        and a restart begins with a look.
        """
        run, values = instance.run, instance.values
        assert run is not None, "a full answer told of it"
        assert values is not None, "a full answer told of it"
        steps = run.step_count if simple.step_count is None else int(simple.step_count)
        status = simple.status or "unknown"
        if (run.status, run.step_count) == (status, steps):
            return
        instance.run = replace(run, status=status, step_count=steps)
        instance.values = replace(values, status=status, step_count=steps)
        along = instance.changed if instance.wants_detail else ()
        instance.changed = changes(values, instance.values, along=along)
        instance.last_change, instance.wants_detail = self._clock.wall(), True
        if instance.shown:
            self.state.show(instance)

    async def _detail(self, instance: Instance) -> Detail:
        """The full answer; after a large one, none for a while that progress alone asks for."""
        try:
            with self._counted("detail"):
                detail, size = await self._upstream.instance_detail(self.key.workflow, instance.id)
        except RequestFailed as failure:
            self._rest(instance, failure.size)
            raise
        self._rest(instance, size)
        return detail

    def _rest(self, instance: Instance, size: int) -> None:
        rest = min(self._poll.interval * size / _FREE, _LONGEST_REST) if size > _FREE else 0.0
        instance.detail_after = self._clock.monotonic() + rest

    def _take(self, instance: Instance, detail: Detail, *, after: Summary | None) -> bool:
        """Takes in a full answer; False when it is out of date, or nobody wants it any more."""
        if not self._watches(instance):
            return False
        now = self._clock.steady()
        tracked = track(instance.run, detail, now=now, since=instance.since)
        if tracked is None:
            return False
        moved = instance.take(tracked.run, tracked.values, at=self._clock.wall())
        if instance.live:
            instance.expires_at = None
        self.state.changed.add(instance.id)
        instance.fingerprints.update(detail, after=after, moved=moved)
        if instance.shown:
            instance.timeline = pack(detail, now=now)
        if tracked.observations:
            self._sink.counted(self.key, instance.id, tracked.observations)
        if instance.shown and moved:
            self.state.show(instance)
        return True

    @contextmanager
    def _counted(self, kind: str) -> Iterator[None]:
        try:
            yield
        except RequestFailed as failure:
            self._sink.polled(kind, failure.reason)
            raise
        self._sink.polled(kind, "success")

    def _failed(
        self, instance: Instance, failure: RequestFailed, before: PollRequest | None
    ) -> None:
        now = self._clock.monotonic()
        if failure.reason != "not_found":
            self._failures.failed(instance, failure, before=before, now=now)
            return
        self.state.changed.add(instance.id)
        if self._failures.absent(instance, now=now) and instance.configured:
            self._log.gone(instance)

    def forget(self, instance: Instance) -> None:
        """Takes an instance's series away. What was counted of its run stays known."""
        self._cancel_waiting(instance)
        if instance.seen and instance.shown:
            self._sink.forgotten(self.key, instance.id)
        if instance.configured:
            instance.values, instance.fingerprints, instance.failure = None, Fingerprints(), None
            instance.expires_at = instance.timeline = None
            self.state.changed.add(instance.id)
        else:
            ended = instance.run is not None and not instance.live
            if instance.wants_detail and ended and instance.is_news:
                self._sink.skipped(self.key)
            self.state.forget(instance)

    def _cancel_waiting(self, instance: Instance) -> None:
        """Takes a look out of the queue. One under way goes on, and its answer is dropped where
        the instance is watched no more."""
        if instance.waits is not None:
            instance.busy, instance.waits = False, None
            self._ended_one()

    def _watches(self, instance: Instance) -> bool:
        return not self.over and self.instances.get(instance.id) is instance

    def _settle(self) -> None:
        """Ends a round: who is to be forgotten, is the workflow up, and what is there to say?"""
        if self.over:
            return
        now = self._clock.monotonic()
        for instance in list(self.instances.values()):
            under_way = instance.busy and instance.waits is None
            if instance.expires_at is not None and instance.expires_at <= now and not under_way:
                self.forget(instance)
        self.state.forget_old()
        self.tried = self.tried or all(i.tried for i in self.instances.values() if i.configured)
        failing = self._failures.round_over(self.instances.values(), now=now)
        # A first round that nobody has answered yet is no success.
        self.up = self.tried and self._failures.readable and self.pass_failure is None
        readable = self.tried and self._failures.readable
        as_of = self.state.as_of(readable=readable)
        if as_of is None or not readable:
            as_of = min(self._as_of, inf if as_of is None else as_of)
        self._as_of, wall = as_of, self._clock.wall()
        watched = Counter(i.status for i in self.instances.values() if i.status)
        over = RoundOutcome(self.up, wall, wall - now + as_of, by_class(failing), watched)
        self._sink.round_over(self.key, over)
        self._log.failing(failing, self.pass_failure, unmatched=self.unmatched)
        self._log.absent(
            i
            for i in self.instances.values()
            if i.configured and (not i.seen or i.expires_at is not None)
        )


def _why_due(instance: Instance) -> PollReason:
    if not instance.tried:
        return PollReason.FIRST
    return PollReason.DUE if instance.failure is None else PollReason.AGAIN
