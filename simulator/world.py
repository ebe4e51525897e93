"""The simulated accounts, workflows and instances, without any HTTP.

The response for an instance is computed from its script at the time of the request; nothing
ticks. Only the lists need to know which status each instance has now: a heap holds the time of
each instance's next change, and `World.settle` moves what has become due.
"""

from __future__ import annotations

import heapq
import threading
import time
import uuid
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator
from itertools import count, islice, zip_longest
from operator import attrgetter
from typing import Any

from msgspec import Struct

from .api_style import HOSTED, Style
from .clock import Clock, timestamp
from .lifecycle_events import event_body
from .queue import Queue
from .run_script import Script
from .run_timeline import (
    NEVER,
    Intervention,
    Restart,
    Timeline,
    milliseconds,
    play,
    records_before,
    undisturbed,
)

STATUSES = (
    "queued",
    "running",
    "paused",
    "errored",
    "terminated",
    "complete",
    "waitingForPause",
    "waiting",
    "rollingBack",
)
_NAMESPACE = uuid.UUID("6f2b1c1e-4a0f-5d0e-9a57-0c5a3f1c9a11")

Arrival = tuple[float, str, Script]
"""When an instance is created (wall-clock seconds), its id and its script."""


class Version(Struct, frozen=True):
    """A workflow's version, with what the versions endpoint returns."""

    id: str
    created: int
    step_limit: int | None = 10_000
    concurrency: int | None = None
    success_retention: int | None = 7 * 86_400_000
    error_retention: int | None = 7 * 86_400_000


class Run:
    """One run of an instance, from its queueing or from a restart on.

    A restart begins the next one: from the start with a new `queued`, from a step with the old one.
    """

    __slots__ = ("begins", "interventions", "queued", "restart", "script", "timeline")

    def __init__(self, queued: int, script: Script, restart: Restart | None = None) -> None:
        self.queued = queued
        self.script = script
        self.restart = restart
        self.begins = queued + restart.at if restart else queued
        """When it took the place of the run before, in milliseconds since the epoch."""
        self.interventions: tuple[Intervention, ...] = ()
        self.timeline: Timeline = play(script, (), restart) if restart else undisturbed(script)

    def intervene(self, intervention: Intervention) -> None:
        self.interventions = (*self.interventions, intervention)
        self.timeline = play(self.script, self.interventions, self.restart)


