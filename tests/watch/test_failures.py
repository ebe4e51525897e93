"""Polls that fail: one instance's problem stays its own, a workflow's is seen at once."""

import asyncio
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from benchmarks import virtual_time
from benchmarks.api_budget import EPOCH, rounds
from exporter.app import App
from exporter.clock import Clock
from exporter.config.settings import Settings
from exporter.metrics import catalogue
from simulator import (
    HOSTED,
    LOCAL_ENGINE,
    Attempt,
    Error,
    Hang,
    Respond,
    Script,
    Simulator,
    Sleep,
    Step,
    Style,
    Wait,
    World,
    error,
    garbage,
    html,
    steps,
)
from tests.exposed import shown_values
from tests.watching import Watching, watching

WAITING = Script(pieces=(Wait("approval"),))
INTERVAL = 15.0
GOOD = [f"good-{n}" for n in range(5)]
UP = "cloudflare_workflow_up"
ABSENT = error(404, 10400, "instance.not_found")


def failing(w: Watching) -> dict[str, float]:
    """Failing instances by class of failure, where there are any."""
    samples = w.samples("cloudflare_workflow_failing_instances")
    return {dict(labels)["result"]: value for labels, value in samples.items() if value}


def both(ids: list[str]) -> pytest.MarkDecorator:
    """Configured one by one, and discovered."""
    return pytest.mark.parametrize(
        "workflow",
        [{"name": "orders", "instances": ids}, {"name": "orders", "discover": {}}],
        ids=["configured", "discovered"],
    )


def up_in_short_rounds(
    workflow: dict[str, Any], instances: dict[str, Script], fails: str, fault: Any
) -> list[float]:
    """`up`, every interval from when one instance fails: a round is over before its polls are."""

    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        clock = Clock(wall=lambda: EPOCH + loop.time(), monotonic=loop.time)
        simulator = Simulator(World(clock.wall))
        simulator.access.token("secret")
        for name, script in instances.items():
            simulator.world.account("acc").workflow("orders").create(name, script)
        account = {"account_id": "acc", "api_token": "secret", "workflows": [workflow]}
        url = "https://simulator/client/v4/accounts/{account_id}"
        api = {"url": url, "requests_per_5m": 12, "timeout": "20s"}
        settings = {"api": api, "accounts": [account]}
        transport = httpx.ASGITransport(simulator)
        app = App(Settings.model_validate(settings), clock=clock, transport=transport)
        found = list[float]()
        async with app.opened(), asyncio.TaskGroup() as tasks:
            jobs = [tasks.create_task(app.accounts[0].run()), tasks.create_task(rounds(app))]
            await asyncio.sleep(300)
            simulator.faults.add(fault, instance=fails)
            for _ in range(40):
                await asyncio.sleep(INTERVAL)
                found += shown_values(app, catalogue.UP)
            assert sum(shown_values(app, catalogue.FAILING)) == 1
            for job in jobs:
                job.cancel()
        return found

    return virtual_time.run(main())


