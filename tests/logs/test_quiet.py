"""What a daemon's log holds: nothing as long as nothing happens, a line for a change, and little of
what comes and goes."""

import json
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from exporter.clock import Clock
from exporter.log_dedup import OpenProblems, Throttle
from simulator import ManualClock, Script, Simulator, Wait, error, serve_in_thread, steps
from tests.e2e.daemon import configuration, daemon
from tests.waiting import wait_until
from tests.watching import watching

WAITING = Script(pieces=(*steps("a"), Wait("approval")))
DISCOVERED = [{"name": "orders", "discover": {}}]


@pytest.mark.process
@pytest.mark.parametrize("watch", ["listed", "discovered"])
def test_a_daemon_at_rest_says_nothing(tmp_path: Path, watch: str) -> None:
    """Not in round after round, list pass after list pass and scrape after scrape."""
    simulator = Simulator()
    simulator.access.token("secret")
    orders = simulator.world.account("acc").workflow("orders")
    for number in range(3):
        orders.create(f"order-{number}", WAITING)
    more = {"workflows": DISCOVERED} if watch == "discovered" else {}
    with serve_in_thread(simulator) as served:
        url = served.url + "/accounts/{account_id}"
        configuration(tmp_path, url, api_token="secret", **more)
        with daemon(tmp_path, "--log.format=json") as running:
            running.wait_until_ready()
            kind = "list" if watch == "discovered" else "simple"
            wait_until(lambda: simulator.requests.by_kind[kind] >= 10, running.stderr)
            running.metrics()
            running.http.get("/nothing")
            lines = [json.loads(line)["msg"] for line in running.stderr().splitlines()]
            assert lines == ["watching"]
            assert running.stop() == 0
        assert [json.loads(line)["msg"] for line in running.stderr().splitlines()] == [
            "watching",
            "stopping",
        ]


async def test_what_instances_do_is_no_news() -> None:
    """That is what metrics are for: ten thousand instances would fill any log."""
    async with watching(workflows=DISCOVERED) as w:
        w.orders.create("a", WAITING)
        w.orders.create("b", Script(steps("a")))
        with capture_logs() as logs:
            for _ in range(5):
                await w.cycle(after=15)
        assert w.status("a") == "waiting"
        assert [e for e in logs if e["log_level"] != "debug"] == []


