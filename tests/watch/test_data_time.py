"""`data_timestamp_seconds` is the real age of what is shown, never a younger one."""

import asyncio
import random
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks import virtual_time
from benchmarks.api_budget import DAY, EPOCH, rounds, scripts
from exporter.app import App
from exporter.clock import Clock
from exporter.config.settings import Settings
from exporter.metrics import catalogue
from simulator import (
    Attempt,
    Respond,
    Script,
    Simulator,
    Sleep,
    Step,
    Wait,
    World,
    error,
    steps,
)
from simulator.api_results import instance_detail
from simulator.response import success
from tests.exposed import shown_values
from tests.watching import watching

NAME = "cloudflare_workflow_data_timestamp_seconds"
WAITING = Script(pieces=(Wait("approval"),))
INTERVAL = 15.0
LIFE = 42 * 3600.0


def ages(app: App, world: World, now: float) -> tuple[float, float]:
    """Seconds since the status of live instances was last confirmed, 99th percentile, and as the
    metric has it."""
    world.settle()
    (poller,) = app.pollers
    known = {i.id: i.checked_at for i in poller.instances.values()}
    live = sorted(
        now - known.get(instance.id, instance.created / 1000 - EPOCH)
        for status, instances in world.account("acc").workflow("orders").by_status.items()
        if status not in ("complete", "errored", "terminated")
        for instance in instances
    )
    (as_of,) = shown_values(app, catalogue.DATA_TIME)
    return live[int(len(live) * 0.99)], EPOCH + now - as_of


@pytest.mark.slow(2)
@pytest.mark.parametrize(
    ("live", "ended", "configured", "requests", "discovers"),
    [
        (200, 0, 0, 240, True),
        (200, 1200, 0, 240, True),
        (1000, 0, 0, 20, True),
        (1000, 4000, 0, 20, True),
        (1000, 4000, 0, 10, True),
        (500, 2000, 12, 30, True),
        (500, 0, 100, 30, True),
        (20, 0, 20, 600, False),
        (100, 0, 100, 20, False),
    ],
)
def test_it_lies_between_the_real_age_and_twice_that(
    live: int, ended: int, configured: int, requests: int, discovers: bool
) -> None:
    chance = random.Random(live + ended + configured)

    async def main() -> list[tuple[float, float]]:
        loop = asyncio.get_running_loop()
        clock = Clock(wall=lambda: EPOCH + loop.time(), monotonic=loop.time)
        world = World(clock.wall)
        simulator = Simulator(world)
        simulator.access.token("secret")
        orders = world.account("acc").workflow("orders")
        for n in range(ended):
            orders.create(f"old-{n}", Script(steps("done")), at=EPOCH - chance.uniform(1, 6) * DAY)
        for n, script in enumerate(scripts(LIFE, chance, live)):
            orders.create(f"i-{n}", script, at=EPOCH - chance.uniform(0, LIFE))
        ids = [f"i-{n}" for n in range(configured)]
        entry: dict[str, Any] = {"name": "orders", "instances": ids}
        if discovers:
            entry["discover"] = {"max_instances": 100_000}
        app = App(
            Settings.model_validate(
                {
                    "accounts": [
                        {
                            "name": "acc",
                            "account_id": "acc",
                            "api_token": "secret",
                            "workflows": [entry],
                        }
                    ],
                    "api": {
                        "url": "https://simulator/client/v4/accounts/{account_id}",
                        "requests_per_5m": requests,
                    },
                }
            ),
            clock=clock,
            transport=httpx.ASGITransport(simulator),
        )
        found = []
        async with app.opened(), asyncio.TaskGroup() as tasks:
            jobs = [tasks.create_task(app.accounts[0].run()), tasks.create_task(rounds(app))]
            whole = max(INTERVAL, (live / 100 + configured) * 300 / requests)
            await asyncio.sleep(2 * INTERVAL + 3 * whole)  # the first list pass, or first polls
            for _ in range(60):
                await asyncio.sleep(min(1200, 20 * whole) / 60)
                found.append(ages(app, world, loop.time()))
            for job in jobs:
                job.cancel()
        return found

    for real, shown in virtual_time.run(main()):
        assert real - 0.1 <= shown <= 2 * real + INTERVAL


