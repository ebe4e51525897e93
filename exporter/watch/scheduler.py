"""Begins the rounds of each watched workflow, with one APScheduler job for each."""

import asyncio
from datetime import UTC, datetime

import structlog
from apscheduler.job import Job
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from exporter.clock import Clock
from exporter.watch.poller import Poller

log = structlog.get_logger(__name__)

_CHECK_EVERY = 1.0
_SLEW = 1.0
"""Seconds up to which a jump of the clock is an adjustment that changes nothing."""


class Interval(IntervalTrigger):  # type: ignore[misc]
    """An interval that begins again with each round, so that no times are missed.

    APScheduler steps through those one by one; there are millions when a clock is set that began in
    1970.
    """

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime | None:
        following: datetime | None = super().get_next_fire_time(previous and now, now)
        return following


class Scheduler:
    """Begins a round over each workflow at once, and then once per interval, with a little jitter
    so that the rounds of different workflows spread.

    Rounds of one workflow never overlap. If several were missed, as on a suspended machine, one is
    made. APScheduler goes by the wall clock, so every job begins at once when that is set.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset = clock.wall() - clock.monotonic()
        self._jobs = AsyncIOScheduler(timezone="UTC", job_defaults={"misfire_grace_time": None})

    def add(self, poller: Poller, *, every: float) -> Job:
        """Begins a round now, and then one each `every` seconds, until the job is removed."""
        return self._jobs.add_job(
            poller.round,
            Interval(seconds=every, jitter=every / 20, timezone="UTC"),
            name=f"{poller.key.account}/{poller.key.workflow}",
            next_run_time=datetime.now(UTC),
        )

    def start(self) -> None:
        self._jobs.start()

    async def watch_clock(self) -> None:
        """Begins every job at once whenever the wall clock was set. Never returns."""
        while True:
            await asyncio.sleep(_CHECK_EVERY)
            self.restart_jobs_if_clock_was_set()

    def restart_jobs_if_clock_was_set(self) -> None:
        """Begins every job now if the wall clock was set since the last check."""
        offset = self._clock.wall() - self._clock.monotonic()
        step, self._offset = offset - self._offset, offset
        if abs(step) > _SLEW:
            log.warning("the system's clock was set", by=f"{step:+.1f}s")
            for job in self._jobs.get_jobs():
                job.modify(next_run_time=datetime.now(UTC))

    def stop(self) -> None:
        """Begins no more rounds. Those under way continue, which a shutdown would cancel."""
        self._jobs.pause()
