"""When rounds begin, whatever the wall clock does, by which APScheduler plans."""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from exporter.clock import Clock
from exporter.watch.scheduler import Interval, Scheduler
from simulator import Script, steps
from tests.waiting import DEADLINE
from tests.watching import watching

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("jitter", [None, 0.75], ids=["exact", "with jitter"])
@pytest.mark.parametrize("ago", [timedelta(seconds=20), timedelta(days=1), timedelta(days=20_000)])
def test_missed_times_make_no_backlog(ago: timedelta, jitter: float | None) -> None:
    """A clock that began in 1970 and is set right leaves millions behind."""
    trigger = Interval(seconds=15, jitter=jitter, timezone="UTC")
    at, missed = NOW - ago, 0
    while at <= NOW:
        missed += 1
        following = trigger.get_next_fire_time(at, NOW)
        assert following is not None
        at = following
    assert missed <= 4
    assert at <= NOW + timedelta(seconds=16)


@pytest.fixture
def impossible_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A time zone that libc takes, 99 hours from UTC, and Python doesn't."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC+99")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("impossible_zone")
async def test_the_local_time_zone_does_not_matter() -> None:
    async with watching(["a"]) as w:
        w.orders.create("a", Script(steps("fetch")))
        await w.cycle(after=15)
        assert w.status("a") == "complete"


@pytest.mark.parametrize("by", [86_400.0, -86_400.0])
async def test_a_clock_that_is_set_has_rounds_begin_at_once(by: float) -> None:
    async with watching(["a"]) as w:
        scheduler = Scheduler(Clock(wall=lambda: w.clock() + w.ahead, monotonic=w.clock))
        (poller,) = w.app.pollers
        scheduler.add(poller, every=3600.0)
        scheduler.start()
        try:
            for rounds in (1, 2):
                async with asyncio.timeout(DEADLINE):
                    # A round under way, its request made already, is one that has begun.
                    while w.simulator.requests.total < rounds or not poller.tried:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                w.clock.advance(15)
                w.ahead = by
                with capture_logs() as logs:
                    scheduler.restart_jobs_if_clock_was_set()
                logged = [
                    line["by"] for line in logs if line["event"] == "the system's clock was set"
                ]
                assert logged == ([f"{by:+.1f}s"] if rounds == 1 else [])
        finally:
            scheduler.stop()
