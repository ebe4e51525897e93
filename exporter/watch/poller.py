"""Looks at the configured instances of one workflow: a simple answer an interval, and the full
one on first sight, on change, and once in a while."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

import structlog

from exporter.clock import Clock
from exporter.cloudflare.errors import CallFailed
from exporter.cloudflare.models import Detail, Summary
from exporter.settings import Poll
from exporter.watch.changes import LastLook
from exporter.watch.sink import Sink, WorkflowKey
from exporter.watch.tracker import Figures, Run, is_stale, track

log = structlog.get_logger(__name__)

_GONE = 2
"""Answers 404 in a row that take an instance for gone: one may be a replica's."""


class Upstream(Protocol):
    """The calls a poller makes; each raises `CallFailed`."""

    async def instance(self, workflow: str, instance_id: str) -> Summary: ...
    async def instance_detail(self, workflow: str, instance_id: str) -> Detail: ...


class Instance:
    """What is known of one instance, and when to look at it. Times are of the monotonic clock."""

    __slots__ = (
        "busy",
        "detailed_at",
        "due",
        "failure",
        "figures",
        "gone_since",
        "id",
        "last_change",
        "looks",
        "not_found",
        "run",
        "stale_since",
        "tried",
    )

    def __init__(self, instance_id: str, due: float) -> None:
        self.id = instance_id
        self.due = due
        self.busy = False
        self.tried = False
        self.run: Run | None = None
        self.figures: Figures | None = None
        self.looks = LastLook()
        self.last_change = 0.0
        """Unix time."""
        self.detailed_at = 0.0
        self.failure: CallFailed | None = None
        """Of the last look; None when it succeeded."""
        self.not_found = 0
        """Answers 404 in a row."""
        self.gone_since: float | None = None
        self.stale_since: float | None = None

    @property
    def seen(self) -> bool:
        return self.figures is not None

    @property
    def live(self) -> bool:
        return self.figures is not None and not self.figures.ended


