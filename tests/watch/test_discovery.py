"""Discovery: instances found by lists, through everything that happens while lists are read."""

import asyncio
import gc
import itertools
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest
from structlog.testing import capture_logs

from benchmarks import virtual_time
from benchmarks.api_budget import Lags, Run, quantile
from exporter.app import App
from exporter.config.settings import Settings
from exporter.instances import lifecycle
from exporter.instances.instance import Urgency
from exporter.metrics import catalogue
from exporter.watch.poll_queue import PollQueue, Waiting
from simulator import (
    LOCAL_ENGINE,
    Error,
    Hang,
    Respond,
    Rewrite,
    Script,
    Sleep,
    Wait,
    error,
    retried,
    steps,
)
from simulator.api_results import instance_detail
from simulator.response import Response, success
from tests.e2e.scrape import scrape
from tests.waiting import until
from tests.watching import Watching, watching

WAITING = Script(pieces=(Wait("approval"),))
INTERVAL = 15.0


@asynccontextmanager
async def discovering(
    name: str = "orders", *, ids: tuple[str, ...] = (), more: Any = None, **discover: Any
) -> AsyncIterator[Watching]:
    """Discovers instances of a workflow, by settings of `discover`."""
    entry: dict[str, Any] = {"name": name, "discover": discover}
    if ids:
        entry["instances"] = list(ids)
    async with watching(workflows=[entry], **(more or {})) as w:
        yield w


def iso(moment: float | None) -> str | None:
    """A Unix time as the API writes it."""
    if moment is None:
        return None
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def without_counts(reply: Response) -> Response:
    """A list of workflows without the platform's counts."""
    body = json.loads(reply.body)
    for row in body["result"]:
        row["instances"] = None
    return Response(reply.status, json.dumps(body).encode())


def without_unlisted(reply: Response) -> Response:
    """A list of workflows without some that there are."""
    body = json.loads(reply.body)
    body["result"] = [row for row in body["result"] if not row["name"].endswith("unlisted")]
    body["result_info"]["total_count"] = len(body["result"])
    return Response(reply.status, json.dumps(body).encode())


def behind(w: Watching, instance_id: str) -> Respond:
    """The detail response of this moment, later on."""
    now = w.simulator.world.settle()
    return Respond(body=success(instance_detail(w.orders.instances[instance_id], now)).body)


def by_status(w: Watching) -> dict[str, float]:
    return {
        dict(labels)["status"]: value
        for labels, value in w.samples("cloudflare_workflow_instances").items()
        if value
    }


