"""Polls the instances of one workflow, round by round. This is the I/O; `lifecycle` decides when an
instance is polled, and with which request. Discovered instances are polled when lists show that
they have changed."""

import asyncio
import contextlib
import heapq
from collections import Counter
from collections.abc import Awaitable
from dataclasses import dataclass
from math import inf

from exporter.cloudflare.errors import RequestFailed
from exporter.cloudflare.models import Row, Summary
from exporter.cloudflare.workflows_client import WorkflowsClient
from exporter.instances import lifecycle
from exporter.instances.instance import Instance, Pending, PollReason
from exporter.instances.urgency import Urgency
from exporter.watch.poll_log import PollLog
from exporter.watch.poll_queue import PollQueue, Waiting
from exporter.watch.watched_instances import WatchedInstances, of_nearly_all
from exporter.watch.workflow_health import WorkflowHealth

_SPARE = 0.3
"""How many polls of a workflow may wait although no list shows a change, as a share of the requests
of an interval; at least one. The queue of all workflows has the most overdue of them made first."""


class _Poll(Waiting, frozen=True, gc=False):
    """A poll of an instance that waits. It is no longer wanted once the instance has another
    activity: the poll became more urgent, or was cancelled."""

    poller: "Poller"
    instance: Instance
    pending: Pending

    def wanted(self) -> bool:
        return self.instance.activity is self.pending

    def poll(self) -> Awaitable[None]:
        return self.poller.poll_instance(self.instance)