class TestOneInstance:
    @pytest.mark.slow
    @both([*GOOD, "bad"])
    @pytest.mark.parametrize(
        ("fault", "result"), [(error(500), "http_5xx"), (garbage(), "invalid_answer")]
    )
    async def test_its_workflow_stays_up(
        self, workflow: dict[str, Any], fault: Any, result: str
    ) -> None:
        async with watching(workflows=[workflow]) as w:
            for name in (*GOOD, "bad"):
                w.orders.create(name, WAITING)
            w.simulator.faults.add(fault, instance="bad")
            for _ in range(40):
                await w.cycle(after=INTERVAL)
                assert w.value(UP) == 1
                assert failing(w) == {result: 1}
            w.simulator.faults.clear()
            for _ in range(40):
                await w.cycle(after=INTERVAL)
            assert failing(w) == {}

    @pytest.mark.parametrize("fails", [False, True])
    async def test_polling_everything_once_fails(self, *, fails: bool) -> None:
        async with watching(["good", "bad"]) as w:
            w.orders.create("good", WAITING)
            w.orders.create("bad", WAITING)
            if fails:
                w.simulator.faults.add(error(500), instance="bad")
            assert await App(w.whole_settings(), transport=w.transport).once() is not fails

    @pytest.mark.parametrize("restarted", [False, True])
    @pytest.mark.parametrize("style", [HOSTED, LOCAL_ENGINE], ids=["hosted", "local engine"])
    async def test_its_end_shows_though_its_steps_cannot_be_read(
        self, tmp_path: Path, style: Style, *, restarted: bool
    ) -> None:
        runs = "cloudflare_workflow_runs_finished_total"
        async with watching(["good", "bad"], style=style, state=tmp_path / "state.db") as w:
            w.orders.create("good", WAITING)
            w.orders.create("bad", Script((Sleep("nap", 60),), throws=Error("TypeError")))
            await w.round(after=INTERVAL)
            w.simulator.faults.add(error(500), instance="bad", kind="detail")
            for _ in range(12):
                await w.round(after=INTERVAL)
            assert w.status("bad") == "errored"
            assert (w.value(runs, status="errored"), failing(w)) == (1, {"http_5xx": 1})
            if restarted:
                await w.restart()
            w.simulator.faults.clear()
            for _ in range(20):
                await w.round(after=INTERVAL)
            assert (w.value(runs, status="errored"), failing(w)) == (1, {})
            durations = w.samples("cloudflare_workflow_step_duration_seconds_count")
            nap = {"step": "nap", "step_type": "sleep", "outcome": "success"}
            assert durations[tuple(sorted(nap.items()))] == 1
            errors = w.samples("cloudflare_workflow_instance_error_info")
            assert [dict(labels)["error_name"] for labels in errors] == ["TypeError"]

    async def test_its_pauses_grow_to_ended_interval(self) -> None:
        async with watching(["good", "bad"], poll={"ended_interval": "4m"}) as w:
            for name in ("good", "bad"):
                w.orders.create(name, WAITING)
            fault = w.simulator.faults.add(error(500), instance="bad")
            polled = []
            for n in range(60):
                before = fault.taken
                await w.round(after=INTERVAL)
                if fault.taken > before:
                    polled.append(n)
            pauses = [b - a for a, b in pairwise(polled)]
            assert pauses == [1, 2, 4, 8, 16, 16]

    async def test_it_is_polled_at_every_interval_again_once_it_can_be_read(self) -> None:
        async with watching(["good", "bad"]) as w:
            for name in ("good", "bad"):
                w.orders.create(name, WAITING)
            w.simulator.faults.add(error(500), instance="bad", times=3)
            for _ in range(9):
                await w.round(after=INTERVAL)
            assert w.status("bad") == "waiting"
            for _ in range(3):
                assert await w.round(after=INTERVAL) == {"simple": 2}

    async def test_it_leaves_the_workflow_up_where_the_others_are_not_due(self) -> None:
        """One of those is polled to find out."""
        async with watching(["ended", "bad"]) as w:
            w.orders.create("ended", Script(steps("pay")))
            w.orders.create("bad", WAITING)
            await w.round(after=60)
            w.simulator.faults.add(error(500), instance="bad")
            assert await w.round(after=INTERVAL) == {"simple": 2}
            assert (w.value(UP), failing(w)) == (1, {"http_5xx": 1})
            for _ in range(20):
                await w.round(after=INTERVAL)
                assert w.value(UP) == 1

    @both(["good", "bad"])
    def test_it_leaves_the_workflow_up_where_polls_of_the_others_wait(
        self, workflow: dict[str, Any]
    ) -> None:
        """Of a small budget: the round is over before their turn has come."""

        bad = Script((Step("pay", (Attempt(400, Error("Declined")),)),))
        shown = up_in_short_rounds(workflow, {"good": WAITING, "bad": bad}, "bad", error(500))
        assert set(shown) == {1}

    @pytest.mark.slow
    @both([*GOOD, *(f"bad-{n}" for n in range(30))])
    async def test_thirty_cost_less_than_a_twentieth_of_the_budget(
        self, workflow: dict[str, Any]
    ) -> None:
        """After ten minutes, in ten minutes more, of 600 requests in 5 minutes."""
        async with watching(workflows=[workflow]) as w:
            for n in range(30):
                w.orders.create(f"bad-{n}", WAITING)
            for name in GOOD:
                w.orders.create(name, WAITING)
            fault = w.simulator.faults.add(error(500), path="instances/bad-")
            for _ in range(40):
                await w.cycle(after=INTERVAL)
            before = fault.taken
            for _ in range(40):
                await w.cycle(after=INTERVAL)
            assert 0 < fault.taken - before < 0.05 * 1200