class TestFinding:
    async def test_instances_are_found_with_steps_and_all(self) -> None:
        async with discovering() as w:
            w.orders.create("a", WAITING)
            await w.cycle(after=1)
            assert w.status("a") == "waiting"
            assert w.value("cloudflare_workflow_instance_step_count", instance_id="a") == 1
            assert w.watched() == 1

    @pytest.mark.slow(6)
    async def test_at_rest_they_cost_a_page_and_their_share_of_polls(self) -> None:
        async with discovering(more={"poll": {"interval": "15s"}}) as w:
            for n in range(250):
                w.orders.create(f"i-{n}", WAITING)
            await w.cycle(after=1)
            w.clock.advance(INTERVAL)
            w.simulator.requests.clear()
            (account,) = w.app.accounts
            await account.cycle()
            assert w.requests == {"list": 3}

    async def test_one_that_was_created_later_is_found_by_the_next_list_pass(self) -> None:
        async with discovering() as w:
            await w.cycle()
            w.orders.create("late", WAITING)
            await w.cycle(after=INTERVAL)
            assert w.status("late") == "waiting"

    async def test_the_first_that_changes_costs_one_detail_request(self) -> None:
        async with discovering() as w:
            w.orders.create("a", Script(pieces=(Sleep("nap", 20), Wait("approval"))))
            w.orders.create("b", WAITING)
            await w.cycle(after=1)
            assert (await w.cycle(after=INTERVAL)).get("detail") is None
            assert (await w.cycle(after=INTERVAL))["detail"] == 1
            assert w.value("cloudflare_workflow_instance_step_count", instance_id="a") == 2

    async def test_configured_ones_are_shown_once_beside_them(self) -> None:
        async with discovering(ids=("a",)) as w:
            for name in "ab":
                w.orders.create(name, WAITING)
            await w.cycle(after=1)
            assert w.watched() == 2
            assert w.status("a") == w.status("b") == "waiting"

    async def test_a_restart_of_a_configured_one_shows_as_soon_as_its_row(self) -> None:
        async with discovering(ids=("a",)) as w:
            order = w.orders.create("a", Script(steps("pay"), throws=Error("TypeError", "no")))
            for _ in range(2):
                await w.cycle(after=INTERVAL)
            assert w.status("a") == "errored"
            order.restart(script=WAITING)
            await w.cycle(after=INTERVAL)
            assert w.status("a") == "waiting"

    @pytest.mark.slow(6)
    async def test_no_row_is_lost_or_doubled_over_many_pages_while_rows_come_and_go(self) -> None:
        async with discovering() as w:
            for n in range(250):
                w.orders.create(f"i-{n}", WAITING)
            w.clock.advance(1)

            def churn(reply: Response) -> Response:
                number = w.simulator.requests.by_kind["list"]
                w.orders.create(f"new-{number}", WAITING)
                w.orders.instances[f"i-{number}"].terminate()
                return reply

            w.simulator.faults.add(Rewrite(churn), kind="list")
            await w.cycle(after=INTERVAL)
            w.simulator.faults.clear()
            for _ in range(2):
                await w.cycle(after=INTERVAL)
            shown = {
                dict(labels)["instance_id"]
                for labels, value in w.samples("cloudflare_workflow_instance_status").items()
                if value == 1 and ("status", "waiting") in labels
            }
            now = w.simulator.world.settle()
            assert shown == {
                i.id for i in w.orders.instances.values() if i.status(now) == "waiting"
            }
            assert len(shown) == 250

    async def test_a_page_size_that_is_refused_is_lowered(self) -> None:
        async with discovering() as w:
            w.simulator.world.per_page_limit = 30
            for n in range(40):
                w.orders.create(f"i-{n}", WAITING)
            await w.cycle(after=1)
            assert w.watched() == 40

    async def test_rows_without_status_or_id_are_ignored_and_counted(self) -> None:
        async with discovering() as w:
            w.orders.create("ghost", WAITING).patch_row = lambda row: {**row, "status": None}
            w.orders.create("nameless", WAITING).patch_row = lambda row: {**row, "id": ""}
            w.orders.create("odd", WAITING).patch_row = lambda row: {**row, "status": 7}
            w.orders.create("tab\t", WAITING)
            w.orders.create("i" * 272, WAITING)
            w.orders.create("a", WAITING)
            await w.cycle(after=1)
            assert w.watched() == 1
            assert w.value("cloudflare_workflows_exporter_rows_ignored_total") == 5
            await w.cycle(after=INTERVAL)
            assert w.value("cloudflare_workflows_exporter_rows_ignored_total") == 10

    async def test_a_status_of_tomorrow_is_shown(self) -> None:
        async with discovering() as w:
            w.orders.create("a", WAITING).force_status("hibernating")
            await w.cycle(after=1)
            assert w.status("a") == "hibernating"
            assert by_status(w) == {"hibernating": 1}

    @pytest.mark.slow(6)
    async def test_an_upstream_that_only_pages_and_shows_no_times(self) -> None:
        """Cloudflare's local engine: a change of status costs one detail response."""
        entry = {"name": "orders", "discover": {}}
        async with watching(workflows=[entry], style=LOCAL_ENGINE) as w:
            for n in range(130):
                w.orders.create(f"i-{n}", WAITING)
            w.orders.create("short", Script(pieces=(Sleep("nap", 20),)))
            await w.cycle(after=1)
            assert w.watched() == 131
            await w.cycle(after=30)
            assert w.status("short") == "complete"
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 1
            await w.cycle(after=INTERVAL)
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 1

    @pytest.mark.parametrize("down", [False, True], ids=["running", "down"])
    async def test_without_times_polls_show_a_restart_that_ended_as_the_run_before(
        self, down: bool, tmp_path: Path
    ) -> None:
        workflows = [{"name": "orders", "discover": {}}]
        state = tmp_path / "state.db"
        async with watching(workflows=workflows, style=LOCAL_ENGINE, state=state) as w:
            await w.cycle()
            order = w.orders.create("a", Script(steps("charge")), at=w.clock() + 1)
            await w.cycle(after=INTERVAL)
            order.restart(at=w.clock() + 1)
            w.clock.advance(600)
            if down:
                await w.restart()
            await w.cycle(after=INTERVAL)
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 2


