"""When rounds begin: at once, then once an interval, until the workflow is removed."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from exporter.watch.poller import Poller
from exporter.watch.scheduler import Scheduler
from tests.watching import Watching, watching


@pytest.fixture
async def watch() -> AsyncIterator[Watching]:
    async with watching(["a"]) as w:
        yield w


@pytest.fixture
async def scheduler() -> AsyncIterator[Scheduler]:
    scheduler = Scheduler()
    yield scheduler
    scheduler.stop()


async def next_round(poller: Poller, w: Watching) -> None:
    """Returns once another round has begun and ended; fails after 30 s."""
    before = poller.round_started
    w.clock.advance(1)
    async with asyncio.timeout(30):
        while poller.round_started == before or not poller.tried:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.01)


async def test_rounds_begin_at_the_start_and_then_once_an_interval(
    watch: Watching, scheduler: Scheduler
) -> None:
    (poller,) = watch.app.pollers
    before = poller.round_started
    watch.clock.advance(1)
    scheduler.add(poller, every=0.05)
    await asyncio.sleep(0.2)
    assert poller.round_started == before
    scheduler.start()
    for _ in range(3):
        await next_round(poller, watch)


async def test_a_clock_that_is_set_delays_no_round(watch: Watching, scheduler: Scheduler) -> None:
    (poller,) = watch.app.pollers
    scheduler.start()
    scheduler.add(poller, every=0.05)
    for ahead in (0.0, 86_400.0, -86_400.0):
        watch.ahead = ahead
        await next_round(poller, watch)


@pytest.mark.parametrize("end", ["pause", "remove"])
async def test_no_round_begins_after_the_end(
    end: str, watch: Watching, scheduler: Scheduler
) -> None:
    (poller,) = watch.app.pollers
    scheduler.start()
    scheduler.add(poller, every=0.05)
    await next_round(poller, watch)
    scheduler.remove(poller) if end == "remove" else scheduler.pause()
    last = poller.round_started
    watch.clock.advance(1)
    await asyncio.sleep(0.3)
    assert poller.round_started == last


async def test_a_fault_in_a_round_does_not_end_the_rounds(
    watch: Watching, scheduler: Scheduler, capsys: pytest.CaptureFixture[str]
) -> None:
    (poller,) = watch.app.pollers
    log, poller._log = poller._log, None  # type: ignore[assignment]
    scheduler.start()
    scheduler.add(poller, every=0.05)
    async with asyncio.timeout(30):
        while "round failed" not in capsys.readouterr().out:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.01)
    poller._log = log
    await next_round(poller, watch)