class TestWorkflow:
    @pytest.mark.slow
    @both(["a", "b", "ended"])
    async def test_it_is_down_when_every_poll_fails(self, workflow: dict[str, Any]) -> None:
        """At once, though an ended instance isn't due, and up again with the first response."""
        async with watching(workflows=[workflow]) as w:
            w.orders.create("a", WAITING)
            w.orders.create("b", WAITING)
            w.orders.create("ended", Script(steps("pay")))
            await w.cycle(after=60)
            assert w.value(UP) == 1
            w.simulator.faults.add(error(500))
            for _ in range(80):
                await w.cycle(after=INTERVAL)
                assert w.value(UP) == 0
            assert w.status("a") == w.status("b") == "waiting"
            w.simulator.faults.clear()
            w.orders.instances["a"].terminate()
            await w.cycle(after=INTERVAL)
            assert w.value(UP) == 1
            await w.cycle(after=INTERVAL)
            assert w.status("a") == "terminated"
            assert failing(w) == {}

    def test_it_is_down_where_each_poll_of_its_only_instance_outlasts_a_round(self) -> None:
        """The next one of an instance that has failed shows nothing of others."""
        workflow = {"name": "orders", "instances": ["only"]}
        shown = up_in_short_rounds(workflow, {"only": WAITING}, "only", Hang())
        assert set(shown[4:]) == {0}

    @pytest.mark.slow
    async def test_while_it_is_down_one_instance_is_polled_an_interval(self) -> None:
        names = [f"order-{n}" for n in range(20)]
        async with watching(names) as w:
            for name in names:
                w.orders.create(name, WAITING)
            fault = w.simulator.faults.add(error(500))
            for _ in range(80):
                await w.round(after=INTERVAL)
            before = fault.taken
            for _ in range(40):
                await w.round(after=INTERVAL)
            assert 40 <= fault.taken - before <= 80

    async def test_it_is_up_again_once_nothing_is_left_that_fails(self) -> None:
        """The only instance can't be read, and expires; lists are read all the time."""
        workflows = [{"name": "orders", "discover": {}}]
        async with watching(workflows=workflows, poll={"forget_after": "1m"}) as w:
            await w.cycle()
            for kind in ("simple", "detail"):
                w.simulator.faults.add(error(500), kind=kind)
            w.orders.create("a", Script(steps("pay")))
            await w.cycle(after=INTERVAL)
            assert (w.value(UP), w.watched()) == (0, 1)
            for _ in range(8):
                await w.cycle(after=INTERVAL)
            assert (w.value(UP), w.watched()) == (1, 0)
            assert w.value("cloudflare_workflow_data_timestamp_seconds") == w.clock()


class TestAbsence:
    async def test_a_listed_instance_that_is_deleted_is_logged_once_and_its_series_expire(
        self,
    ) -> None:
        async with watching(["a", "b"], poll={"forget_after": "5m"}) as w:
            for name in ("a", "b"):
                w.orders.create(name, WAITING)
            await w.round()
            w.orders.instances["a"].delete()
            with capture_logs() as logs:
                for _ in range(10):
                    await w.round(after=INTERVAL)
                    assert w.value(UP) == 1
                    assert w.status("a") == "waiting"
                for _ in range(20):
                    await w.round(after=INTERVAL)
            assert w.value(UP) == 1
            assert failing(w) == {}
            assert w.status("a") is None
            assert w.status("b") == "waiting"
            assert [(line["event"], line["instance_id"]) for line in logs] == [
                ("instance was deleted; its series will expire", "a")
            ]

    async def test_what_is_created_and_deleted_again_is_logged_again(self) -> None:
        with capture_logs() as logs:
            async with watching(["a", "b"]) as w:
                for _ in range(2):
                    await w.round(after=INTERVAL)
                for _ in range(2):
                    w.orders.create("a", WAITING)
                    await w.round(after=INTERVAL)
                    w.orders.instances["a"].delete()
                    for _ in range(3):
                        await w.round(after=INTERVAL)
        assert [(line["event"], line["instance_id"]) for line in logs] == [
            ("instances not found; will keep checking", "a"),
            ("instance was deleted; its series will expire", "a"),
            ("instance was deleted; its series will expire", "a"),
        ]

    async def test_one_response_alone_takes_nothing_away(self) -> None:
        async with watching(["a"], poll={"forget_after": "30s"}) as w:
            w.orders.create("a", WAITING)
            await w.round()
            for _ in range(3):
                w.simulator.faults.add(ABSENT, times=1)
                await w.round(after=INTERVAL)
                await w.round(after=INTERVAL)
            await w.round(after=60)
            assert w.status("a") == "waiting"