class TestWholeLists:
    """250 instances, by an upstream whose lists say so and don't name the next page."""

    @staticmethod
    def unnamed(cursors: int = 0, always: int | None = None) -> Rewrite:
        """Responses that don't name the next page, but for the first `cursors`; with `always`,
        whatever page is asked for brings so many rows of the first."""
        asked = 0
        first: list[Any] = []

        def rewrite(reply: Response) -> Response:
            nonlocal asked, first
            asked += 1
            body = json.loads(reply.body)
            first = first or body["result"]
            if always is not None:
                body["result"] = first[:always]
            keep = {"per_page", "total_count"} | ({"cursor"} if asked <= cursors else set())
            body["result_info"] = {k: v for k, v in body["result_info"].items() if k in keep}
            return Response(reply.status, json.dumps(body).encode())

        return Rewrite(rewrite)

    @asynccontextmanager
    async def listing(self, fault: Rewrite) -> AsyncIterator[Watching]:
        async with discovering() as w:
            for n in range(250):
                w.orders.create(f"i-{n}", WAITING)
            w.simulator.faults.add(fault, kind="list")
            await w.cycle(after=1)
            yield w

    @pytest.mark.slow(6)
    @pytest.mark.parametrize("cursors", [0, 1])
    async def test_they_are_read_on_by_page_number(self, cursors: int) -> None:
        async with self.listing(self.unnamed(cursors)) as w:
            assert w.watched() == 250
            assert w.value("cloudflare_workflow_up") == 1
            assert w.requests["list"] == 3

    @pytest.mark.slow(6)
    @pytest.mark.parametrize("rows", [0, 1, 100])
    async def test_those_that_end_too_early_are_failed_passes(self, rows: int) -> None:
        async with self.listing(self.unnamed(always=rows)) as w:
            assert w.value("cloudflare_workflow_up") == 0
            (poller,) = w.app.pollers
            assert str(poller.watched.pass_failure) == f"the list ends after {rows} of 250 rows"
            w.simulator.faults.clear()
            await w.cycle(after=INTERVAL)
            assert w.value("cloudflare_workflow_up") == 1
            assert w.watched() == 250

    @pytest.mark.slow(6)
    async def test_without_a_total_a_full_page_is_followed_by_the_next(self) -> None:
        def rewrite(reply: Response) -> Response:
            body = json.loads(reply.body)
            body["result_info"] = ["unreadable"]
            return Response(reply.status, json.dumps(body).encode())

        async with self.listing(Rewrite(rewrite)) as w:
            assert w.watched() == 250
            assert w.requests["list"] == 3

    @pytest.mark.slow(6)
    async def test_instances_that_come_and_go_meanwhile_are_no_failure(self) -> None:
        async with discovering() as w:
            for n in range(250):
                w.orders.create(f"i-{n}", WAITING)
            w.clock.advance(1)

            calls = itertools.count()

            def churn(reply: Response) -> Response:
                number = next(calls)
                w.orders.create(f"new-{number}", WAITING)
                for n in range(10):
                    w.orders.instances[f"i-{10 * number + n}"].delete()
                return reply

            w.simulator.faults.add(Rewrite(churn), kind="list")
            for _ in range(3):
                await w.cycle(after=INTERVAL)
                assert w.value("cloudflare_workflow_up") == 1


