"""Discovery: instances found by lists, through everything that happens while lists are read."""

import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from simulator import LOCAL_ENGINE, Error, Rewrite, Script, Sleep, Style, Wait, retried, steps
from simulator.response import Response
from tests.watch.discovering import INTERVAL, WAITING, by_status, discovering
from tests.watching import Watching, watching


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
            await account.list_passes()
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

    async def test_a_live_one_whose_row_changes_costs_only_a_detail_request(self) -> None:
        async with discovering() as w:
            w.orders.create("a", Script((*steps("pay", duration=20), Wait("approval"))))
            await w.cycle(after=1)
            await w.cycle(after=INTERVAL)
            requests = await w.cycle(after=INTERVAL)
            assert (requests["detail"], requests.get("simple")) == (1, None)
            assert w.value("cloudflare_workflow_instance_step_count", instance_id="a") == 2

    async def test_configured_ones_are_shown_once_beside_them(self) -> None:
        async with discovering(ids=("a",)) as w:
            for name in "ab":
                w.orders.create(name, WAITING)
            await w.cycle(after=1)
            assert w.watched() == 2
            assert w.status("a") == w.status("b") == "waiting"

    async def test_rows_of_configured_ones_cost_no_detail_requests(self) -> None:
        """They have moved where the fingerprint has not, as with each attempt of a step."""
        workflow = {"name": "orders", "instances": ["a"], "discover": {}}
        moving = Style(modified_on="step")
        async with watching(workflows=[workflow], style=moving) as w:
            w.orders.create("a", Script((retried("pay", failures=99),)))
            await w.cycle(after=5)
            for _ in range(4):
                assert (await w.cycle(after=INTERVAL)).get("detail", 0) == 0

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
            w.orders.create("tab\t", WAITING)
            with capture_logs() as lines:
                for _ in range(2):
                    await w.cycle(after=1)
            assert w.value("cloudflare_workflows_exporter_rows_ignored_total") == 2
            (line,) = lines
            assert (line["account"], line["workflow"]) == ("acc", "orders")
            assert line["first"] == "a row without a status or a valid id"
            w.orders.create("ghost", WAITING).patch_row = lambda row: {**row, "status": None}
            w.orders.create("nameless", WAITING).patch_row = lambda row: {**row, "id": ""}
            w.orders.create("odd", WAITING).patch_row = lambda row: {**row, "status": 7}
            w.orders.create("i" * 272, WAITING)
            w.orders.create("a", WAITING)
            await w.cycle(after=1)
            assert w.watched() == 1
            assert w.value("cloudflare_workflows_exporter_rows_ignored_total") == 7
            await w.cycle(after=INTERVAL)
            assert w.value("cloudflare_workflows_exporter_rows_ignored_total") == 12

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
            assert str(poller.watched.passes.failure) == f"the list ends after {rows} of 250 rows"
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
            await w.restart(workflows=[{"name": "orders", "discover": {}}])
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
