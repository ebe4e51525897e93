"""Which discovered instances have series: old enough ones, errored and live ones before others."""

import random
from pathlib import Path
from typing import Any

import pytest

from simulator import Error, Script, Sleep, Wait, error, steps
from tests.watching import Watching, watching

INTERVAL = 15.0
WAITING = Script(pieces=(Wait("approval"),))
SHORT = Script(steps("pay", duration=5))
DROPPED = "cloudflare_workflows_exporter_instances_dropped_total"


def discover(**settings: object) -> list[dict[str, object]]:
    return [{"name": "orders", "discover": settings}]


def failing(seconds: float) -> Script:
    return Script(pieces=(Sleep("nap", seconds),), throws=Error("TypeError"))


def status_of(w: Watching, instance_id: str) -> str:
    return w.orders.instances[instance_id].status(w.simulator.world.settle())


class TestMinAge:
    async def test_a_younger_instance_is_counted_and_has_no_series(self) -> None:
        async with watching(workflows=discover(min_age="1m")) as w:
            await w.cycle()
            w.orders.create("short", SHORT)
            w.orders.create("long", WAITING)
            await w.cycle(after=INTERVAL)
            assert w.shown() == set()
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 1
            steps_ = {"step": "pay", "step_type": "step", "outcome": "success"}
            assert w.value("cloudflare_workflow_step_duration_seconds_count", **steps_) == 1
            watched = w.samples("cloudflare_workflow_watched_instances")
            assert watched[("status", "waiting"),] == watched[("status", "complete"),] == 1
            for _ in range(3):
                await w.cycle(after=INTERVAL)
            assert w.shown() == {"long"}
            assert w.value("cloudflare_workflow_instance_step_count", instance_id="long") == 1

    async def test_one_that_errors_has_them_at_once(self) -> None:
        async with watching(workflows=discover(min_age="1m")) as w:
            w.orders.create("a", failing(5))
            await w.cycle(after=INTERVAL)
            assert w.status("a") == "errored"

    async def test_zero_gives_them_to_every_instance_at_once(self) -> None:
        async with watching(workflows=discover(min_age="0s")) as w:
            await w.cycle()
            w.clock.advance(INTERVAL)
            w.orders.create("new", WAITING)
            await w.cycle()
            assert w.shown() == {"new"}

    async def test_younger_ones_take_no_place(self) -> None:
        async with watching(workflows=discover(min_age="1m", max_instances=2)) as w:
            w.orders.create("old", WAITING)
            w.clock.advance(60)
            for n in range(5):
                w.orders.create(f"young-{n}", WAITING)
            w.orders.create("errored", failing(1))
            await w.cycle(after=INTERVAL)
            assert w.shown() == {"old", "errored"}
            assert w.value(DROPPED) == 0

    async def test_configured_ones_have_them_at_once(self) -> None:
        workflows = [{"name": "orders", "instances": ["a"], "discover": {"min_age": "1m"}}]
        async with watching(workflows=workflows) as w:
            w.orders.create("a", WAITING)
            await w.cycle(after=1)
            assert w.shown() == {"a"}

    async def test_a_clock_that_is_behind_hides_nobody(self) -> None:
        async with watching(workflows=discover(min_age="1m")) as w:
            w.ahead = -3600
            w.orders.create("a", WAITING)
            w.clock.advance(60)
            w.orders.create("b", WAITING)
            await w.cycle(after=INTERVAL)
            assert w.shown() == {"a"}


