"""One APScheduler job a watched workflow: its rounds, evenly apart; and chores."""

from collections.abc import Awaitable, Callable
from datetime import datetime

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from exporter.watch.poller import Poller


class Scheduler:
    """Begins a round over each workflow at once and then every `interval` seconds, with a little
    jitter so that workflows don't call in step.

    Rounds of one workflow never overlap, and rounds missed (a suspended machine) are made once.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._jobs = AsyncIOScheduler(
            timezone="UTC",
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )

    def add(self, poller: Poller) -> None:
        self._jobs.add_job(
            poller.round,
            IntervalTrigger(seconds=self._interval, jitter=self._interval / 20, timezone="UTC"),
            id=_id(poller),
            next_run_time=datetime.now().astimezone(),
        )

    def add_chore(self, chore: Callable[[], None], *, every: float) -> None:
        """Something that is done every so many seconds."""
        self._jobs.add_job(_in_the_loop(chore), IntervalTrigger(seconds=every, timezone="UTC"))

    def remove(self, poller: Poller) -> None:
        self._jobs.remove_job(_id(poller))

    def start(self) -> None:
        self._jobs.start()

    def pause(self) -> None:
        """Begins no more rounds; those under way go on."""
        self._jobs.pause()

    def stop(self) -> None:
        self._jobs.shutdown(wait=False)


def _in_the_loop(chore: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    # APScheduler runs plain functions in threads.
    async def run() -> None:
        chore()

    return run


def _id(poller: Poller) -> str:
    return f"{poller.key.account}/{poller.key.workflow}"