class Instance:
    """An instance. Times of interventions are wall-clock seconds, by default now.

    `result` replaces what the API returns as its result; `patch` and `patch_row` change the
    result or the list row (a fresh dict) that they are given, in place or by returning another.
    """

    __slots__ = (
        "created", "deleted", "epoch", "id", "key", "listed_status", "params", "patch",
        "patch_row", "published", "result", "runs", "schedule", "trigger", "version", "workflow",
    )  # fmt: skip

    def __init__(
        self,
        workflow: Workflow,
        instance_id: str,
        *,
        queued: int,
        number: int,
        script: Script,
        params: Any,
        trigger: str,
        version: str,
        schedule: dict[str, Any] | None,
    ) -> None:
        self.workflow = workflow
        self.id = instance_id
        # The real engine creates an instance a millisecond or two before it queues it.
        self.created = queued - 1
        self.key = (self.created, number)
        self.runs = [Run(queued, script)]
        self.params = params
        self.trigger = trigger
        self.version = version
        self.schedule = schedule
        self.deleted = NEVER
        self.listed_status: str | None = None
        self.epoch = 0
        self.published = self.created
        """Up to when its events were published."""
        self.result: Any = None
        self.patch: Callable[[dict[str, Any]], dict[str, Any] | None] | None = None
        self.patch_row: Callable[[dict[str, Any]], dict[str, Any] | None] | None = None

    # What it is at a moment, in milliseconds since the epoch.

    def run(self, at: int) -> Run:
        """The run that a response at this moment shows."""
        if len(self.runs) > 1:
            return next((r for r in reversed(self.runs) if r.begins <= at), self.runs[0])
        return self.runs[0]

    def status(self, at: int) -> str:
        run = self.run(at)
        status = run.timeline.status(at - run.queued)
        style = self.workflow.world.style
        shown = {"waiting": style.waiting, "rollingBack": style.rollbacks}
        return status if shown.get(status, True) else "running"

    def removed_at(self) -> int:
        """When it is deleted, by hand or because its retention has passed."""
        run = self.runs[-1]
        retention = self.workflow.retention(run.timeline.final)
        if retention is None or run.timeline.end >= NEVER:
            return self.deleted
        return min(self.deleted, run.queued + run.timeline.end + retention)

    def exists(self, at: int) -> bool:
        return self.created <= at < self.removed_at()

    def next_change(self, at: int) -> int:
        """The next moment at which its list row may become another."""
        if at < self.created:
            return self.created
        run = self.run(at)
        mark = run.timeline.next_mark(at - run.queued)
        restarts = (r.begins for r in self.runs if r.begins > at)
        events = (t for t, _ in self.events(at, NEVER)) if self.workflow.queues else ()
        return min(
            mark + run.queued if mark < NEVER else NEVER,
            self.removed_at(),
            *restarts,
            *islice(events, 1),
            NEVER,
        )

    def events(self, after: int, until: int) -> Iterator[tuple[int, str]]:
        """What event subscriptions publish of it from one moment, exclusively, to another."""
        for run, following in zip_longest(self.runs, self.runs[1:]):
            stop = min(until, following.begins - 1 if following else NEVER, self.deleted)
            first = max(after + 1, run.begins)
            for since, kind in run.timeline.events:
                if first <= run.queued + since <= stop:
                    yield run.queued + since, kind

    # What can be done to it.

    def pause(self, at: float | None = None) -> None:
        self._intervene("pause", at)

    def resume(self, at: float | None = None) -> None:
        self._intervene("resume", at)

    def terminate(
        self, at: float | None = None, *, source: str = "api", rollback: bool = False
    ) -> None:
        shown = source if self.workflow.world.style.termination_steps else None
        self._intervene("terminate", at, (shown, rollback))

    def send_event(
        self, event_type: str = "approve", payload: Any = None, at: float | None = None
    ) -> None:
        self._intervene("event", at, (event_type, payload))

    def force_status(self, status: str | None, at: float | None = None) -> None:
        """Show this status, known or not, from then on; None shows the played one again."""
        self._intervene("status", at, status)

    def restart(self, at: float | None = None, script: Script | None = None) -> None:
        """A new run under the same id, with new times and no steps."""
        world = self.workflow.world
        moment = world.moment(at)
        self._begin(moment, Run(moment, script or self.run(moment).script))

    def restart_from(
        self,
        name: str,
        number: int = 1,
        kind: str = "step",
        *,
        at: float | None = None,
        queued: float = 0.0,
        script: Script | None = None,
    ) -> None:
        """Run again from a step on, after `queued` seconds in the queue: the run keeps its times
        `queued` and `start`, and loses its end, that step and all that began after it.

        Raises:
            LookupError: no such step has begun.
        """
        moment = self.workflow.world.moment(at)
        run = self.run(moment)
        since = moment - run.queued
        unchanged = records_before(run.timeline, since, name, number, kind)
        restart = Restart(since, since + milliseconds(queued), run.timeline.start, unchanged)
        self._begin(moment, Run(run.queued, script or run.script, restart))

    def _begin(self, moment: int, run: Run) -> None:
        self.runs = [*([r for r in self.runs if r.begins < moment] or self.runs[:1]), run]
        self.workflow.world.refresh(self)

    def delete(self, at: float | None = None) -> None:
        world = self.workflow.world
        self.deleted = world.moment(at)
        world.refresh(self)

    def _intervene(self, verb: Any, at: float | None, value: Any = None) -> None:
        world = self.workflow.world
        moment = world.moment(at)
        run = self.run(moment)
        run.intervene(Intervention(max(0, moment - run.queued), verb, value))
        world.refresh(self)