class TestWhatComesAndGoes:
    async def test_a_flapping_api_is_reported_once_in_five_minutes(self) -> None:
        async with watching(["a"]) as w:
            w.orders.create("a", WAITING)
            await w.round()
            with capture_logs() as logs:
                for _ in range(20):  # ten minutes
                    fault = w.simulator.faults.add(error(500))
                    await w.round(after=15)
                    w.simulator.faults.remove(fault)
                    await w.round(after=15)
        assert [e["event"] for e in logs] == [
            "failed to poll instances; keeping last known values",
            "instances can be polled and listed again",
        ] * 2

    async def test_what_came_back_and_stays_is_reported_in_the_end(self) -> None:
        async with watching(["a"]) as w:
            w.orders.create("a", WAITING)
            await w.round()
            fault = w.simulator.faults.add(error(500))
            await w.round(after=15)
            w.simulator.faults.remove(fault)
            await w.round(after=15)
            w.simulator.faults.add(error(500))
            with capture_logs() as logs:
                for _ in range(30):
                    await w.round(after=15)
        (line,) = logs
        assert line["event"] == "failed to poll instances; keeping last known values"

    async def test_what_all_workflows_fail_with_is_reported_of_one_of_them(self) -> None:
        """And of another one every 5 minutes; the page and the metrics show all."""
        names = ["billing", "orders", "reports"]
        async with watching(workflows=[{"name": n, "instances": ["a"]} for n in names]) as w:
            for name in names:
                w.simulator.world.account("acc").workflow(name).create("a", WAITING)
            await w.round()
            fault = w.simulator.faults.add(error(500))
            with capture_logs() as logs:
                for _ in range(39):  # just under ten minutes
                    await w.round(after=15)
                w.simulator.faults.remove(fault)
                await w.round(after=15)
                await w.round(after=900)
        assert [(e["log_level"], e["workflow"]) for e in logs] == [
            ("warning", "billing"),
            ("warning", "orders"),
            ("info", "billing"),
            ("info", "orders"),
        ]

    async def test_a_flapping_list_of_workflows(self) -> None:
        async with watching(workflows=DISCOVERED) as w:
            await w.cycle()
            with capture_logs() as logs:
                for _ in range(5):
                    fault = w.simulator.faults.add(error(500), kind="workflows")
                    await w.cycle(after=30)
                    w.simulator.faults.remove(fault)
                    await w.cycle(after=30)
        assert [e["event"] for e in logs] == [
            "failed to list the account's workflows; still watching those known",
            "the account's workflows can be listed again",
        ]

    @pytest.mark.parametrize(
        ("name", "reported"),
        [
            ("orders", "no workflow matches this name; will keep checking"),
            ("*", "workflow no longer exists; its series expired"),
        ],
    )
    async def test_a_workflow_that_is_deleted(self, name: str, reported: str) -> None:
        """Its lists and polls say so before the account's list does, and nothing is there again."""
        async with watching(workflows=[{"name": name, "discover": {}}]) as w:
            w.simulator.world.account("acc").workflow("billing")
            w.orders.create("a", WAITING)
            for _ in range(3):
                await w.cycle(after=15)
            del w.simulator.world.account("acc").workflows["orders"]
            with capture_logs() as logs:
                for _ in range(6):
                    await w.cycle(after=15)
        assert [e["event"] for e in logs] == [reported]

    async def test_a_workflow_that_is_created_later(self) -> None:
        async with watching(workflows=[{"name": "later", "instances": ["a"]}]) as w:
            with capture_logs() as logs:
                await w.cycle()
                w.simulator.world.account("acc").workflow("later").create("a", WAITING)
                for _ in range(4):
                    await w.cycle(after=15)
        shown = [e for e in logs if e["log_level"] != "debug"]
        assert [(e["event"], e["workflow"]) for e in shown] == [
            ("no workflow matches this name; will keep checking", "later"),
            ("workflow found", "later"),
        ]

    async def test_a_process_that_stands_still_again_and_again(self) -> None:
        async with watching(["a"]) as w:
            with capture_logs() as logs:
                for _ in range(10):
                    w.clock.advance(10)
                    w.app.health.check(stalled_for=9)
        assert [e["event"] for e in logs if "stalled" in e["event"]] == [
            "event loop stalled; resuming"
        ]


class TestInstancesThatAreNotThere:
    async def test_are_one_line_however_many(self) -> None:
        async with watching([f"o-{n}" for n in range(50)]) as w:
            with capture_logs() as logs:
                await w.round()
                fault = w.simulator.faults.add(error(500))
                await w.round(after=15)
                w.simulator.faults.remove(fault)
                await w.round(after=15)
        (line,) = (e for e in logs if "instances not found" in e["event"])
        assert (line["log_level"], line["instances"], line["instance_id"]) == ("info", 50, "o-0")

    async def test_a_deleted_one_is_not_reported_as_awaited_too(self) -> None:
        async with watching(["a"], poll={"forget_after": "30s"}) as w:
            a = w.orders.create("a", WAITING)
            await w.round()
            a.delete()
            with capture_logs() as logs:
                for _ in range(8):
                    await w.round(after=15)
        logged = [e["event"] for e in logs]
        assert "instance was deleted; its series will expire" in logged
        assert [event for event in logged if "instances not found" in event] == []


class TestTroubles:
    def test_each_is_reported_when_it_begins_and_their_end_once(self) -> None:
        problems = OpenProblems(Throttle(Clock(monotonic=ManualClock())))
        assert problems.news(["a"]) == {"a"}
        assert problems.news(["a", "b"]) == {"b"}
        assert not problems.over(["b"])
        assert problems.over([])
        assert not problems.over([])

    def test_one_that_returns_soon_is_not_reported_and_neither_is_its_end(self) -> None:
        clock = ManualClock()
        problems = OpenProblems(Throttle(Clock(monotonic=clock)))
        assert problems.news(["a"])
        assert problems.over([])
        clock.advance(299)
        assert not problems.news(["a"])
        assert not problems.over([])
        clock.advance(1)
        assert problems.news(["a"])
        assert problems.over([])