async def test_before_anything_is_known_it_is_the_start() -> None:
    """So that an exporter that sees nothing is one whose data get older and older."""
    async with watching(["a", "b"]) as w:
        start = w.clock()
        w.simulator.faults.add(error(500))
        for _ in range(5):
            await w.round(after=INTERVAL)
            assert w.value(NAME) == start


async def test_while_nothing_can_be_read_it_stands_still() -> None:
    async with watching(["a", "b"]) as w:
        for name in "ab":
            w.orders.create(name, WAITING)
        await w.round(after=INTERVAL)
        known = w.clock()
        w.simulator.faults.add(error(500))
        for _ in range(5):
            await w.round(after=INTERVAL)
            assert w.value(NAME) == known


async def test_responses_that_are_behind_what_is_known_make_it_no_later() -> None:
    async with watching(["a"]) as w:
        instance = w.orders.create("a", Script((Step("pay", (Attempt(20),)), Wait("approval"))))
        await w.round(after=INTERVAL)
        now = w.simulator.world.settle()
        before = {
            kind: success(instance_detail(instance, now, simple=kind == "simple")).body
            for kind in ("simple", "detail")
        }
        await w.round(after=INTERVAL)
        known = w.clock()
        for kind, body in before.items():
            w.simulator.faults.add(Respond(body=body), kind=kind)
        for _ in range(5):
            await w.round(after=INTERVAL)
            assert (w.status("a"), w.value(NAME)) == ("waiting", known)
        w.simulator.faults.clear()
        await w.round(after=INTERVAL)
        assert w.value(NAME) == w.clock()


async def test_one_instance_that_fails_does_not_hold_it_back() -> None:
    async with watching(["a", "bad"]) as w:
        for name in ("a", "bad"):
            w.orders.create(name, WAITING)
        await w.round(after=INTERVAL)
        w.simulator.faults.add(error(500), instance="bad")
        for _ in range(5):
            await w.round(after=INTERVAL)
            assert w.value(NAME) == w.clock()


async def test_one_that_was_deleted_does_not_hold_it_back() -> None:
    async with watching(["a", "deleted"], poll={"forget_after": "1m"}) as w:
        for name in ("a", "deleted"):
            w.orders.create(name, WAITING)
        await w.round(after=INTERVAL)
        w.orders.instances["deleted"].delete()
        await w.round(after=INTERVAL)
        for _ in range(9):
            await w.round(after=INTERVAL)
            assert w.value(NAME) == w.clock()
        assert w.status("deleted") is None


async def test_a_list_pass_that_fails_holds_it_back() -> None:
    async with watching(workflows=[{"name": "orders", "discover": {}}]) as w:
        w.orders.create("a", WAITING)
        await w.cycle(after=INTERVAL)
        known = w.clock()
        w.simulator.faults.add(error(500), kind="list")
        for _ in range(5):
            await w.cycle(after=INTERVAL)
            assert w.value(NAME) == known


@pytest.mark.parametrize(
    "workflow", [{"name": "orders", "instances": ["a"]}, {"name": "orders", "discover": {}}]
)
async def test_after_a_restart_it_is_as_old_as_what_is_shown(
    workflow: dict[str, Any], tmp_path: Path
) -> None:
    async with watching(workflows=[workflow], state=tmp_path / "state.db") as w:
        w.orders.create("a", WAITING)
        await w.cycle(after=INTERVAL)
        known = w.clock()
        w.clock.advance(3600)
        await w.restart()
        w.simulator.faults.add(error(500))
        await w.cycle(after=INTERVAL)
        assert w.status("a") == "waiting"
        assert w.value(NAME) == known
        w.simulator.faults.clear()
        for _ in range(3):
            await w.cycle(after=INTERVAL)
        assert w.value(NAME) == w.clock()