class TestSelecting:
    @pytest.mark.parametrize(
        ("discover", "found"),
        [
            ({}, {"waits", "failed", "order-1"}),
            ({"statuses": ["waiting"]}, {"waits", "order-1"}),
            ({"include": ["order-*"]}, {"order-1"}),
            ({"exclude": ["order-*", "w*"]}, {"failed"}),
            ({"include": ["none-*"]}, set()),
            ({"statuses": ["complete"]}, {"done"}),
            ({"max_age": "30s"}, {"waits", "order-1"}),
        ],
    )
    async def test_by_status_age_and_id(self, discover: dict[str, Any], found: set[str]) -> None:
        async with discovering(**discover) as w:
            w.orders.create("waits", WAITING)
            w.orders.create("order-1", WAITING)
            w.orders.create("done", Script(steps("pay")))
            w.orders.create("failed", Script(steps("pay"), throws=Error("Error", "no")))
            await w.cycle(after=60)
            shown = {dict(k)["instance_id"] for k in w.samples("cloudflare_workflow_instance_info")}
            assert shown == found

    async def test_what_is_past_max_instances_is_left_out_and_counted_once(self) -> None:
        async with discovering(max_instances=3) as w:
            for n in range(5):
                w.orders.create(f"i-{n}", WAITING)
            for _ in range(3):
                await w.cycle(after=INTERVAL)
            assert len(w.shown()) == 3
            assert w.watched() == 5
            assert w.value("cloudflare_workflows_exporter_instances_dropped_total") == 2

    async def test_one_that_is_shown_later_has_its_steps_fetched(self) -> None:
        async with discovering(statuses=["errored"]) as w:
            w.orders.create("a", Script((*steps("pay"), Wait("approval"))))
            await w.cycle(after=INTERVAL)
            assert w.status("a") is None
            await w.reload(workflows=[{"name": "orders", "discover": {}}])
            await w.cycle(after=INTERVAL)
            assert w.value("cloudflare_workflow_instance_step_count", instance_id="a") == 2

    async def test_so_has_one_that_was_named_and_not_polled(self, tmp_path: Path) -> None:
        errored = [{"name": "orders", "discover": {"statuses": ["errored"]}}]
        async with watching(workflows=errored, state=tmp_path / "state.db") as w:
            w.orders.create("a", Script((*steps("pay"), Wait("approval"))))
            await w.cycle(after=INTERVAL)
            await w.reload(workflows=[{"name": "orders", "instances": ["a"]}])
            await w.restart(workflows=errored)
            await w.cycle(after=INTERVAL)
            assert w.value("cloudflare_workflow_instance_step_count", instance_id="a") == 2

    async def test_one_that_leaves_the_selector_stays_for_a_while_so_that_its_end_is_seen(
        self,
    ) -> None:
        async with discovering(more={"poll": {"forget_after": "1m"}}) as w:
            w.orders.create("a", Script(pieces=(Sleep("nap", 20),)))
            await w.cycle(after=1)
            await w.cycle(after=30)
            assert w.status("a") == "complete"
            await w.cycle(after=30)
            assert w.status("a") == "complete"
            await w.cycle(after=31)
            assert w.status("a") is None
            # Until no list can show its end as news, it is known.
            for _ in range(2):
                await w.cycle(after=60)
            assert "a" not in w.app.pollers[0].instances

    async def test_a_deleted_one_goes(self) -> None:
        async with discovering(more={"poll": {"forget_after": "1m"}}) as w:
            a = w.orders.create("a", WAITING)
            await w.cycle(after=1)
            a.delete()
            for _ in range(8):
                await w.cycle(after=INTERVAL)
            assert w.status("a") is None
            assert w.value("cloudflare_workflow_up") == 1


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
            poller.put(poller.instances["a"], lifecycle.want_detail(poller.instances["a"]))
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
                await w.app.accounts[0].workflows.discoveries["orders"].list_pass()
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


