"""Health: what makes no progress is named, by /-/healthy and once in the log."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs

from exporter.app import App
from exporter.config.settings import Settings
from exporter.web.endpoints import endpoints
from exporter.web.server import listen
from simulator import Hang, Rewrite, Script, Simulator, Wait, serve, steps
from simulator.response import Response
from tests.e2e.scrape import scrape, value
from tests.waiting import DEADLINE, until
from tests.watching import Watching, watching

MINUTE = 60.0


async def asked(app: App, path: str = "/-/healthy") -> tuple[int, list[str]]:
    """Status and lines that an endpoint responds with."""
    health = app.health
    site = endpoints(app.exposition, app.view, unhealthy=health.unhealthy, unready=health.unready)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(site)) as http:
        response = await http.get(f"http://exporter{path}")
    return response.status_code, response.text.splitlines()


def parts(lines: list[str]) -> set[str]:
    return {line.partition(":")[0] for line in lines}


def logged(app: App) -> list[tuple[str, str]]:
    """What the watchdog logs: the event, and which part it is about."""
    with capture_logs() as logs:
        app.health.check()
    return [(line["event"], line["part"]) for line in logs]


def crowd(w: Watching, count: int) -> list[str]:
    names = [f"order-{n}" for n in range(count)]
    for name in names:
        w.orders.create(name, Script((Wait("approval"),)))
    return names


class TestScheduler:
    async def test_it_is_named_when_no_round_begins(self) -> None:
        async with watching(["a"], poll={"interval": "15s"}) as w:
            await w.cycle()
            w.clock.advance(MINUTE)
            assert await asked(w.app) == (200, ["healthy"])
            w.clock.advance(MINUTE)
            status, lines = await asked(w.app)
            assert (status, parts(lines)) == (503, {"scheduler"})
            assert "acc/orders" in lines[0]
            assert "120 s" in lines[0]
            await w.cycle()
            assert await asked(w.app) == (200, ["healthy"])


class TestPoller:
    """With rounds that begin and requests that hang beyond all that should end them."""

    @asynccontextmanager
    async def hanging(self, count: int) -> AsyncIterator[Watching]:
        names = [f"order-{n}" for n in range(count)]
        async with watching(names, api={"timeout": "10m"}) as w:
            crowd(w, count)
            await w.cycle()
            w.simulator.faults.add(Hang())
            w.clock.advance(15)
            looking = asyncio.create_task(w.app.pollers[0].round(whole=True))
            await until(lambda: w.simulator.requests.in_flight.total() == min(count, 10))
            assert await asked(w.app) == (200, ["healthy"])
            yield w
            w.simulator.faults.clear()
            await looking
            await w.cycle()
            assert await asked(w.app) == (200, ["healthy"])

    @pytest.mark.parametrize("count", [1, 12], ids=["one", "more than there are places"])
    async def test_it_is_named_when_no_poll_ends(self, count: int) -> None:
        async with self.hanging(count) as w:
            w.clock.advance(11 * MINUTE)
            status, lines = await asked(w.app)
            assert status == 503
            assert "poller" in parts(lines)
            assert [line for line in lines if line.startswith("poller: no poll of acc ended")]

    async def test_a_time_without_anything_to_poll_is_none(self) -> None:
        async with watching(["a"], poll={"ended_interval": "2h"}) as w:
            w.orders.create("a", Script(steps("one")))
            await w.cycle(after=MINUTE)
            await w.cycle(after=11 * MINUTE)
            assert await asked(w.app) == (200, ["healthy"])

    async def test_a_wait_that_cloudflare_ordered_is_none(self) -> None:
        async with self.hanging(12) as w:
            w.app.accounts[0].workflows.queue.budget.rate_limited(20 * MINUTE)
            w.clock.advance(25 * MINUTE)
            assert "poller" not in parts((await asked(w.app))[1])
            w.clock.advance(6 * MINUTE)
            assert "poller" in parts((await asked(w.app))[1])


class TestListPasses:
    @pytest.mark.slow
    async def test_they_are_named_when_no_list_is_read(self) -> None:
        discovered = [{"name": "orders", "discover": {}}]
        async with watching(workflows=discovered, api={"timeout": "10m"}) as w:
            await w.cycle()
            hanging = w.simulator.faults.add(Hang(), kind="list")
            list_pass = asyncio.create_task(w.app.accounts[0].list_passes())
            await until(lambda: hanging.taken)
            w.clock.advance(11 * MINUTE)
            await w.app.pollers[0].round()
            status, lines = await asked(w.app)
            assert (status, parts(lines)) == (503, {"lists"})
            assert "no list of acc" in lines[0]
            w.simulator.faults.clear()
            await list_pass
            await w.cycle()
            assert await asked(w.app) == (200, ["healthy"])

    async def test_a_long_one_that_reads_pages_is_none(self) -> None:
        named: list[set[str]] = []

        def slowly(reply: Response) -> Response:
            w.clock.advance(8 * MINUTE)
            named.append(parts(w.app.health.unhealthy()))
            return reply

        async with watching(workflows=[{"name": "orders", "discover": {}}]) as w:
            await w.cycle()
            crowd(w, 250)
            w.simulator.faults.add(Rewrite(slowly), kind="list")
            await w.app.accounts[0].list_passes()
        assert len(named) >= 3
        assert not any("lists" in names for names in named)

    async def test_a_long_time_between_two_of_them_is_none(self) -> None:
        discovered = [{"name": "orders", "discover": {}}]
        async with watching(workflows=discovered, poll={"interval": "30m"}) as w:
            await w.cycle()
            w.clock.advance(20 * MINUTE)
            assert await asked(w.app) == (200, ["healthy"])


class TestState:
    @pytest.mark.slow
    async def test_it_is_named_when_a_write_does_not_end(self, tmp_path: Path) -> None:
        state = tmp_path / "state.db"
        async with watching(["a"], state=state) as w:
            await w.cycle()
            other = sqlite3.connect(state, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            w.orders.create("a", Script((Wait("approval"),)))
            await w.app.pollers[0].round(whole=True)
            saving = asyncio.create_task(w.saved())
            await until(lambda: w.app.writer.writes_since is not None)
            w.clock.advance(2 * MINUTE)
            status, lines = await asked(w.app)
            assert status == 503
            assert "state" in parts(lines)
            other.close()
            await saving
            await w.cycle()
            assert await asked(w.app) == (200, ["healthy"])

    async def test_it_continues_while_others_keep_all_threads(self, tmp_path: Path) -> None:
        """As a name server does that never responds: each lookup holds a thread for minutes."""
        async with watching(["a"], state=tmp_path / "state.db") as w:
            over = threading.Event()
            loop = asyncio.get_running_loop()
            lookups = [loop.run_in_executor(None, over.wait) for _ in range(100)]
            try:
                async with asyncio.timeout(DEADLINE):
                    await w.cycle()
            finally:
                over.set()
                await asyncio.gather(*lookups)


class TestWatchdog:
    async def test_each_problem_is_reported_once_and_once_that_it_is_over(self) -> None:
        async with watching(["a"], poll={"interval": "15s"}) as w:
            await w.cycle()
            assert logged(w.app) == []
            w.clock.advance(2 * MINUTE)
            assert logged(w.app) == [("no progress", "scheduler")]
            w.clock.advance(MINUTE)
            assert logged(w.app) == []
            await w.cycle()
            assert logged(w.app) == [("progress again", "scheduler")]
            assert logged(w.app) == []


class TestReady:
    @pytest.mark.parametrize("with_state", [False, True], ids=["without state", "with state"])
    @pytest.mark.slow
    async def test_it_comes_when_metrics_shows_what_the_first_polls_brought(
        self, with_state: bool, tmp_path: Path
    ) -> None:
        simulator = Simulator()
        simulator.access.token("secret")
        orders = simulator.world.account("acc").workflow("orders")
        orders.create("a", Script((Wait("approval"),)))
        simulator.faults.add(Hang(), kind="detail")
        async with serve(simulator) as served:
            settings = Settings(
                api={"url": served.url + "/accounts/{account_id}"},
                accounts=[
                    {
                        "name": "acc",
                        "account_id": "acc",
                        "api_token": "secret",
                        "workflows": [{"name": "orders", "instances": ["a"]}],
                    }
                ],
            )
            app = App(settings, state=tmp_path / "state.db" if with_state else None)
            assert value(scrape(app), "cloudflare_workflows_exporter_poll_lag_seconds") == 0
            stop = asyncio.Event()
            with listen("127.0.0.1", 0) as listener:
                running = asyncio.create_task(app.run(listener, stop))
                await until(lambda: simulator.requests.in_flight)
                status, lines = await asked(app, "/-/ready")
                assert status == 503
                assert "acc/orders: the first round isn't over" in lines
                simulator.faults.clear()
                await until(lambda: not app.health.unready())
                assert await asked(app, "/-/ready") == (200, ["ready"])
                name = "cloudflare_workflow_instance_status"
                assert value(scrape(app), name, instance_id="a", status="waiting") == 1
                stop.set()
                await running
