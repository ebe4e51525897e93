"""One APScheduler job a watched workflow: its rounds, evenly apart."""

from datetime import datetime

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from exporter.watch.poller import Poller


def schedule(pollers: list[Poller], *, interval: float) -> AsyncIOScheduler:
    """A scheduler, not started yet, that begins a round over each workflow at once and then every
    `interval` seconds, with a little jitter so that workflows don't call in step.

    Rounds of one workflow never overlap, and rounds missed (a suspended machine) are made once.
    """
    scheduler = AsyncIOScheduler(
        timezone="UTC",
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
    )
    for poller in pollers:
        scheduler.add_job(
            poller.round,
            IntervalTrigger(seconds=interval, jitter=interval / 20, timezone="UTC"),
            name=f"{poller.key.account}/{poller.key.workflow}",
            next_run_time=datetime.now().astimezone(),
        )
    return scheduler
