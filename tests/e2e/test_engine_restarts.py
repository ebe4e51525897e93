"""Restarts from a step on Cloudflare's real engine: each end counts, and what ran again.

And what runs on after an end.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from demo import LocalEngine
from exporter.app import App
from exporter.clock import Clock
from exporter.config.settings import Settings
from simulator import ManualClock
from tests.e2e.scrape import scrape

pytestmark = pytest.mark.engine

ERRORED = {"errored": 1, "step before": 1, "attempt before": 1, "step charge": 1}
ERRORED |= {"attempt charge": 1}
RECOVERED = ERRORED | {"complete": 1, "step charge": 2, "attempt charge": 2}
RECOVERED |= {"step after": 1, "attempt after": 1}


@dataclass
class Observer:
    """An exporter on the real engine that has a state, clock in hand."""

    app: App
    clock: ManualClock

    async def round(self, *, after: float = 15) -> None:
        self.clock.advance(after)
        for account in self.app.accounts:
            await account.list_passes()
        for poller in self.app.pollers:
            await poller.round(whole=True)
        await self.app.writer.save()

    def counts(self) -> dict[str, float]:
        """Ended runs by status, finished steps and attempts by name."""
        found: Counter[str] = Counter()
        for (name, labels), value in scrape(self.app).items():
            of = dict(labels)
            match name.removeprefix("cloudflare_workflow_"):
                case "runs_finished_total":
                    found[of["status"]] += int(value)
                case "step_duration_seconds_count":
                    found[f"step {of['step']}"] += int(value)
                case "step_attempt_duration_seconds_count":
                    found[f"attempt {of['step']}"] += int(value)
        return dict(+found)

    def status(self, instance_id: str) -> str:
        (found,) = (
            dict(labels)["status"]
            for (name, labels), value in scrape(self.app).items()
            if name == "cloudflare_workflow_instance_status"
            and value == 1
            and dict(labels)["instance_id"] == instance_id
        )
        return found


@asynccontextmanager
async def observing(
    engine: LocalEngine, state: Path, watched: dict[str, Any], ended_interval: str = "15s"
) -> AsyncIterator[Observer]:
    clock = ManualClock(time.time())
    settings: dict[str, Any] = {
        "api": {"url": engine.api, "requests_per_5m": 1_000_000},
        "accounts": [{"name": "local", "workflows": [{"name": "orders", **watched}]}],
        "poll": {"interval": "15s", "ended_interval": ended_interval},
    }
    app = App(Settings(**settings), clock=Clock(wall=clock, monotonic=clock), state=state)
    async with app.opened():
        yield Observer(app, clock)


@pytest.mark.parametrize("discovered", [False, True], ids=["configured", "discovered"])
async def test_each_end_and_what_ran_again_counts_once_more(
    engine: LocalEngine, tmp_path: Path, discovered: bool
) -> None:
    """Restarted while it is watched, and while the exporter is down; status within two polls."""
    name = f"again-{'discovered' if discovered else 'configured'}"
    statuses = ["running", "errored", "complete"]
    selector = {"include": [name], "statuses": statuses, "min_age": "0s"}
    watched = {"discover": selector} if discovered else {"instances": [name]}
    state = tmp_path / "state.db"
    async with observing(engine, state, watched) as o:
        await o.round()
        await asyncio.to_thread(engine.create, "orders", name, "recovers")
        await asyncio.to_thread(engine.wait_for, "orders", name, "errored")
        await o.round()
        await o.round()
        assert (o.status(name), o.counts()) == ("errored", ERRORED)
        await asyncio.to_thread(engine.restart_from, "orders", name, "charge")
        await asyncio.to_thread(engine.wait_for, "orders", name, "complete")
        await o.round()
        await o.round()
        assert (o.status(name), o.counts()) == ("complete", RECOVERED)
    if discovered:
        return  # this engine's rows have no times: complete before and after shows nothing
    await asyncio.to_thread(engine.restart_from, "orders", name, "charge")
    async with observing(engine, state, watched) as o:
        await o.round()
        await o.round()
        assert o.status(name) == "complete"
        again = {"complete": 2, "step charge": 3, "attempt charge": 3, "step after": 2}
        assert o.counts() == RECOVERED | again | {"attempt after": 2}


async def test_what_was_open_beside_the_step_continues(engine: LocalEngine, tmp_path: Path) -> None:
    """It keeps its start and gets another attempt; the interrupted one never finishes."""
    async with observing(engine, tmp_path / "state.db", {"instances": ["race"]}) as o:
        await asyncio.to_thread(engine.create, "orders", "race", "race")
        await asyncio.to_thread(engine.wait_for, "orders", "race", "errored")
        await o.round()
        assert o.counts() == {"errored": 1, "step charge": 1, "attempt charge": 1}
        await asyncio.to_thread(engine.restart_from, "orders", "race", "charge")
        await asyncio.to_thread(engine.wait_for, "orders", "race", "complete")
        await o.round()
        assert o.counts() == {
            "errored": 1,
            "complete": 1,
            "step charge": 2,
            "attempt charge": 2,
            "step slow": 1,
            "attempt slow": 1,
        }


async def test_a_step_that_outlives_its_run_is_counted(engine: LocalEngine, tmp_path: Path) -> None:
    watched = {"instances": ["outlived"]}
    async with observing(engine, tmp_path / "state.db", watched, ended_interval="10m") as o:
        await asyncio.to_thread(engine.create, "orders", "outlived", "outlived", ms=5_000)
        await asyncio.to_thread(engine.wait_for, "orders", "outlived", "errored")
        await o.round()
        await asyncio.to_thread(
            engine.wait_for, "orders", "outlived", lambda r: all(s["end"] for s in r["steps"])
        )
        await o.round(after=300)
        assert o.counts() == {
            "errored": 1,
            "step fails": 1,
            "attempt fails": 1,
            "step slow": 1,
            "attempt slow": 1,
        }