class Workflow:
    """A workflow and its instances, in the order of their creation and by status."""

    def __init__(
        self, world: World, account_id: str, name: str, class_name: str, script_name: str
    ) -> None:
        self.world = world
        self.account_id = account_id
        self.name = name
        self.class_name = class_name
        self.script_name = script_name
        self.id = str(uuid.uuid5(_NAMESPACE, f"{account_id}/{name}"))
        self.created = self.modified = world.moment(None)
        self.triggered: int | None = None
        self.versions: list[Version] = []
        self.release()
        self.instances: dict[str, Instance] = {}
        self.order: list[Instance] = []
        self.by_status: dict[str, list[Instance]] = {}
        self.queues: list[Queue] = []
        """Where its events go."""
        self._counts: tuple[int, dict[str, int]] | None = None

    def publish(self, instance: Instance, until: int) -> None:
        """Publishes the events of an instance up to a moment."""
        for at, kind in instance.events(instance.published, until):
            body = event_body(
                kind,
                account=self.account_id,
                workflow=self.name,
                version=instance.version,
                instance=instance.id,
                time=timestamp(at),
            )
            for queue in self.queues:
                queue.push(body, at)
        instance.published = max(instance.published, until)

    def release(self, **settings: Any) -> Version:
        """Deploy a new version; settings are the fields of `Version`."""
        number = len(self.versions)
        version_id = str(uuid.uuid5(_NAMESPACE, f"{self.id}/{number}"))
        self.modified = self.world.moment(None)
        self.versions.append(Version(version_id, self.modified, **settings))
        return self.versions[-1]

    def retention(self, final: str) -> int | None:
        """Milliseconds for which an ended instance exists."""
        version = self.versions[-1]
        return version.success_retention if final == "complete" else version.error_retention

    def create(
        self,
        instance_id: str | None = None,
        script: Script | None = None,
        *,
        at: float | None = None,
        params: Any = None,
        trigger: str = "api",
        version: str | None = None,
        schedule: dict[str, Any] | None = None,
    ) -> Instance:
        """Create an instance, now or at another moment, past or future.

        Raises:
            ValueError: an instance with that id exists.
        """
        world = self.world
        queued = world.moment(at)
        number = next(world.numbers)
        instance_id = instance_id or f"instance-{number}"
        known = self.instances.get(instance_id)
        if known is not None:
            if known.removed_at() > queued:
                raise ValueError(f"workflow instance with id {instance_id!r} already exists")
            world.drop(known)
        instance = Instance(
            self,
            instance_id,
            queued=queued,
            number=number,
            script=script or Script(),
            params={} if params is None else params,
            trigger=trigger,
            version=version or self.versions[-1].id,
            schedule=schedule,
        )
        self.instances[instance_id] = instance
        world.refresh(instance)
        return instance

    def arrivals(self, arrivals: Iterable[Arrival]) -> None:
        """Create instances as time reaches them, from arrivals in the order of time."""
        self.world.follow(self, iter(arrivals))

    def get(self, instance_id: str, at: int) -> Instance | None:
        instance = self.instances.get(instance_id)
        return instance if instance is not None and instance.exists(at) else None

    def counts(self, at: int) -> dict[str, int]:
        """Instances by status, up to `World.counts_age` seconds old as on the platform."""
        if self._counts is None or at - self._counts[0] >= self.world.counts_age * 1000:
            known: dict[str, int] = dict.fromkeys(STATUSES, 0)
            known.update({s: len(i) for s, i in self.by_status.items() if i})
            self._counts = (at, known)
        return self._counts[1]

    def relist(self, instance: Instance, status: str | None) -> None:
        """Moves an instance to the list of its status; None removes it from all."""
        old = instance.listed_status
        if old == status:
            return
        key = attrgetter("key")
        if old is None:
            insort(self.order, instance, key=key)
            self.triggered = max(self.triggered or 0, instance.created)
        else:
            listed = self.by_status[old]
            del listed[bisect_left(listed, instance.key, key=key)]
        if status is None:
            del self.order[bisect_left(self.order, instance.key, key=key)]
        else:
            insort(self.by_status.setdefault(status, []), instance, key=key)
        instance.listed_status = status