class TestOther404s:
    """Of the API's wrong routes, of proxies: failures like any other."""

    KINDS = pytest.mark.parametrize(
        "fault",
        [error(404, 7003, "Could not route"), html(404), Respond(status=404), error(404)],
        ids=["wrong route", "page", "nothing", "unknown code"],
    )

    @KINDS
    @both(["a", "b"])
    async def test_they_take_nothing_away(self, workflow: dict[str, Any], fault: Any) -> None:
        async with watching(workflows=[workflow], poll={"forget_after": "1m"}) as w:
            for name in ("a", "b"):
                w.orders.create(name, WAITING)
            await w.cycle(after=1)
            w.simulator.faults.add(fault)
            for _ in range(20):
                await w.cycle(after=INTERVAL)
                assert w.value(UP) == 0
            assert w.status("a") == w.status("b") == "waiting"

    @KINDS
    @both(["a", "b"])
    async def test_from_the_start(self, workflow: dict[str, Any], fault: Any) -> None:
        async with watching(workflows=[workflow]) as w:
            w.simulator.faults.add(fault)
            await w.cycle()
            assert w.value(UP) == 0
            assert w.app.health.unready() == ["acc: nothing can be read; the log says why"]


class TestMissingWorkflow:
    @pytest.mark.parametrize("entry", [{"instances": ["a", "b"]}, {"discover": {}}])
    async def test_it_is_a_failure_of_its_own_and_logged_once(self, entry: dict[str, Any]) -> None:
        workflows = [{"name": "orders", "discover": {}}, {"name": "ordres", **entry}]
        with capture_logs() as logs:
            async with watching(workflows=workflows) as w:
                w.orders.create("a", WAITING)
                for _ in range(5):
                    await w.cycle(after=60)
                ups = {p.key.workflow: p.up for p in w.app.pollers}
                assert ups == {"orders": True, "ordres": False}
                assert w.app.health.unready() == []
                counts = {
                    dict(labels)["status"]: value
                    for labels, value in w.samples("cloudflare_workflow_instances").items()
                }
                assert counts["waiting"] == 1
        logged = [line["workflow"] for line in logs if line["log_level"] == "warning"]
        assert logged == ["ordres"]


class TestReady:
    """An exporter that could never read anything isn't ready, and `--once` exits with 1."""

    @both(["a"])
    async def test_it_is_not_while_nothing_can_be_read(self, workflow: dict[str, Any]) -> None:
        async with watching(workflows=[workflow]) as w:
            w.orders.create("a", WAITING)
            w.simulator.faults.add(error(500))
            for _ in range(3):
                await w.cycle(after=INTERVAL)
                assert w.app.health.unready() == ["acc: nothing can be read; the log says why"]
            w.simulator.faults.clear()
            await w.cycle(after=INTERVAL)
            assert w.app.health.unready() == []

    async def test_nor_where_the_first_round_comes_before_the_lists(self) -> None:
        """As it does in the daemon, with nothing to poll yet."""
        async with watching(workflows=[{"name": "orders", "discover": {}}]) as w:
            w.orders.create("a", WAITING)
            refused = w.simulator.faults.add(error(401, 10000, "Authentication error"))
            for interval in (0, INTERVAL):
                await w.round(after=interval)
                assert w.value("cloudflare_workflow_up") == 0
            (account,) = w.app.accounts
            await account.list_passes()
            await w.saved()
            assert w.value("cloudflare_workflow_up") == 0
            assert w.value("cloudflare_workflow_last_success_timestamp_seconds") == 0
            assert w.app.health.unready() == ["acc: nothing can be read; the log says why"]
            w.simulator.faults.remove(refused)
            w.clock.advance(INTERVAL)
            await account.list_passes()
            await w.saved()
            assert w.value("cloudflare_workflow_up") == 1
            assert w.watched() == 1
            assert w.app.health.unready() == []

    async def test_one_instance_does_not_hold_it_up(self) -> None:
        async with watching(["good", "bad"]) as w:
            for name in ("good", "bad"):
                w.orders.create(name, WAITING)
            w.simulator.faults.add(error(500), instance="bad")
            await w.cycle()
            assert w.app.health.unready() == []


@pytest.mark.parametrize("kinds", [("simple", "detail"), ("simple", "detail", "workflows")])
async def test_a_workflow_that_is_in_the_list_and_is_not_found_all_the_same_is_reported(
    kinds: tuple[str, ...],
) -> None:
    """The account's list doesn't say it, so the polls do: once."""
    async with watching(["a", "b"]) as w:
        w.orders.create("a", Script(steps("pay")))
        for kind in kinds:
            w.simulator.faults.add(error(404, 10200, "workflow.not_found"), kind=kind)
        with capture_logs() as lines:
            for _ in range(3):
                await w.cycle(after=15)
        (line,) = [line for line in lines if line["log_level"] == "warning"]
        assert (line["result"], line["workflow"]) == ("workflow_not_found", "orders")
        assert w.value("cloudflare_workflow_up") == 0