class TestManyEnded:
    """Where ended instances outnumber the live ones, the live are listed by status."""

    @pytest.mark.slow
    async def test_only_what_lives_or_is_new_is_read(self) -> None:
        async with discovering() as w:
            for n in range(1000):
                w.orders.create(f"old-{n}", Script(steps("pay")), at=w.clock() - 9000)
            for n in range(150):
                w.orders.create(f"live-{n}", WAITING, at=w.clock() - 9000)
            await w.cycle(after=1)
            w.clock.advance(INTERVAL)
            w.simulator.requests.clear()
            await w.app.accounts[0].cycle()
            lists = [request.query for request in w.simulator.requests.of(kind="list")]
            assert len(lists) == 3
            assert sum("status=waiting" in query for query in lists) == 2
            assert sum("date_start=" in query for query in lists) == 1

    async def test_what_was_created_before_the_first_list_pass_that_succeeds_counts(self) -> None:
        async with discovering() as w:
            for n in range(400):
                w.orders.create(f"old-{n}", Script(steps("pay")), at=w.clock() - 7200)
            w.simulator.faults.add(error(500), kind="list")
            await w.cycle(after=1)
            w.orders.create("new", Script(steps("pay")))
            await w.cycle(after=600)
            w.simulator.faults.clear()
            await w.cycle(after=INTERVAL)
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 1

    async def test_one_that_ends_as_the_first_pass_reads_other_lists_counts(self) -> None:
        async with discovering("*") as w:
            billing = w.simulator.world.account("acc").workflow("billing")
            for workflow in (billing, w.orders):
                for n in range(400):
                    workflow.create(f"old-{n}", Script(steps("pay")), at=w.clock() - 9000)
                workflow.create("waits", WAITING, at=w.clock() - 9000)
                workflow.create("ends", Script(steps("pay", duration=3600)), at=w.clock() - 3590)

            def slowly(reply: Response) -> Response:
                w.clock.advance(20)
                return reply

            w.simulator.faults.add(Rewrite(slowly), kind="list", skip=2, times=1)
            for _ in range(2):
                await w.cycle(after=1)
            counted = scrape(w.app, "cloudflare_workflow_runs_finished_total")
            complete = {
                dict(k)["workflow"]: v
                for (_, k), v in counted.items()
                if ("status", "complete") in k
            }
            assert complete == {"billing": 1, "orders": 1}

    async def test_one_that_ends_is_found_by_a_request_of_its_own(self) -> None:
        async with discovering() as w:
            for n in range(1000):
                w.orders.create(f"old-{n}", Script(steps("pay")), at=w.clock() - 9000)
            w.orders.create("a", Script(pieces=(Sleep("nap", 200),)))
            w.orders.create("b", WAITING)
            await w.cycle(after=1)
            for _ in range(16):
                await w.cycle(after=INTERVAL)
            assert w.status("a") == "complete"
            assert w.status("b") == "waiting"
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 1

    @pytest.mark.slow(6)
    async def test_many_short_runs_between_two_list_passes_are_listed_not_requested_one_by_one(
        self,
    ) -> None:
        async with discovering() as w:
            for n in range(1000):
                w.orders.create(f"old-{n}", Script(steps("pay")), at=w.clock() - 9000)
            for n in range(90):
                w.orders.create(f"short-{n}", Script(pieces=(Sleep("nap", 100),)))
            await w.cycle(after=1)
            w.clock.advance(90)
            await w.app.accounts[0].cycle()
            w.clock.advance(30)
            w.simulator.requests.clear()
            await w.app.accounts[0].cycle()
            await w.saved()
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 90
            assert w.requests["list"] <= 4

    @pytest.mark.parametrize("created", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59-14:00"])
    async def test_ends_are_found_though_no_list_can_begin_at_their_time(
        self, created: str
    ) -> None:
        def rewrite(reply: Response) -> Response:
            body = json.loads(reply.body)
            for row in body["result"]:
                row["created_on"] = created if row["id"].startswith("short-") else row["created_on"]
            return Response(reply.status, json.dumps(body).encode())

        async with discovering() as w:
            w.simulator.faults.add(Rewrite(rewrite), kind="list")
            for n in range(400):
                w.orders.create(f"old-{n}", Script(steps("pay")), at=w.clock() - 9000)
            for n in range(15):
                w.orders.create(f"short-{n}", Script(pieces=(Sleep("nap", 100),)))
            await w.cycle(after=1)
            await w.cycle(after=90)
            with capture_logs() as logs:
                await w.cycle(after=30)
            assert logs == []
            assert w.value("cloudflare_workflow_up") == 1
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 15

    @pytest.mark.parametrize("ahead", [300, 86400])
    async def test_short_runs_are_found_by_a_clock_that_is_ahead(
        self, tmp_path: Path, ahead: float
    ) -> None:
        async with discovering(more={"state": tmp_path / "state.db"}) as w:
            w.ahead = ahead
            await w.restart()
            for n in range(400):
                w.orders.create(f"old-{n}", Script(steps("pay")), at=w.clock() - 9000)
            await w.cycle(after=INTERVAL)
            for n in range(4):
                w.orders.create(f"short-{n}", Script(steps("pay")))
                await w.cycle(after=INTERVAL)
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 4

    async def test_a_date_of_long_ago_in_responses_makes_no_news_of_history(self) -> None:
        def rewrite(reply: Response) -> Response:
            old = {"Date": "Thu, 01 Jan 1970 00:00:00 GMT"}
            return Response(reply.status, reply.body, headers={**reply.headers, **old})

        async with discovering() as w:
            w.simulator.faults.add(Rewrite(rewrite))
            for n in range(400):
                w.orders.create(f"old-{n}", Script(steps("pay")), at=w.clock() - 9000)
            for _ in range(3):
                await w.cycle(after=INTERVAL)
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 0

    async def test_a_restart_of_an_errored_one_is_found_among_the_live(self) -> None:
        async with discovering() as w:
            for n in range(1000):
                w.orders.create(f"old-{n}", Script(steps("pay")), at=w.clock() - 9000)
            failed = w.orders.create("a", Script(steps("pay"), throws=Error("Error", "no")))
            await w.cycle(after=30)
            assert w.status("a") == "errored"
            failed.restart(script=WAITING)
            await w.cycle(after=60)
            await w.cycle(after=INTERVAL)
            assert w.status("a") == "waiting"


class TestAResponseThatIsBehindItsRow:
    """While polls of others use what is to spare of the budget."""

    MANY: ClassVar[Any] = {"poll": {"interval": "1s"}, "api": {"requests_per_5m": 600}}

    async def test_is_repeated_so_that_an_error_is_explained(self) -> None:
        async with discovering(more=self.MANY) as w:
            for n in range(20):
                w.orders.create(f"waits-{n}", WAITING)
            script = Script(pieces=(Sleep("nap", 4),), throws=Error("TypeError", "no"))
            w.orders.create("a", script)
            await w.cycle(after=2)
            w.simulator.faults.add(behind(w, "a"), kind="detail", instance="a", times=1)
            await w.cycle(after=3)
            errors = "cloudflare_workflow_instance_error_info"
            assert (w.status("a"), w.samples(errors)) == ("errored", {})
            await w.cycle(after=1)
            assert w.value(errors, instance_id="a", error_name="TypeError", step="") == 1

    async def test_is_repeated_where_it_shows_another_status(self) -> None:
        async with discovering(more=self.MANY) as w:
            for n in range(20):
                w.orders.create(f"waits-{n}", WAITING)
            instance = w.orders.create("a", Script(pieces=(Sleep("nap", 600),)))
            await w.cycle(after=2)
            w.simulator.faults.add(behind(w, "a"), kind="detail", instance="a", times=1)
            w.clock.advance(2)
            instance.pause()
            await w.cycle(after=1)
            await w.cycle(after=1)
            assert w.status("a") == "paused"

    async def test_is_repeated_so_that_a_restart_counts_that_ended_as_before(self) -> None:
        async with discovering(more=self.MANY) as w:
            for n in range(20):
                w.orders.create(f"waits-{n}", WAITING)
            await w.cycle(after=1)
            instance = w.orders.create("a", Script(steps("pay")))
            await w.cycle(after=2)
            w.simulator.faults.add(behind(w, "a"), kind="detail", instance="a", times=1)
            instance.restart()
            for _ in range(4):
                await w.cycle(after=2)
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 2

    async def test_costs_ever_less_where_lists_are_wrong_for_ever(self) -> None:
        def wrong(row: dict[str, Any]) -> dict[str, Any]:
            return {**row, "status": "errored", "ended_on": at, "modified_on": at}

        async with discovering() as w:
            instance = w.orders.create("a", WAITING)
            await w.cycle(after=INTERVAL)
            at = iso(w.clock())
            instance.patch_row = wrong
            details = 0
            for _ in range(240):
                details += (await w.cycle(after=INTERVAL)).get("detail", 0)
            assert details < 15


class TestBudget:
    async def test_a_short_interval_leaves_polls_for_what_no_list_shows(self) -> None:
        poll = {"interval": "1s", "detail_refresh": "10s"}
        async with discovering(more={"poll": poll, "api": {"requests_per_5m": 600}}) as w:
            w.orders.create("a", Script((retried("charge", failures=9, backoff=5),)))
            for _ in range(20):
                await w.cycle(after=1)
            labels = {"instance_id": "a", "step": "charge", "step_type": "step"}
            attempts = w.value("cloudflare_workflow_instance_current_step_attempts", **labels)
            assert attempts is not None
            assert attempts > 1

    async def test_accounts_with_the_same_token_share_one(self) -> None:
        async with watching(["a"]) as w:
            settings = w.app._settings

            async def queues(*tokens: str) -> list[PollQueue]:
                accounts = [
                    {**settings.accounts[0].model_dump(), "name": f"n{n}", "api_token": token}
                    for n, token in enumerate(tokens)
                ]
                async with App(Settings.model_validate({"accounts": accounts})).opened() as app:
                    return [account.workflows.queue for account in app.accounts]

            one, other = await queues("same", "same")
            assert one is other
            one, other = await queues("one", "other")
            assert one is not other

    @pytest.mark.slow(6)
    def test_nobody_is_locked_out_beside_a_client_that_spends_most_of_the_quota(self) -> None:
        """Fifteen minutes of virtual time at 300 instances; Cloudflare's limit is enforced."""

        async def main() -> tuple[int, int, float]:
            size = Run(live=300, history=0, life=1800.0)
            app, simulator, _ = await size.measure(15, other=0.6)
            counted = sum(app.store.series.values(catalogue.RUNS_FINISHED).values())
            return simulator.limit.refused, simulator.requests.total, counted

        refused, calls, counted = virtual_time.run(main())
        assert refused == 0
        assert calls > 500
        assert counted > 100

    @pytest.mark.slow(6)
    def test_errors_and_ends_do_not_wait_for_list_passes(self) -> None:
        """Forty minutes of virtual time at 500 instances and 60 requests in 5 minutes, where a list
        pass takes over a minute."""

        async def main() -> Lags:
            size = Run(live=500, history=2000, life=3600.0)
            await size.measure(40, requests=60)
            return size.lags

        lags = virtual_time.run(main())
        assert len(lags.steps) > 10
        assert quantile(lags.steps, 0.99) < 30
        assert len(lags.count) > 200
        assert quantile(lags.count, 0.99) < 200


class TestWorkflows:
    async def test_a_name_that_no_workflow_has_is_reported_once(self) -> None:
        async with discovering("nothing-*") as w:
            with capture_logs() as logs:
                for _ in range(3):
                    await w.cycle(after=60)
            logged = [(line["workflow"], line["log_level"]) for line in logs]
            assert logged == [("nothing-*", "warning")]

    async def test_a_glob_takes_what_matches_and_what_appears_later(self) -> None:
        async with discovering("report-*") as w:
            account = w.simulator.world.account("acc")
            account.workflow("report-daily").create("a", WAITING)
            await w.cycle(after=1)
            assert {p.key.workflow for p in w.app.pollers} == {"report-daily"}
            account.workflow("report-weekly").create("b", WAITING)
            await w.cycle(after=60)
            assert {p.key.workflow for p in w.app.pollers} == {"report-daily", "report-weekly"}
            assert w.status("b") == "waiting"

    async def test_an_exact_name_comes_before_a_glob(self) -> None:
        entries: list[dict[str, Any]] = [
            {"name": "*", "discover": {}},
            {"name": "orders", "instances": ["a"]},
        ]
        async with watching(workflows=entries) as w:
            for name in "ab":
                w.orders.create(name, WAITING)
            await w.cycle(after=1)
            assert w.status("a") == "waiting"
            assert w.status("b") is None

    async def test_one_that_is_gone_goes_with_its_series(self) -> None:
        async with discovering("report-*", more={"poll": {"forget_after": "1m"}}) as w:
            account = w.simulator.world.account("acc")
            account.workflow("report-daily").create("a", WAITING)
            await w.cycle(after=1)
            del account.workflows["report-daily"]
            for _ in range(8):
                await w.cycle(after=INTERVAL)
            assert not w.app.pollers
            assert not w.samples("cloudflare_workflow_up")

    async def test_one_whose_own_lists_say_that_it_is_gone_goes_at_the_second_word(self) -> None:
        """It would be `up` 0 and its data stale for an hour."""
        async with discovering("report-*") as w:
            account = w.simulator.world.account("acc")
            for name in ("report-daily", "report-unlisted", "report-weekly"):
                account.workflow(name).create("a", WAITING)
            await w.cycle(after=1)
            del account.workflows["report-daily"]
            w.simulator.faults.add(Rewrite(without_unlisted), kind="workflows")
            for _ in range(2):
                await w.cycle(after=60)
            left = {p.key.workflow for p in w.app.pollers}
            assert left == {"report-unlisted", "report-weekly"}

    async def test_an_empty_list_may_be_the_apis_error(self) -> None:
        async with discovering("report-*") as w:
            account = w.simulator.world.account("acc")
            account.workflow("report-daily").create("a", WAITING)
            await w.cycle(after=1)
            account.workflows.clear()
            for _ in range(2):
                await w.cycle(after=60)
            assert w.value("cloudflare_workflow_up") == 0

    async def test_the_platforms_counts_and_limits_are_shown(self) -> None:
        async with discovering() as w:
            w.orders.release(step_limit=2000, concurrency=50)
            for name in "ab":
                w.orders.create(name, WAITING)
            await w.cycle(after=60)
            counts = w.samples("cloudflare_workflow_instances")
            assert by_status(w) == {"waiting": 2}
            assert len(counts) == 9
            assert w.value("cloudflare_workflow_step_limit") == 2000
            assert w.value("cloudflare_workflow_concurrency_limit") == 50

    async def test_limits_that_the_newest_version_lacks_are_shown_no_longer(self) -> None:
        async with discovering() as w:
            w.orders.release(concurrency=50)
            await w.cycle(after=60)
            w.orders.release(step_limit=None)
            await w.cycle(after=3600)
            assert w.value("cloudflare_workflow_step_limit") is None
            assert w.value("cloudflare_workflow_concurrency_limit") is None

    async def test_counts_that_cannot_be_read_hold_up_no_others(self) -> None:
        """A list may hold none, of some workflows or of all: they are requested one by one."""
        async with watching(workflows=[{"name": "*", "discover": {}}]) as w:
            for name in ("billing", "orders", "reports"):
                w.simulator.world.account("acc").workflow(name).create("a", WAITING)
            w.simulator.faults.add(Rewrite(without_counts), kind="workflows")
            w.simulator.faults.add(error(500), kind="workflow", workflow="orders")
            with capture_logs() as logs:
                for _ in range(2):
                    await w.cycle(after=60)
            counted = {
                re.sub('.*workflow="(.*?)".*', r"\1", series)
                for series, value in w.values().items()
                if series.startswith("cloudflare_workflow_instances{") and value
            }
            assert counted == {"billing", "reports"}
            assert len([line for line in logs if line["log_level"] == "warning"]) == 1

    async def test_counts_of_a_workflow_that_was_detached_meanwhile_are_not_shown(self) -> None:
        async with discovering() as w:
            w.simulator.faults.add(Rewrite(without_counts), kind="workflows")
            w.simulator.faults.add(Hang(), kind="workflow")
            list_pass = asyncio.create_task(w.app.accounts[0].cycle())
            await until(lambda: w.simulator.requests.by_kind["workflow"] > 0)
            await w.reload(workflows=[{"name": "other", "discover": {}}])
            w.simulator.faults.clear()
            await list_pass
            await w.saved()
            assert not [series for series in w.values() if 'workflow="orders"' in series]


class TestFailures:
    async def test_a_list_that_fails_takes_nothing_away_and_shows(self) -> None:
        async with discovering() as w:
            w.orders.create("a", WAITING)
            await w.cycle(after=1)
            fault = w.simulator.faults.add(error(500), kind="list")
            await w.cycle(after=INTERVAL)
            assert w.status("a") == "waiting"
            assert w.value("cloudflare_workflow_up") == 0
            w.simulator.faults.remove(fault)
            await w.cycle(after=INTERVAL)
            assert w.value("cloudflare_workflow_up") == 1

    @pytest.mark.slow(6)
    async def test_a_cursor_that_expires_starts_the_list_again(self) -> None:
        async with discovering() as w:
            for n in range(250):
                w.orders.create(f"i-{n}", WAITING)
            fault = error(400, 10001, "cursor: expired")
            w.simulator.faults.add(fault, kind="list", skip=1, times=1)
            await w.cycle(after=1)
            assert w.watched() == 250
            failed = {"kind": "list", "result": "http_4xx"}
            assert w.value("cloudflare_workflows_exporter_polls_total", **failed) == 1
            assert w.value("cloudflare_workflow_up") == 1

    async def test_workflows_on_shorter_pages_than_requested_are_all_found(self) -> None:
        workflows = [{"name": "order-*", "discover": {}}]
        async with watching(workflows=workflows) as w:
            for name in "abcde":
                w.simulator.world.account("acc").workflow(f"order-{name}").create("i", WAITING)
            found: list[Any] = []

            def in_pairs(reply: Response) -> Response:
                body = json.loads(reply.body)
                found.extend(body["result"])
                rows, found[:] = found[:2], found[2:]
                total = body["result_info"]["total_count"]
                result = {**body, "result": rows, "result_info": {"total_count": total}}
                return Response(reply.status, json.dumps(result).encode())

            w.simulator.faults.add(Rewrite(in_pairs), kind="workflows")
            await w.cycle(after=INTERVAL)
            assert len(w.app.pollers) == 5
            assert w.requests["workflows"] == 3

    async def test_a_list_that_repeats_is_a_failed_pass(self) -> None:
        """The same page under a new cursor."""
        async with discovering() as w:
            for n in range(120):
                w.orders.create(f"i-{n}", WAITING)
            w.clock.advance(1)

            first: list[dict[str, Any]] = []

            def again(reply: Response) -> Response:
                first.append(first[0] if first else json.loads(reply.body))
                first[0]["result_info"] = {"cursor": f"more-{len(first)}"}
                return Response(200, json.dumps(first[0]).encode())

            w.simulator.faults.add(Rewrite(again), kind="list")
            await w.cycle()
            assert w.requests["list"] == 2
            assert w.value("cloudflare_workflow_up") == 0
            (poller,) = w.app.pollers
            assert str(poller.watched.pass_failure) == "the list repeats after 100 rows"


class TestGarbage:
    """Tens of thousands of instances must not be work for the garbage collector."""

    @pytest.mark.slow(6)
    async def test_hardly_anything_of_an_instance_is_to_be_searched(self) -> None:
        async with discovering() as w:

            async def tracked(count: int) -> int:
                for n in range(count):
                    w.orders.create(f"{count}-{n}", WAITING, at=w.clock() - 9000)
                for _ in range(4):
                    await w.cycle(after=INTERVAL)
                gc.collect()
                ours = [o for o in gc.get_objects() if type(o).__module__.startswith("exporter")]
                return len(ours)

            assert await tracked(20) + 10 > await tracked(40)
            assert len(w.samples("cloudflare_workflow_instance_status")) >= 60

    async def test_instances_of_detached_workflows_leave_without_a_search(self) -> None:
        async with discovering() as w:
            w.orders.create("a", WAITING, at=w.clock() - 9000)
            await w.cycle(after=INTERVAL)
            [poller] = w.app.pollers
            detached = poller.instances
            assert detached
            await w.reload(poll={"interval": "20s"})
            assert not detached
            assert w.status("a") == "waiting"