class Account:
    """An account and its workflows."""

    def __init__(self, world: World, account_id: str) -> None:
        self.world = world
        self.id = account_id
        self.name = f"{account_id}'s account"
        self.created = world.moment(None)
        self.workflows: dict[str, Workflow] = {}
        self.queues: dict[str, Queue] = {}

    def queue(self, queue_id: str, *workflows: str, **settings: Any) -> Queue:
        """Adds a queue, and subscribes it to the events of these workflows from now on.

        Args:
            settings: The fields of `Queue`.
        """
        queue = self.queues[queue_id] = Queue(queue_id, **settings)
        now = self.world.settle()
        for workflow in map(self.workflow, workflows):
            workflow.queues.append(queue)
            for instance in workflow.instances.values():
                instance.published = max(instance.published, now)
                self.world.refresh(instance)
        return queue

    def workflow(
        self, name: str, *, class_name: str = "Scenario", script_name: str = "worker"
    ) -> Workflow:
        """The workflow of that name, created when there is none."""
        if name not in self.workflows:
            self.workflows[name] = Workflow(self.world, self.id, name, class_name, script_name)
        return self.workflows[name]


class World:
    """Everything that is simulated.

    Args:
        clock: returns the time in wall-clock seconds.
        style: how responses are written.
        counts_age: how old, in seconds, the counts of instances by status may be.
        per_page_limit: the largest page that lists give.
        cursor_lifetime: seconds after which a list's cursor is refused; None is never.

    Attributes:
        lock: held while a response is made, and while an instance changes: any thread may have it
            do so.
    """

    def __init__(
        self,
        clock: Clock = time.time,
        *,
        style: Style = HOSTED,
        counts_age: float = 0.0,
        per_page_limit: int = 100,
        cursor_lifetime: float | None = None,
    ) -> None:
        self.clock = clock
        self.style = style
        self.counts_age = counts_age
        self.per_page_limit = per_page_limit
        self.cursor_lifetime = cursor_lifetime
        self.accounts: dict[str, Account] = {}
        self.numbers = count()
        self.lock = threading.RLock()
        self._due: list[tuple[int, int, int, Instance]] = []
        self._arriving: list[tuple[int, int, Workflow, Arrival, Iterator[Arrival]]] = []
        self._settled = 0

    def account(self, account_id: str) -> Account:
        """The account of that id, created when there is none."""
        if account_id not in self.accounts:
            self.accounts[account_id] = Account(self, account_id)
        return self.accounts[account_id]

    def moment(self, at: float | None) -> int:
        """A time in milliseconds; None is now."""
        return round((self.clock() if at is None else at) * 1000)

    def settle(self) -> int:
        """Brings the lists up to now, and returns it. They don't go back when the clock does."""
        now = self.moment(None)
        self._settled = max(self._settled, now)
        with self.lock:
            while self._arriving and self._arriving[0][0] <= self._settled:
                _, _, workflow, (at, instance_id, script), rest = heapq.heappop(self._arriving)
                workflow.create(instance_id, script, at=at)
                self.follow(workflow, rest)
            while self._due and self._due[0][0] <= self._settled:
                _, _, epoch, instance = heapq.heappop(self._due)
                if epoch == instance.epoch:
                    self.refresh(instance)
        return now

    def refresh(self, instance: Instance) -> None:
        """Lists an instance as it is now, and schedules its next change."""
        with self.lock:
            self._refresh(instance)

    def _refresh(self, instance: Instance) -> None:
        at = self._settled
        if instance.workflow.queues:
            instance.workflow.publish(instance, at)
        if instance.removed_at() <= at:
            self.drop(instance)
            return
        instance.workflow.relist(instance, instance.status(at) if instance.created <= at else None)
        instance.epoch += 1
        change = instance.next_change(at)
        if change < NEVER:
            heapq.heappush(self._due, (change, next(self.numbers), instance.epoch, instance))

    def drop(self, instance: Instance) -> None:
        with self.lock:
            instance.epoch += 1
            instance.workflow.relist(instance, None)
            if instance.workflow.instances.get(instance.id) is instance:
                del instance.workflow.instances[instance.id]

    def follow(self, workflow: Workflow, arrivals: Iterator[Arrival]) -> None:
        """Keep the next arrival in sight; the rest stays in the iterator."""
        arrival = next(arrivals, None)
        if arrival is not None:
            entry = (self.moment(arrival[0]), next(self.numbers), workflow, arrival, arrivals)
            heapq.heappush(self._arriving, entry)