@pytest.mark.parametrize("since", ["the start", "later on"])
async def test_a_clock_that_is_ahead_makes_it_no_later(since: str, tmp_path: Path) -> None:
    async with watching(["a"], state=tmp_path / "state.db") as w:
        w.orders.create("a", Script(pieces=(Sleep("nap", 20), Wait("approval"))))
        w.ahead = 3600
        if since == "the start":
            await w.restart()
        for _ in range(2):
            await w.round(after=INTERVAL)
            assert w.value(NAME) == w.clock()
            changed = "cloudflare_workflow_instance_last_change_timestamp_seconds"
            assert w.value(changed, instance_id="a") == w.clock()
            assert w.value("cloudflare_workflow_last_success_timestamp_seconds") == w.clock()
        await w.reload()
        loaded = "cloudflare_workflows_exporter_config_last_reload_success_timestamp_seconds"
        assert w.value(loaded) == w.clock()


async def test_nor_is_it_earlier_by_a_clock_that_was_behind_at_the_start(tmp_path: Path) -> None:
    async with watching(["a"], state=tmp_path / "state.db") as w:
        w.orders.create("a", WAITING)
        w.ahead = -3600
        await w.restart()
        await w.round(after=INTERVAL)
        w.ahead = 0
        await w.round(after=INTERVAL)
        assert w.value(NAME) == w.clock()


@pytest.mark.parametrize("ahead", [3600, 30 * 86400])
async def test_a_clock_that_was_ahead_before_a_restart_makes_it_no_later(
    ahead: float, tmp_path: Path
) -> None:
    workflow = {"name": "orders", "discover": {}}
    async with watching(workflows=[workflow], state=tmp_path / "state.db") as w:
        w.ahead = ahead
        await w.restart()
        w.orders.create("a", WAITING)
        await w.cycle(after=INTERVAL)
        w.ahead = 0
        await w.restart()
        w.simulator.faults.add(error(500), kind="list")
        await w.app.accounts[0].list_passes()
        await w.saved()
        shown = w.value(NAME)
        assert shown is not None
        assert shown <= w.clock()


@pytest.mark.parametrize("how", ["reload", "restart"])
async def test_one_that_only_rows_showed_is_as_old_as_its_row(how: str, tmp_path: Path) -> None:
    """It had no series, so its steps were never requested; then the configuration names it."""
    counted = [{"name": "orders", "discover": {"min_age": "1h"}}]
    async with watching(workflows=counted, state=tmp_path / "state.db") as w:
        w.orders.create("a", WAITING)
        await w.cycle(after=INTERVAL)
        known = w.clock()
        w.simulator.faults.add(error(500))
        change = w.reload if how == "reload" else w.restart
        await change(workflows=[{"name": "orders", "instances": ["a"]}])
        await w.round(after=INTERVAL)
        assert w.value(NAME) == known


async def test_so_is_one_after_a_restart_before_any_list_pass_has_succeeded(tmp_path: Path) -> None:
    counted = [{"name": "orders", "discover": {"min_age": "1h"}}]
    async with watching(workflows=counted, state=tmp_path / "state.db") as w:
        for n in range(101):
            w.orders.create(f"i-{n}", WAITING, at=w.clock() + n)
        w.simulator.faults.add(error(500), kind="list", skip=1)
        await w.cycle(after=200)
        known = w.clock()
        w.simulator.faults.clear()
        await w.restart()
        for n in range(1, 101):
            w.orders.instances[f"i-{n}"].delete()
        w.clock.advance(INTERVAL)
        await w.app.accounts[0].list_passes()
        await w.saved()
        assert w.value(NAME) == known


async def test_a_deleted_instance_that_lists_once_held_keeps_it_back_until_its_series_expire() -> (
    None
):
    poll = {"forget_after": "1m"}
    async with watching(workflows=[{"name": "orders", "discover": {}}], poll=poll) as w:
        w.orders.create("a", WAITING)
        await w.cycle()
        await w.reload(workflows=[{"name": "orders", "instances": ["a"]}])
        w.orders.instances["a"].delete()
        for _ in range(7):
            await w.cycle(after=INTERVAL)
        assert w.value(NAME) == w.clock()
        assert w.watched() == 0