@dataclass(eq=False)
class Poller:
    """Polls the instances of one workflow, round by round.

    Attributes:
        watched: The instances.
        client: Makes the requests.
        queue: Where polls wait for their turn.
        log: Logs what fails; it outlives this attachment of the workflow.
    """

    watched: WatchedInstances
    client: WorkflowsClient
    queue: PollQueue
    log: PollLog

    def __post_init__(self) -> None:
        watched = self.watched
        self.key, self.instances = watched.key, watched.instances
        self._store, self._poll, self._clock = watched.store, watched.poll, watched.clock
        self.up = False
        """Whether the workflow as a whole can be read: its lists, and any of its instances."""
        self.tried = False
        """Whether every configured instance was polled, whether or not that succeeded. Of a
        workflow without any instances, whether a list pass has ended."""
        self.round_started = self._as_of = self._clock.monotonic()
        self._active: set[Instance] = set()
        """Instances whose polls wait or are under way."""
        self._idle = asyncio.Event()
        """Set while there are none of them."""
        self._idle.set()
        self._health = WorkflowHealth()
        self._rounds = asyncio.Lock()
        """Held during a round, so that none overlap, and `stop` can wait for its end."""

    def detach(self) -> None:
        """Cancels the polls, and has responses that still come change nothing."""
        self.watched.detached = True
        for instance in [*self._active]:
            self._cancel(instance)

    @property
    def lag(self) -> float:
        """Seconds by which the most overdue configured instance is late."""
        waiting = (i.due for i in self.watched.configured if not i.activity)
        return max(0.0, self._clock.monotonic() - min(waiting, default=inf))

    async def round(self, *, whole: bool = False) -> None:
        """Polls what is due.

        A round ends before the next one is due. Polls that take longer continue, unless the round
        is to be `whole`: then it waits for all of them.
        """
        async with self._rounds:
            await self._round(whole=whole)

    async def _round(self, *, whole: bool) -> None:
        self.round_started = now = self._clock.monotonic()
        # With jitter, a round may begin a little early. So it includes what falls due before the
        # middle of its interval.
        until = now + self._poll.interval / 2
        due = list[Instance]()
        async for instance in self.watched.each():
            if instance.activity is not None or instance.due > until:
                continue
            due.append(instance)
            if instance.configured or instance.failure is not None:
                self.put(instance, lifecycle.on_due(instance))
            elif instance.wants_detail or instance.is_behind:
                self.put(instance, lifecycle.request_detail(instance))
        share = max(1, int(self.queue.budget.rate * self._poll.interval * _SPARE))
        active = (instance.activity for instance in self._active)
        waiting = sum(isinstance(a, Pending) and a.urgency is Urgency.SPARE for a in active)
        spare = (instance for instance in due if instance.activity is None)
        for instance in heapq.nsmallest(share - waiting, spare, key=lambda i: i.due):
            self.put(instance, lifecycle.pend(instance, Urgency.SPARE, PollReason.SPARE))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if whole else self._poll.interval * 0.9):
                await self._idle.wait()
                others = self.instances.values()
                control = self._health.control(others, since=now, now=self._clock.monotonic())
                if control is not None:
                    pending = lifecycle.pend(control, Urgency.CONFIGURED, PollReason.CONTROL)
                    self.put(control, pending)
                    await self._idle.wait()
        await self._end_round()

    def put(self, instance: Instance, pending: Pending | None, *, record: bool = False) -> None:
        """Puts a poll that `lifecycle` asks for into the queue, unless the workflow is detached.

        Args:
            pending: None: no poll is asked for.
            record: Whether the next commit is to record that the instance is due.
        """
        if record:
            self.watched.changed.add(instance.id)
        if pending is not None and not self.watched.detached:
            self._active.add(instance)
            self._idle.clear()
            now = self._clock.monotonic()
            # These could wait until a list or an event showed them, however long they were due.
            due = now if pending.urgency <= Urgency.MISSED else min(instance.due, now)
            self.queue.put(_Poll(due, self, instance, pending), pending.urgency)

    async def stop(self) -> None:
        """Ends the round under way; its polls were stopped before."""
        self.detach()
        async with self._rounds:
            pass

    def correct_times(self, *responses: Row | Summary) -> None:
        """Drops the times of rows or of a response that stand for none, or that can't have passed:
        a time in the future would make everything that follows seem old."""
        limit = self._clock.latest_possible()
        if dropped := sum(response.correct_times(limit) for response in responses):
            self.ignored("a time more than 7 days ahead", dropped)

    def ignored(self, what: str, parts: int = 1) -> None:
        """Counts and reports parts of a response that are ignored for what they say."""
        self._store.ignored(parts)
        self.log.ignored(what)

    async def poll_instance(self, instance: Instance) -> None:
        """Polls an instance whose turn has come."""
        request = lifecycle.on_turn(instance, self._clock.now())
        try:
            if request.kind == "simple":
                with self._store.poll("simple"):
                    simple = await self.client.instance(self.key.workflow, instance.id)
                self.correct_times(simple)
                self.watched.apply(lifecycle.on_simple, instance, simple)
            # Unless the simple response was enough, or the instance is no longer watched.
            if instance.activity is not None and instance.request.kind == "detail":
                with self._store.poll("detail"):
                    detail, size = await self.client.instance_detail(self.key.workflow, instance.id)
                self.correct_times(detail)
                self.watched.apply(lifecycle.on_detail, instance, detail, size)
        except RequestFailed as failure:
            self._on_failure(instance, failure)
        except Exception as error:  # a fault of ours must not stop the other polls
            self.log.fault(instance, error)
            self._on_failure(instance, RequestFailed("invalid_answer", type(error).__name__))
        else:
            self._health.succeeded()
        finally:
            self._cancel(instance)  # in case it was cut off, or is no longer watched

    def _on_failure(self, instance: Instance, failure: RequestFailed) -> None:
        if failure.reason == "not_found":
            self._health.succeeded()
            self.watched.apply(lifecycle.on_not_found, instance)
        else:
            self._health.failed(before=instance.failure is not None)
            self.watched.apply(lifecycle.on_failure, instance, failure)

    def _cancel(self, instance: Instance) -> None:
        """Ends a poll, whether it waits or is under way."""
        lifecycle.cancel(instance)
        self._active.discard(instance)
        if not self._active:
            self._idle.set()

    async def _end_round(self) -> None:
        """Ends a round: has series expire, and sees whether the workflow can be read."""
        self.watched.raise_horizon()
        settled = self.watched.passes.settled
        async for instance in self.watched.each():
            if instance.expires_at is None:
                continue
            if self.watched.apply(lifecycle.on_tick, instance, settled=settled).record:
                self._cancel(instance)
        others = any(i.failure is None for i in self._active)
        waiting = others and not self.queue.budget.blocked
        if self._health.round_over(empty=not self.instances, waiting=waiting):
            for instance in self.instances.values():
                lifecycle.on_workflow_readable(instance, self._clock.now())
        await self.report()

    async def report(self) -> None:
        """Shows and logs the outcome of the last round and the last list pass, after each of
        them."""
        failing: list[tuple[str, RequestFailed]] = []
        watched = Counter[str]()
        steps, now = list[float](), self._clock.now()
        offset = now.unix - now.monotonic
        async for instance in self.watched.each():
            if instance.failure is not None:
                failing.append((instance.id, instance.failure))
            if instance.status:
                watched[instance.status] += 1
            if instance.run and instance.counts_as_live and instance.has_series:
                # It had no steps when it was created.
                steps.append(max(instance.created or 0.0, instance.detailed_at + offset))
        if self.watched.detached:
            return
        self._judge()
        by_reason = Counter[str](failure.reason for _, failure in failing)
        as_of = offset + self._as_of
        self._store.reported(
            self.key,
            up=self.up,
            as_of=as_of,
            steps_as_of=min(as_of, of_nearly_all(steps)),
            failing=by_reason,
            watched=watched,
        )
        self.log.failing(failing, self.watched.passes.failure)
        self.log.absent(self.watched.configured)

    def _judge(self) -> None:
        """Sees whether the workflow can be read, and as of when its statuses are known."""
        configured, passes = self.watched.configured, self.watched.passes
        # A first round without instances shows nothing; then the first list pass counts.
        begun = bool(self.instances) or passes.done
        self.tried = self.tried or (begun and all(i.last_poll.request for i in configured))
        # With a small budget, the first polls of many instances take long.
        read = self.tried or self._health.was_read
        self.up = read and self._health.readable and passes.failure is None
        # While the workflow can't be read, what is shown gets no fresher.
        readable = self.tried and self._health.readable
        as_of = self.watched.as_of(readable=readable)
        if as_of is not None:
            self._as_of = as_of if readable else min(self._as_of, as_of)