class TestFull:
    @pytest.mark.parametrize("more", [[], ["complete"]], ids=["no longer selected", "selected"])
    async def test_ended_ones_give_way_to_live_ones(self, more: list[str]) -> None:
        statuses = ["running", "waiting", *more]
        async with watching(workflows=discover(max_instances=3, statuses=statuses)) as w:
            for n in range(3):
                w.orders.create(f"short-{n}", Script(pieces=(Sleep("nap", 20),)))
            await w.cycle(after=1)
            for n in range(3):
                w.orders.create(f"long-{n}", WAITING)
            await w.cycle(after=30)
            assert w.shown() == {"long-0", "long-1", "long-2"}
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 3

    async def test_a_place_that_is_free_is_taken_though_the_list_pass_fails(self) -> None:
        async with watching(workflows=discover(max_instances=1)) as w:
            for n in range(100):
                w.orders.create(f"old-{n}", SHORT, at=w.clock() - 9000)
            w.orders.create("first", WAITING)
            await w.cycle(after=1)
            w.simulator.faults.add(error(500), kind="list")
            w.orders.instances["first"].delete()
            for _ in range(3):
                await w.cycle(after=3600)
            assert w.shown() == set()
            w.simulator.faults.clear()
            w.simulator.faults.add(error(500), kind="list", skip=1)
            w.orders.create("second", WAITING)
            await w.cycle(after=INTERVAL)
            assert w.value("cloudflare_workflow_up") == 0, "the second page can't be read"
            assert w.shown() == {"second"}

    async def test_errored_ones_push_out_the_newest_live_ones(self) -> None:
        async with watching(workflows=discover(max_instances=3)) as w:
            w.orders.create("to-fail", failing(40))
            w.clock.advance(1)
            for n in range(4):
                w.orders.create(f"live-{n}", WAITING, at=w.clock() + n)
            await w.cycle(after=10)
            w.orders.create("fails-too", failing(1))
            await w.cycle(after=40)
            assert w.status("to-fail") == w.status("fails-too") == "errored"
            assert w.shown() == {"to-fail", "fails-too", "live-1"}, "of those that had series"
            assert w.value(DROPPED) == 4, "two at first, and two that gave way"

    async def test_one_that_has_no_place_once_more_counts_once_more(self) -> None:
        async with watching(workflows=discover(max_instances=1)) as w:
            for name in ("first", "second"):
                w.orders.create(name, WAITING)
                await w.cycle(after=INTERVAL)
            w.orders.instances["first"].terminate()
            await w.cycle(after=INTERVAL)
            assert w.shown() == {"second"}
            w.orders.create("errored", failing(1))
            await w.cycle(after=INTERVAL)
            assert w.shown() == {"errored"}
            assert w.value(DROPPED) == 2

    async def test_configured_ones_give_way_to_nobody(self) -> None:
        entry = {"name": "orders", "instances": ["b"], "discover": {"max_instances": 1}}
        async with watching(workflows=[entry]) as w:
            w.orders.create("b", WAITING)
            for name in "cd":
                w.orders.create(name, failing(1))
                await w.cycle(after=INTERVAL)
            assert w.shown() == {"b", "c"}

    async def test_a_deleted_one_gives_way_to_a_live_one(self) -> None:
        """Whatever its last status was."""
        async with watching(workflows=discover(max_instances=2)) as w:
            for name in ("deleted", "old"):
                w.orders.create(name, WAITING)
            await w.cycle(after=INTERVAL)
            w.orders.instances["deleted"].delete()
            for _ in range(3):
                await w.cycle(after=INTERVAL)
            assert w.shown() == {"deleted", "old"}
            w.orders.create("new", WAITING)
            await w.cycle(after=INTERVAL)
            assert w.shown() == {"new", "old"}
            assert w.value(DROPPED) == 0

    async def test_a_live_one_that_is_no_longer_selected_gives_way_to_one_that_is(self) -> None:
        rests = Script((*steps("pay", duration=10), Wait("approval")))
        async with watching(workflows=discover(max_instances=2, statuses=["running"])) as w:
            for name in ("rests", "rests-too"):
                w.orders.create(name, rests)
            for _ in range(2):
                await w.cycle(after=6)
            for name, shown in (("new", {"new", "rests"}), ("newer", {"new", "newer"})):
                w.orders.create(name, Script(steps("pay", duration=1000)))
                await w.cycle(after=INTERVAL)
                assert w.shown() == shown
            assert w.value(DROPPED) == 0

    async def test_an_errored_one_gives_way_to_nobody(self) -> None:
        async with watching(workflows=discover(max_instances=2)) as w:
            for n in range(2):
                w.orders.create(f"errored-{n}", failing(1))
            await w.cycle(after=INTERVAL)
            w.orders.create("live", WAITING)
            w.orders.create("errored-2", failing(1))
            await w.cycle(after=INTERVAL)
            assert w.shown() == {"errored-0", "errored-1"}
            assert w.value(DROPPED) == 2

    @pytest.mark.parametrize("how", ["reload", "restart"])
    @pytest.mark.parametrize(
        "before",
        [{"discover": {}}, {"instances": ["a", "b", "c"], "discover": {"max_instances": 2}}],
        ids=["a higher one before", "configured before"],
    )
    async def test_a_limit_holds_for_those_that_had_series_before_it(
        self, tmp_path: Path, before: dict[str, object], how: str
    ) -> None:
        before = {"name": "orders", **before}
        async with watching(workflows=[before], state=tmp_path / "state.db") as w:
            for name in "abc":
                w.orders.create(name, WAITING)
            w.orders.create("errored", failing(1))
            await w.cycle(after=INTERVAL)
            assert len(w.shown()) == 4
            await (w.reload if how == "reload" else w.restart)(workflows=discover(max_instances=2))
            assert len(w.shown()) == 2
            await w.cycle(after=INTERVAL)
            assert len(w.shown()) == 2
            assert w.status("errored") == "errored"
            assert w.value(DROPPED) == 2

    @pytest.mark.parametrize("how", ["reload", "restart"])
    @pytest.mark.parametrize(
        "before",
        [{"discover": {}}, {"instances": ["waits", "errored"]}],
        ids=["others before", "configured before"],
    )
    async def test_so_do_statuses(
        self, tmp_path: Path, before: dict[str, object], how: str
    ) -> None:
        before = {"name": "orders", **before}
        async with watching(workflows=[before], state=tmp_path / "state.db") as w:
            w.orders.create("waits", WAITING)
            w.orders.create("errored", failing(1))
            await w.cycle(after=INTERVAL)
            assert w.shown() == {"waits", "errored"}
            errored = discover(statuses=["errored"])
            await (w.reload if how == "reload" else w.restart)(workflows=errored)
            await w.saved()
            assert w.shown() == {"errored"}

    async def test_another_selection_removes_neither_configured_nor_leaving_ones(self) -> None:
        """The latter keep their series for `poll.forget_after`."""
        entry: dict[str, Any] = {"name": "orders", "instances": ["a"]}
        async with watching(workflows=[{**entry, "discover": {}}]) as w:
            for name in "ab":
                w.orders.create(name, SHORT)
            for after in (1, INTERVAL):
                await w.cycle(after=after)
            await w.reload(workflows=[{**entry, "discover": {"max_age": "1h"}}])
            await w.cycle(after=INTERVAL)
            assert w.shown() == {"a", "b"}

    @pytest.mark.parametrize("after", [WAITING, SHORT], ids=["live", "complete"])
    async def test_an_errored_one_takes_the_place_of_one_that_was_restarted(
        self, after: Script
    ) -> None:
        """However long it had no series."""
        async with watching(workflows=discover(max_instances=1)) as w:
            for n in range(2):
                w.orders.create(f"errored-{n}", failing(1))
                for _ in range(2):
                    await w.cycle(after=INTERVAL)
            assert w.shown() == {"errored-0"}
            w.orders.instances["errored-0"].restart(script=after)
            for _ in range(2):
                await w.cycle(after=INTERVAL)
            assert w.shown() == {"errored-1"}
            assert w.value("cloudflare_workflow_instance_step_count", instance_id="errored-1") == 1

    async def test_one_that_had_given_way_shows_the_step_that_it_has_come_to(self) -> None:
        """While polls of others use what is to spare of the budget."""
        limits = {"poll": {"interval": "1s"}, "api": {"requests_per_5m": 600}}
        more: dict[str, Any] = {"workflows": discover(max_instances=21), **limits}
        async with watching(**more) as w:
            for n in range(20):
                w.orders.create(f"waits-{n}", WAITING)
            w.clock.advance(1)
            w.orders.create("newest", Script((Sleep("nap", 8), *steps("pay", duration=600))))
            await w.cycle(after=1)
            errored = w.orders.create("errored", failing(1))
            await w.cycle(after=2)
            assert "newest" not in w.shown()
            await w.cycle(after=8)
            errored.restart(script=SHORT)
            await w.cycle(after=5)
            attempts = w.samples("cloudflare_workflow_instance_current_step_attempts")
            open_steps = {dict(k)["step"] for k in attempts if ("instance_id", "newest") in k}
            assert open_steps == {"pay"}

    @pytest.mark.slow
    @pytest.mark.parametrize("seed", range(5))
    async def test_whoever_matters_comes_first_whatever_happens(self, seed: int) -> None:
        chance = random.Random(seed)
        async with watching(workflows=discover(max_instances=10)) as w:
            for n in range(25):
                for m in range(chance.randrange(6)):
                    script = chance.choice(
                        [SHORT, WAITING, failing(chance.uniform(1, 60)), failing(5), SHORT]
                    )
                    w.orders.create(f"i-{n}-{m}", script, at=w.clock() - chance.uniform(0, 5))
                for instance in list(w.orders.instances.values()):
                    if chance.random() < 0.03:
                        instance.terminate()
                await w.cycle(after=chance.uniform(5, 30))
                shown = {i: status_of(w, i) for i in w.shown()}
                hidden = {i: status_of(w, i) for i in w.orders.instances if i not in shown}
                assert len(shown) <= 10
                live = {i for i, s in hidden.items() if s in ("running", "waiting")}
                errored = {i for i, s in hidden.items() if s == "errored"}
                if live or errored:
                    assert set(shown.values()) <= {"errored", "running", "waiting"}
                if errored:
                    assert set(shown.values()) == {"errored"}
