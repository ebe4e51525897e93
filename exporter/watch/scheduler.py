"""When rounds begin: a task for each watched workflow, with its rounds evenly apart."""

import asyncio
import random

import structlog

from exporter.watch.poller import Poller

log = structlog.get_logger(__name__)

_JITTER = 1 / 20
"""Of an interval, so that the rounds of several workflows spread."""


class Scheduler:
    """Begins a round over each workflow at once and then once an interval.

    Rounds of one workflow never overlap, and rounds missed (a suspended machine) are made once.
    """

    def __init__(self) -> None:
        self._running = asyncio.Event()
        self._tasks: dict[Poller, asyncio.Task[None]] = {}

    def add(self, poller: Poller, *, every: float) -> None:
        """Begins a round now, or at the start, and then one each `every` seconds."""
        self._tasks[poller] = asyncio.create_task(self._rounds(poller, every))

    def remove(self, poller: Poller) -> None:
        self._tasks.pop(poller).cancel()

    def start(self) -> None:
        self._running.set()

    def pause(self) -> None:
        """Begins no more rounds; those under way continue."""
        self._running.clear()

    def stop(self) -> None:
        for task in self._tasks.values():
            task.cancel()

    async def _rounds(self, poller: Poller, every: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            await self._running.wait()
            try:
                await poller.round()
            except Exception:  # a fault of ours: it must not end the watching
                log.exception("round failed: a fault of the exporter", **poller.key._asdict())
            due = max(due + every, loop.time())
            jitter = random.uniform(-every, every) * _JITTER  # noqa: S311 - no secret
            await asyncio.sleep(due + jitter - loop.time())
