"""Discovery: what is counted of instances that lists show, with series or without."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from exporter.instances import lifecycle
from exporter.instances.urgency import Urgency
from exporter.watch.poll_queue import Waiting
from simulator import LOCAL_ENGINE, Error, Script, Sleep, Wait, error, retried, steps
from tests.watch.discovering import INTERVAL, WAITING, discovering, iso
from tests.watching import watching


class TestCounting:
    async def test_runs_that_no_selector_takes_are_counted_once_with_their_steps(self) -> None:
        async with discovering() as w:
            await w.cycle()
            for n in range(30):
                w.orders.create(f"i-{n}", Script(steps("pay")))
            for _ in range(4):
                await w.cycle(after=INTERVAL)
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 30
            assert (
                w.value("cloudflare_workflow_run_duration_seconds_count", status="complete") == 30
            )
            paid = {"step": "pay", "step_type": "step", "outcome": "success"}
            assert w.value("cloudflare_workflow_step_duration_seconds_count", **paid) == 30
            assert w.status("i-1") is None

    async def test_history_is_not_counted_unless_asked_for(self) -> None:
        for backfill, counted in ((None, 0), (True, 1)):
            async with discovering(more={"metrics": {"backfill": backfill}}) as w:
                w.orders.create("old", Script(steps("pay")), at=w.clock() - 60)
                for _ in range(2):
                    await w.cycle(after=INTERVAL)
                count = w.value("cloudflare_workflow_runs_finished_total", status="complete")
                assert count == counted

    async def test_history_is_dated_when_it_is_counted(self) -> None:
        """So that alerts take none for news, even where counters exist already."""
        workflow = {"name": "orders", "instances": ["nap"]}
        async with watching(workflows=[workflow], metrics={"backfill": True}) as w:
            w.orders.create("nap", Script((Sleep("nap", 3600),)))
            w.orders.create("old", Script(steps("pay")), at=w.clock() - 60)
            await w.cycle(after=INTERVAL)
            assert w.value("cloudflare_workflow_backfill_timestamp_seconds") is None
            await w.reload(workflows=[{**workflow, "discover": {}}])
            await w.cycle(after=INTERVAL)
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 1
            counted = w.clock()
            w.orders.create("new", Script(steps("pay")))
            for _ in range(2):
                await w.cycle(after=INTERVAL)
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 2
            assert w.value("cloudflare_workflow_backfill_timestamp_seconds") == counted

    async def test_so_is_the_history_of_live_instances_but_not_what_they_do_next(self) -> None:
        workflow = {"name": "orders", "instances": ["nap"]}
        failing = Script(
            (retried("pay", failures=3), Sleep("nap", 300), *steps("ship"), Wait("approval"))
        )
        async with watching(workflows=[workflow], metrics={"backfill": True}) as w:
            w.orders.create("nap", Script((Sleep("nap", 3600),)))
            w.orders.create("live", failing, at=w.clock() - 120)
            await w.cycle(after=INTERVAL)
            await w.reload(workflows=[{**workflow, "discover": {}}])
            await w.cycle(after=INTERVAL)
            counted = w.clock()
            failed = {"step": "pay", "outcome": "failure"}
            assert w.value("cloudflare_workflow_step_attempt_duration_seconds_count", **failed) == 3
            assert w.value("cloudflare_workflow_backfill_timestamp_seconds") == counted
            w.orders.create("new", failing)
            for _ in range(3):
                await w.cycle(after=200)
            shipped = {"step": "ship", "step_type": "step", "outcome": "success"}
            assert w.value("cloudflare_workflow_step_duration_seconds_count", **shipped) == 2
            assert w.value("cloudflare_workflow_backfill_timestamp_seconds") == counted

    @pytest.mark.parametrize("details", [True, False], ids=["rows and details", "rows"])
    @pytest.mark.parametrize("backfill", [None, True])
    async def test_ends_that_lack_their_time_are_counted_once(
        self, details: bool, backfill: bool | None
    ) -> None:
        def create(name: str, at: float) -> None:
            instance = w.orders.create(name, Script(steps("pay"), throws=Error()), at=at)
            instance.patch_row = lambda row: {**row, "ended_on": None}
            if details:
                instance.patch = lambda result: {**result, "end": None}

        async with discovering(more={"metrics": {"backfill": backfill}}) as w:
            create("history", w.clock() - 9000)
            await w.cycle()
            create("new", w.clock())
            for _ in range(3):
                await w.cycle(after=INTERVAL)
            counted = w.value("cloudflare_workflow_runs_finished_total", status="errored")
            assert counted == (2 if backfill else 1)
            seconds = w.value("cloudflare_workflow_run_duration_seconds_sum", status="errored")
            assert seconds is not None
            assert seconds <= 2 * INTERVAL
            assert w.shown() == {"history", "new"}

    async def test_a_run_is_counted_once_whichever_source_sees_its_end_first(self) -> None:
        async with discovering() as w:
            w.orders.create("a", Script(pieces=(Sleep("nap", 20),)))
            await w.cycle(after=1)
            w.clock.advance(30)
            poller = w.app.pollers[0]
            poller.put(poller.instances["a"], lifecycle.request_detail(poller.instances["a"]))
            await poller.round(whole=True)
            await w.saved()
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 1
            await w.cycle(after=1)
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 1

    async def test_an_expired_run_whose_row_comes_again_is_not_counted_again(self) -> None:
        async with discovering(more={"poll": {"forget_after": "1m"}}) as w:
            await w.cycle()
            w.orders.create("a", Script(steps("pay")))
            for _ in range(20):
                await w.cycle(after=INTERVAL)
            assert "a" not in w.app.pollers[0].instances
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 1

    async def test_a_restart_is_counted_as_a_run_of_its_own(self) -> None:
        async with discovering() as w:
            a = w.orders.create("a", Script(steps("pay")))
            for _ in range(2):
                await w.cycle(after=INTERVAL)
            a.restart(script=Script(pieces=(Sleep("nap", 20),)))
            await w.cycle(after=INTERVAL)
            await w.cycle(after=INTERVAL)
            await w.cycle(after=INTERVAL)
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 2

    async def test_so_is_one_that_ends_when_the_run_before_has_just_expired(self) -> None:
        """Whose first request for a response that shows it fails."""
        async with discovering(more={"poll": {"forget_after": "1m"}}) as w:
            w.orders.create("waits", WAITING)
            a = w.orders.create("a", Script(steps("pay")))
            await w.cycle(after=INTERVAL)
            w.clock.advance(70)
            a.restart()
            w.simulator.faults.add(error(500), kind="detail", instance="a", times=1)
            for _ in range(9):
                await w.cycle(after=INTERVAL)
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 2
            assert w.value("cloudflare_workflow_details_skipped_total") == 0

    async def test_a_restart_right_after_the_start_is_not_counted_twice(self) -> None:
        """Its row may be of either run."""
        async with discovering() as w:
            a = w.orders.create("a", WAITING)
            await w.cycle()
            w.clock.advance(0.5)
            a.restart(script=Script(steps("pay")))
            for _ in range(2):
                await w.cycle(after=INTERVAL)
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 1

    async def test_a_restart_of_one_that_is_only_counted(self) -> None:
        """Its lists say "running" before and after."""
        async with discovering(statuses=["errored"]) as w:
            await w.cycle()
            a = w.orders.create("a", Script((Sleep("nap", 300),)))
            await w.cycle(after=INTERVAL)
            await w.cycle(after=INTERVAL)
            a.restart(script=Script((Sleep("nap", 60),), throws=Error("TypeError", "")))
            for _ in range(10):
                await w.cycle(after=INTERVAL)
            assert w.status("a") == "errored"
            assert w.value("cloudflare_workflow_runs_finished_total", status="errored") == 1

    @pytest.mark.parametrize("discover", [{"statuses": ["errored"]}, {"max_instances": 1}], ids=str)
    async def test_one_that_is_only_counted_and_lives_again_is_known_while_it_lives(
        self, discover: dict[str, Any]
    ) -> None:
        async with discovering(**discover, more={"poll": {"forget_after": "1m"}}) as w:
            await w.cycle()
            w.orders.create("z", Script((Wait("for ever", timeout=1e6),)))
            await w.cycle(after=INTERVAL)
            a = w.orders.create("a", Script(steps("pay", duration=0)))
            await w.cycle(after=INTERVAL)
            await w.cycle(after=INTERVAL)
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 1
            a.restart(script=Script((*steps("pay", duration=0), Wait("approval"))))
            for _ in range(20):
                await w.cycle(after=INTERVAL)
            a.send_event()
            for _ in range(3):
                await w.cycle(after=INTERVAL)
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 2
            paid = {"step": "pay", "step_type": "step", "outcome": "success"}
            assert w.value("cloudflare_workflow_step_duration_seconds_count", **paid) == 2

    async def test_one_that_was_deleted_and_is_created_again(self) -> None:
        async with discovering(more={"poll": {"forget_after": "1m"}}) as w:
            await w.cycle()
            script = Script((*steps("pay", duration=0), Wait("approval")))
            a = w.orders.create("a", script)
            await w.cycle(after=INTERVAL)
            a.delete()
            await w.cycle(after=INTERVAL)
            await w.cycle(after=INTERVAL)
            w.clock.advance(3600)
            w.orders.create("a", script)
            for _ in range(4):
                await w.cycle(after=INTERVAL)
            assert w.status("a") == "waiting"
            paid = {"step": "pay", "step_type": "step", "outcome": "success"}
            assert w.value("cloudflare_workflow_step_duration_seconds_count", **paid) == 2

    async def test_so_is_one_whose_rows_show_no_times_and_the_same_status(self) -> None:
        workflows = [{"name": "orders", "discover": {}}]
        async with watching(workflows=workflows, style=LOCAL_ENGINE) as w:
            await w.cycle()
            for n in range(2):
                script = Script(steps("pay"), throws=Error("TypeError", "no"))
                w.orders.create("a", script)
                await w.cycle(after=INTERVAL)
                counted = w.value("cloudflare_workflow_runs_finished_total", status="errored")
                assert counted == n + 1
                w.orders.instances["a"].delete()
                for _ in range(3):
                    await w.cycle(after=600)

    async def test_a_restart_counts_though_the_row_before_had_no_time_of_its_change(self) -> None:
        async with discovering() as w:
            await w.cycle()
            order = w.orders.create("a", Script(steps("pay")))
            order.patch_row = lambda row: {**row, "modified_on": None}
            await w.cycle(after=INTERVAL)
            order.patch_row = None
            order.restart()
            await w.cycle(after=INTERVAL)
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 2

    async def test_one_that_is_in_the_lists_is_there_though_polls_dont_find_it(self) -> None:
        async with discovering(more={"poll": {"forget_after": "1m"}}) as w:
            await w.cycle()
            a = w.orders.create("a", Script((*steps("pay", duration=0), Wait("approval"))))
            await w.cycle(after=INTERVAL)
            w.simulator.faults.add(error(404, 10400), instance="a", times=2)
            a.patch_row = lambda row: row | {"modified_on": iso(w.clock())}
            await w.cycle(after=INTERVAL)
            await w.cycle(after=INTERVAL)
            a.patch_row = None
            for _ in range(10):
                await w.cycle(after=INTERVAL)
            paid = {"step": "pay", "step_type": "step", "outcome": "success"}
            assert w.value("cloudflare_workflow_step_duration_seconds_count", **paid) == 1

    async def test_an_errored_one_that_polls_dont_find_at_first_shows_its_error(self) -> None:
        async with discovering(more={"poll": {"ended_interval": "1m"}}) as w:
            await w.cycle()
            w.orders.create("a", Script((retried("charge", failures=1, succeeds=False),)))
            w.simulator.faults.add(error(404, 10400), instance="a", times=2)
            for _ in range(8):
                await w.cycle(after=INTERVAL)
            shown = {"error_name": "Error", "instance_id": "a", "step": "charge"}
            assert w.value("cloudflare_workflow_instance_error_info", **shown) == 1
            charged = {"step": "charge", "step_type": "step", "outcome": "failure"}
            assert w.value("cloudflare_workflow_step_duration_seconds_count", **charged) == 1

    async def test_an_errored_one_that_polls_dont_find_for_a_while_stays_shown(self) -> None:
        poll = {"ended_interval": "1m", "forget_after": "2m"}
        async with discovering(more={"poll": poll}) as w:
            await w.cycle()
            a = w.orders.create("a", Script((retried("charge", failures=1, succeeds=False),)))
            await w.cycle(after=INTERVAL)
            w.simulator.faults.add(error(404, 10400), instance="a", times=2)
            w.orders.relist(a, None)  # a replica that is behind doesn't list it either
            for _ in range(3):
                await w.cycle(after=INTERVAL)
            w.simulator.world.refresh(a)
            for _ in range(10):
                await w.cycle(after=INTERVAL)
            assert w.status("a") == "errored"

    async def test_one_that_was_live_when_it_expired_and_comes_back(self) -> None:
        async with discovering(more={"poll": {"forget_after": "1m"}}) as w:
            await w.cycle()
            script = Script((*steps("pay", duration=0), Wait("approval", timeout=1e7)))
            a = w.orders.create("a", script)
            await w.cycle(after=INTERVAL)
            w.orders.relist(a, None)
            del w.orders.instances["a"]
            for _ in range(10):
                await w.cycle(after=INTERVAL)
            assert not w.app.pollers[0].instances
            w.orders.instances["a"] = a
            w.simulator.world.refresh(a)
            await w.cycle(after=INTERVAL)
            a.send_event()
            await w.cycle(after=INTERVAL)
            await w.cycle(after=INTERVAL)
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 1
            paid = {"step": "pay", "step_type": "step", "outcome": "success"}
            assert w.value("cloudflare_workflow_step_duration_seconds_count", **paid) == 1

    @pytest.mark.slow(6)
    async def test_one_that_is_listed_and_never_found_costs_a_poll_now_and_then(self) -> None:
        async with discovering() as w:
            await w.cycle()
            w.orders.create("a", WAITING)
            w.simulator.faults.add(error(404, 10400), instance="a")
            polls = 0
            for _ in range(160):  # 40 minutes; poll.ended_interval is 10
                calls = await w.cycle(after=INTERVAL)
                polls += calls.get("detail", 0) + calls.get("simple", 0)
            assert 3 <= polls <= 8

    async def test_one_that_was_let_in_again_where_lists_show_no_times(
        self, tmp_path: Path
    ) -> None:
        def workflows(**more: Any) -> list[dict[str, Any]]:
            return [{"name": "orders", "discover": {"statuses": ["errored"], **more}}]

        state = tmp_path / "state.db"
        async with watching(workflows=workflows(), state=state, style=LOCAL_ENGINE) as w:
            await w.cycle(after=INTERVAL)
            a = w.orders.create("a", Script((*steps("pay"), Wait("approval"))))
            await w.cycle(after=INTERVAL)
            await w.reload(workflows=workflows(exclude=["a"]))
            await w.cycle(after=INTERVAL)
            a.send_event()
            await w.cycle(after=INTERVAL)
            await w.reload(workflows=workflows())
            for _ in range(3):
                await w.cycle(after=INTERVAL)
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 1

    async def test_one_that_was_let_in_again_whose_steps_were_not_fetched_yet(self) -> None:
        def workflows(**more: Any) -> list[dict[str, Any]]:
            return [{"name": "orders", "discover": {**more}}]

        async with watching(workflows=workflows()) as w:
            await w.cycle(after=INTERVAL)
            w.simulator.faults.add(error(500), kind="detail")
            w.orders.create("a", Script(steps("pay"), throws=Error("Boom", "")))
            await w.cycle(after=INTERVAL)
            assert w.status("a") == "errored"
            await w.reload(workflows=workflows(exclude=["a"]))
            w.simulator.faults.clear()
            await w.reload(workflows=workflows())
            await w.cycle(after=INTERVAL)
            assert w.value("cloudflare_workflow_instance_step_count", instance_id="a") == 1

    async def test_the_queue_of_one_that_expired_and_was_restarted(self) -> None:
        async with discovering(more={"poll": {"forget_after": "1m"}}) as w:
            await w.cycle()
            a = w.orders.create("a", Script(steps("pay")))
            await w.cycle(after=INTERVAL)
            while w.app.pollers[0].instances:
                await w.cycle(after=INTERVAL)
            await w.cycle(after=3600)
            a.restart(script=Script((*steps("pay"), Wait("approval")), queued=3))
            await w.cycle(after=INTERVAL)
            await w.cycle(after=INTERVAL)
            assert w.value("cloudflare_workflow_queue_duration_seconds_count") == 2
            total = w.value("cloudflare_workflow_queue_duration_seconds_sum")
            assert total == pytest.approx(3, abs=0.1)

    @pytest.mark.parametrize("seen", [True, False], ids=["seen in the queue", "not seen before"])
    async def test_a_restart_of_one_that_was_terminated_in_the_queue(self, *, seen: bool) -> None:
        """Such a run has no start that would distinguish it from the next in rows and responses."""
        async with discovering() as w:
            await w.cycle()
            a = w.orders.create("a", Script(steps("pay"), queued=1000))
            if seen:
                await w.cycle(after=INTERVAL)
            w.simulator.faults.add(error(500), kind="detail")
            w.clock.advance(5)
            a.terminate()
            await w.cycle(after=5)
            assert w.value("cloudflare_workflow_runs_finished_total", status="terminated") == 1
            w.clock.advance(5)
            a.restart(script=Script(steps("pay")))
            w.simulator.faults.clear()
            for _ in range(4):
                await w.cycle(after=INTERVAL)
            assert w.value("cloudflare_workflow_runs_finished_total", status="terminated") == 1
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 1

    @pytest.mark.parametrize("queued", [0, 1000], ids=["started before", "queued before"])
    async def test_one_that_is_restarted_and_terminated_in_the_queue_is_counted_once(
        self, queued: float
    ) -> None:
        async with discovering() as w:
            await w.cycle()
            a = w.orders.create("a", Script((*steps("pay"), Wait("approval")), queued=queued))
            await w.cycle(after=INTERVAL)
            a.restart(script=Script(steps("pay"), queued=1000))
            w.simulator.faults.add(error(500), kind="simple", times=1)
            w.simulator.faults.add(error(500), kind="detail", times=1)
            await w.cycle(after=INTERVAL)
            a.terminate()
            for _ in range(4):
                await w.cycle(after=INTERVAL)
            assert w.value("cloudflare_workflow_runs_finished_total", status="terminated") == 1

    async def test_one_that_is_restarted_in_the_queue_is_counted_once(self) -> None:
        async with discovering() as w:
            await w.cycle()
            a = w.orders.create("a", Script(steps("pay"), queued=400))
            await w.cycle(after=INTERVAL)
            assert w.status("a") == "queued"
            a.restart(script=Script(steps("pay")))
            await w.cycle(after=INTERVAL)
            await w.cycle(after=INTERVAL)
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 1

    async def test_a_restarted_one_waits_in_the_queue_since_its_restart(self) -> None:
        """Rows say when the instance was created, whatever has become of it since."""
        async with discovering() as w:
            await w.cycle()
            a = w.orders.create("a", Script(steps("pay")))
            await w.cycle(after=INTERVAL)
            await w.cycle(after=3600)
            a.restart(script=Script((*steps("pay"), Wait("approval")), queued=20))
            await w.cycle(after=INTERVAL)
            assert w.status("a") == "queued"
            await w.cycle(after=INTERVAL)
            assert w.status("a") == "waiting"
            assert w.value("cloudflare_workflow_queue_duration_seconds_count") == 2
            total = w.value("cloudflare_workflow_queue_duration_seconds_sum")
            assert total == pytest.approx(20, abs=0.1)

    async def test_a_row_that_is_behind_doesnt_end_the_next_run(self) -> None:
        async with discovering() as w:
            await w.cycle()
            a = w.orders.create("a", Script((Sleep("nap", 400),)))
            first = w.clock()
            await w.cycle(after=INTERVAL)
            w.clock.advance(380)
            a.restart(script=Script(steps("pay"), throws=Error("TypeError", ""), queued=300))

            def behind(status: str, end: float | None) -> None:
                row = {"status": status, "started_on": iso(first), "ended_on": iso(end)}
                a.patch_row = lambda now: now | row | {"modified_on": iso(end or first)}

            behind("running", None)
            w.simulator.faults.add(error(500), kind="simple", times=1)
            await w.cycle(after=INTERVAL)
            await w.cycle(after=INTERVAL)
            behind("complete", w.clock() - 35)
            await w.cycle(after=INTERVAL)
            a.patch_row = None
            for _ in range(30):
                await w.cycle(after=INTERVAL)
            assert w.value("cloudflare_workflow_runs_finished_total", status="errored") == 1

    async def test_an_end_whose_detail_request_fails_is_counted_and_its_steps_later(self) -> None:
        async with discovering() as w:
            await w.cycle()
            w.orders.create("a", Script(steps("pay")))
            w.simulator.faults.add(error(500), kind="detail", times=1)
            await w.cycle(after=INTERVAL)
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 1
            paid = {"step": "pay", "step_type": "step", "outcome": "success"}
            assert w.value("cloudflare_workflow_step_duration_seconds_count", **paid) is None
            await w.cycle(after=INTERVAL)
            assert w.value("cloudflare_workflow_step_duration_seconds_count", **paid) == 1

    async def test_an_end_that_never_got_a_detail_request_is_counted_as_skipped(self) -> None:
        async with discovering(more={"poll": {"forget_after": "1m"}}) as w:
            await w.cycle()
            w.orders.create("a", Script(steps("pay")))
            w.simulator.faults.add(error(500), kind="detail")
            for _ in range(8):
                await w.cycle(after=INTERVAL)
            assert w.value("cloudflare_workflow_details_skipped_total") == 1
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 1

    async def test_no_steps_are_counted_of_one_that_was_counted_as_skipped(self) -> None:
        async with discovering(more={"poll": {"forget_after": "1m"}}) as w:
            await w.cycle()
            w.orders.create("a", Script(steps("pay")))
            w.orders.create("b", WAITING)
            fails = w.simulator.faults.add(error(500), instance="a")
            while not w.value("cloudflare_workflow_details_skipped_total"):
                await w.cycle(after=INTERVAL)
            w.simulator.faults.remove(fails)
            for _ in range(8):
                await w.cycle(after=INTERVAL)
            paid = {"step": "pay", "step_type": "step", "outcome": "success"}
            assert w.value("cloudflare_workflow_step_duration_seconds_count", **paid) is None

    async def test_one_that_is_deleted_after_its_detail_request_was_not_skipped(self) -> None:
        async with discovering(more={"poll": {"forget_after": "1m"}}) as w:
            await w.cycle()
            w.orders.create("a", Script(steps("pay"), throws=Error("TypeError")))
            await w.cycle(after=INTERVAL)
            w.orders.instances["a"].delete()
            for _ in range(8):
                await w.cycle(after=INTERVAL)
            assert w.status("a") is None
            assert w.value("cloudflare_workflow_details_skipped_total") == 0

    async def test_it_is_counted_so_once_however_often_it_is_selected(self) -> None:
        async with discovering(more={"poll": {"forget_after": "1m"}}) as w:
            await w.cycle()
            w.orders.create("a", Script(steps("pay"), throws=Error("TypeError")))
            w.simulator.faults.add(error(500), kind="detail")
            for discover in ({"statuses": ["running"]}, {}, {"statuses": ["running"]}):
                await w.cycle(after=INTERVAL)
                await w.reload(workflows=[{"name": "orders", "discover": discover}])
                for _ in range(8):
                    await w.cycle(after=INTERVAL)
            assert w.value("cloudflare_workflow_details_skipped_total") == 1

    @pytest.mark.parametrize(
        ("down", "ahead"),
        [(0, 86400), (86400, 0)],
        ids=["whose clock is a day ahead", "a day later"],
    )
    async def test_a_successor_polls_one_that_waits_before_it_expires(
        self, tmp_path: Path, down: float, ahead: float
    ) -> None:
        async with discovering(more={"state": tmp_path / "state.db"}) as w:
            await w.cycle()
            w.orders.create("a", Script(steps("pay")))
            w.simulator.faults.add(error(500), kind="detail", times=1)
            await w.cycle(after=INTERVAL)
            w.clock.advance(down)
            w.ahead = ahead
            await w.restart()
            await w.app.pollers[0]._end_round()
            for _ in range(3):
                await w.cycle(after=INTERVAL)
            paid = {"step": "pay", "step_type": "step", "outcome": "success"}
            assert w.value("cloudflare_workflow_step_duration_seconds_count", **paid) == 1
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 1
            assert w.value("cloudflare_workflow_details_skipped_total") == 0

    async def test_a_clock_that_was_ahead_keeps_no_series_longer(self, tmp_path: Path) -> None:
        poll = {"forget_after": "1m"}
        async with discovering(more={"state": tmp_path / "state.db", "poll": poll}) as w:
            w.ahead = 86400
            w.orders.create("a", Script(steps("pay"), throws=Error("TypeError")))
            await w.cycle(after=INTERVAL)
            w.orders.instances["a"].delete()
            for _ in range(3):
                await w.cycle(after=INTERVAL)
            assert w.status("a") == "errored"
            w.ahead = 0
            await w.restart()
            for _ in range(6):
                await w.cycle(after=INTERVAL)
            assert w.status("a") is None

    async def test_by_a_clock_that_is_behind_one_expires_as_soon(self) -> None:
        async with discovering(more={"poll": {"forget_after": "1m"}}) as w:
            await w.cycle()
            w.ahead = -3 * 86400
            w.orders.create("a", Script(steps("pay")))
            for _ in range(12):
                await w.cycle(after=INTERVAL)
            assert "a" not in w.app.pollers[0].instances
            for _ in range(4):  # it is in the lists
                await w.cycle(after=INTERVAL)
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 1

    async def test_one_that_waits_for_a_detail_response_expires_all_the_same(self) -> None:
        """The queue holds no more than what is known: memory is bounded by what is watched."""
        async with discovering(more={"poll": {"forget_after": "1m"}}) as w:
            await w.cycle()
            w.orders.create("a", Script(steps("pay")))
            queue = w.app.pollers[0].queue
            over, full = asyncio.Event(), asyncio.Barrier(11)

            class Hanging(Waiting, frozen=True):
                async def poll(self) -> None:
                    await full.wait()
                    await over.wait()

            for _ in range(10):  # as many polls as there may be at once: others wait
                queue.put(Hanging(0.0), Urgency.LIVE)
            await full.wait()
            for _ in range(10):
                w.clock.advance(INTERVAL)
                await w.app.accounts[0].workflows.discoveries[0].list_pass()
                await w.app.pollers[0]._end_round()
            await w.saved()
            assert "a" not in w.app.pollers[0].instances
            assert w.value("cloudflare_workflow_details_skipped_total") == 1
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 1
            over.set()


async def test_one_whose_rows_have_only_a_status_expires_when_it_is_deleted() -> None:
    async with discovering(
        statuses=["errored"], more={"style": LOCAL_ENGINE, "poll": {"forget_after": "1m"}}
    ) as w:
        known = []
        for n in range(20):
            instance = w.orders.create(f"a{n}", WAITING)
            await w.cycle(after=30)
            instance.delete()
            await w.cycle(after=30)
            known.append(len(w.app.pollers[0].instances))
        assert max(known[10:]) <= max(known[:10])