class Poller:
    """Looks at the configured instances of one workflow, round by round.

    Args:
        key: The workflow.
        ids: Its configured instances.
        since: Unix time; what ended before it is history and not counted.
        slots: Bounds the calls under way over all pollers.
    """

    def __init__(
        self,
        key: WorkflowKey,
        ids: Iterable[str],
        *,
        upstream: Upstream,
        sink: Sink,
        poll: Poll,
        since: float,
        slots: asyncio.Semaphore,
        clock: Clock,
    ) -> None:
        self.key = key
        self.up = False
        """Whether the last round succeeded."""
        self.tried = False
        """Whether every instance was looked at, whatever came of it."""
        self.round_started = clock.monotonic()
        self._upstream = upstream
        self._sink = sink
        self._poll = poll
        self._since = since
        self._slots = slots
        self._clock = clock
        self._instances = [Instance(i, due=self.round_started) for i in ids]
        self._tasks: set[asyncio.Task[None]] = set()
        self._rounds = asyncio.Lock()
        self._troubles: frozenset[str] = frozenset()
        self._log = log.bind(account=key.account, workflow=key.workflow)

    def __len__(self) -> int:
        return sum(instance.seen for instance in self._instances)

    def lag(self) -> float:
        """Seconds that the oldest due look is behind its plan."""
        waiting = (instance.due for instance in self._instances if not instance.busy)
        return max(0.0, self._clock.monotonic() - min(waiting, default=self._clock.monotonic()))

    async def round(self, *, whole: bool = False) -> None:
        """Looks at what is due.

        A look that outlasts the round goes on and holds up nobody; a `whole` round waits for all.
        """
        async with self._rounds:
            await self._round(whole=whole)

    async def _round(self, *, whole: bool) -> None:
        self.round_started = now = self._clock.monotonic()
        # A round may come a little early (jitter): what falls due before the middle of the
        # interval belongs to it.
        horizon = now + self._poll.interval / 2
        for instance in self._instances:
            if not instance.busy and instance.due <= horizon:
                instance.busy = True
                self._tasks.add(asyncio.create_task(self._look(instance)))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=None if whole else self._poll.interval * 0.9)
        self._tasks = {task for task in self._tasks if not task.done()}
        self._settle()

    async def stop(self, grace: float) -> None:
        """Lets looks under way finish within `grace` seconds, then gives them up.

        The round under way ends with them.
        """
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        async with self._rounds:
            pass

    async def _look(self, instance: Instance) -> None:
        try:
            async with self._slots:
                await self._look_now(instance)
            instance.failure, instance.not_found, instance.gone_since = None, 0, None
        except CallFailed as failure:
            self._failed(instance, failure)
        except Exception as error:  # a fault of ours: it must not end the watching of the rest
            self._log.exception("look failed for an unknown reason", instance_id=instance.id)
            self._failed(instance, CallFailed("invalid_answer", type(error).__name__))
        finally:
            instance.busy, instance.tried = False, True

    async def _look_now(self, instance: Instance) -> None:
        now = self._clock.monotonic()
        instance.due = now + self._poll.interval
        simple: Summary | None = None
        refresh = instance.live and now - instance.detailed_at >= self._poll.detail_refresh
        if instance.looks.seen and not refresh:
            with self._counted("simple"):
                simple = await self._upstream.instance(self.key.workflow, instance.id)
            if is_stale(instance.run, simple) and not self._trusted(instance):
                return
        if simple is None or not instance.looks.knows(simple):
            with self._counted("detail"):
                detail = await self._upstream.instance_detail(self.key.workflow, instance.id)
            if not self._take(instance, detail, after=simple):
                return
            instance.detailed_at = now
        instance.stale_since = None
        if not instance.live:
            instance.due = now + self._poll.ended_interval

    def _take(self, instance: Instance, detail: Detail, *, after: Summary | None) -> bool:
        """Takes in a full answer; False when it is out of date."""
        wall = self._clock.wall()
        tracked = track(instance.run, detail, now=wall, since=self._since)
        if tracked is None and self._trusted(instance):
            tracked = track(instance.run, detail, now=wall, since=self._since, trust=True)
        if tracked is None:
            return False
        moved = tracked.figures != instance.figures
        instance.looks.update(detail, after=after, moved=moved)
        instance.run, instance.figures = tracked.run, tracked.figures
        if moved:
            instance.last_change = wall
        if moved or tracked.observations:
            self._sink.moved(self.key, instance.id, tracked, instance.last_change)
        return True

    def _trusted(self, instance: Instance) -> bool:
        """Whether answers that look out of date have come for so long that they must be true."""
        now = self._clock.monotonic()
        if instance.stale_since is None:
            instance.stale_since = now
        return now - instance.stale_since >= self._poll.detail_refresh

    @contextmanager
    def _counted(self, kind: str) -> Iterator[None]:
        try:
            yield
        except CallFailed as failure:
            self._sink.polled(kind, failure.failure)
            raise
        self._sink.polled(kind, "success")

    def _failed(self, instance: Instance, failure: CallFailed) -> None:
        if failure.failure != "not_found":
            instance.failure, instance.not_found = failure, 0
            return
        instance.not_found += 1
        if not instance.seen:
            # Not created yet, perhaps: looked for on, and nothing that is wrong with the watch.
            instance.failure = None
            if instance.not_found == 1:
                self._log.info(
                    "instance is not there yet, looking for it on",
                    instance_id=instance.id,
                    error=str(failure),
                )
            return
        instance.failure = failure
        now = self._clock.monotonic()
        if instance.not_found >= _GONE and instance.gone_since is None:
            instance.gone_since = now
        if instance.gone_since is not None and (
            now - instance.gone_since >= self._poll.forget_after
        ):
            self._forget(instance)

    def _forget(self, instance: Instance) -> None:
        """Takes an instance's series away. What was counted of its run stays known."""
        self._sink.forgotten(self.key, instance.id)
        self._log.info("instance is gone, its series too", instance_id=instance.id)
        instance.figures, instance.looks, instance.failure = None, LastLook(), None
        instance.gone_since = None

    def _settle(self) -> None:
        """Ends a round: is the workflow up, and what is there to say?"""
        self.tried = self.tried or all(instance.tried for instance in self._instances)
        failing = [i for i in self._instances if i.failure is not None]
        self.up = not failing
        self._sink.round_over(self.key, up=self.up, at=self._clock.wall())
        self._report(failing)

    def _report(self, failing: list[Instance]) -> None:
        """Says once what is wrong, and once that it is over."""
        troubles = {i.failure.failure: i for i in reversed(failing) if i.failure is not None}
        for trouble, example in troubles.items():
            if trouble not in self._troubles and example.failure is not None:
                self._log.warning(
                    "looks at instances fail; their last known figures stay",
                    result=trouble,
                    instance_id=example.id,
                    instances=sum(
                        i.failure is not None and i.failure.failure == trouble for i in failing
                    ),
                    error=str(example.failure),
                    advice=example.failure.advice,
                )
        if self._troubles and not troubles:
            self._log.info("looks at instances succeed again")
        self._troubles = frozenset(troubles)
