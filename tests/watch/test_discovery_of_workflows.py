"""Discovery: workflows that come and go, and lists that fail or hold odd things."""

import asyncio
import gc
import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from exporter.instances import lifecycle
from exporter.metrics import catalogue
from exporter.state.backend import DatabaseServer
from simulator import Hang, Respond, Rewrite, error
from simulator.response import Response
from tests.exposed import shown_values
from tests.postgres import PostgresServer
from tests.waiting import DEADLINE, until
from tests.watch.discovering import (
    INTERVAL,
    WAITING,
    by_status,
    discovering,
    without_counts,
    without_unlisted,
)
from tests.watching import watching


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

    async def test_those_that_are_found_are_polled_in_the_order_of_their_names(self) -> None:
        """And not in another one after each start."""
        async with discovering("report-*") as w:
            names = [f"report-{number}" for number in range(9)]
            for name in names:
                w.simulator.world.account("acc").workflow(name)
            await w.cycle(after=1)
            assert [p.key.workflow for p in w.app.pollers] == names

    @pytest.mark.postgres
    async def test_a_name_that_the_state_cannot_hold_costs_that_workflow_alone(
        self, postgres: PostgresServer
    ) -> None:
        state = DatabaseServer(SecretStr(postgres.new_url()), None, DEADLINE)
        async with watching(workflows=[{"name": "*", "discover": {}}], state=state) as w:
            for name in ("nul\0", "long" * 1000, "größe 日本/%.."):
                w.simulator.world.account("acc").workflow(name).create(name[:5], WAITING)
            await w.cycle(after=1)
            assert w.app.writer.problem == ""
            assert {p.key.workflow for p in w.app.pollers} == {"orders", "größe 日本/%.."}
            assert w.status("größe") == "waiting"
            (ignored,) = shown_values(w.app, catalogue.ROWS_IGNORED)
            assert ignored == 2

    @pytest.mark.parametrize(
        "entries",
        [
            [{"name": "*", "discover": {}}, {"name": "orders", "instances": ["a"]}],
            [
                {"name": "or*", "discover": {"include": ["a"]}},
                {"name": "*", "discover": {"include": ["b"]}},
            ],
        ],
        ids=["its name before a glob", "the first glob that matches"],
    )
    async def test_which_entry_a_workflow_takes(self, entries: list[dict[str, Any]]) -> None:
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

    async def test_one_that_the_list_lacks_goes_after_forget_after(self) -> None:
        """That its own lists fail for another reason doesn't say that it is gone."""
        async with discovering("report-*", more={"poll": {"forget_after": "5m"}}) as w:
            account = w.simulator.world.account("acc")
            for name in ("report-unlisted", "report-weekly"):
                account.workflow(name).create("a", WAITING)
            await w.cycle(after=1)
            watched = []
            for minute in range(12):
                w.simulator.faults.clear()
                w.simulator.faults.add(error(500), kind="list")
                if minute != 3:
                    w.simulator.faults.add(Rewrite(without_unlisted), kind="workflows")
                await w.cycle(after=60)
                watched.append({p.key.workflow for p in w.app.pollers})
            # It was listed again in minute 3, so it was lacking from minute 4 on.
            assert watched == 9 * [{"report-unlisted", "report-weekly"}] + 3 * [{"report-weekly"}]

    @pytest.mark.parametrize("down", [False, True], ids=["while it runs", "while it is down"])
    async def test_one_that_is_gone_does_not_come_back_with_a_restart(
        self, tmp_path: Path, *, down: bool
    ) -> None:
        async with discovering("report-*", more={"state": tmp_path / "state.db"}) as w:
            account = w.simulator.world.account("acc")
            for name in ("report-daily", "report-weekly"):
                account.workflow(name).create("a", WAITING)
            await w.cycle(after=1)
            del account.workflows["report-daily"]
            for _ in range(0 if down else 2):
                await w.cycle(after=60)
            await w.restart()
            for _ in range(2 if down else 0):
                await w.cycle(after=60)
            assert {p.key.workflow for p in w.app.pollers} == {"report-weekly"}
            account.workflow("report-daily").create("a", WAITING)
            await w.cycle(after=60)
            await w.restart()
            assert {p.key.workflow for p in w.app.pollers} == {"report-daily", "report-weekly"}

    async def test_one_that_is_named_by_now_is_not_said_to_go(self) -> None:
        async with watching(workflows=[{"name": "o*", "discover": {}}]) as w:
            w.orders.create("a", WAITING)
            await w.cycle(after=1)
            await w.reload(workflows=[{"name": "orders", "discover": {}}])
            w.simulator.world.account("acc").workflow("other")
            del w.simulator.world.account("acc").workflows["orders"]
            with capture_logs() as logs:
                for _ in range(3):
                    await w.cycle(after=60)
            assert "workflow no longer exists; its series expired" not in {
                line["event"] for line in logs
            }
            assert w.status("a") == "waiting"

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
            list_pass = asyncio.create_task(w.app.accounts[0].list_passes())
            await until(lambda: w.simulator.requests.by_kind["workflow"] > 0)
            await w.reload(workflows=[{"name": "other", "discover": {}}])
            w.simulator.faults.clear()
            await list_pass
            await w.saved()
            assert not [series for series in w.values() if 'workflow="orders"' in series]

    async def test_nothing_is_requested_of_one_that_was_detached_meanwhile(self) -> None:
        orders: dict[str, object] = {"name": "orders", "discover": {}}
        other = {**orders, "name": "other"}
        async with watching(workflows=[orders, other]) as w:
            w.simulator.world.account("acc").workflow("other")
            w.simulator.faults.add(Hang(), kind="versions", workflow="orders")
            list_pass = asyncio.create_task(w.app.accounts[0].list_passes())
            await until(lambda: w.simulator.requests.by_kind["versions"] > 0)
            await w.reload(workflows=[orders])
            w.simulator.faults.clear()
            await list_pass
            assert w.simulator.requests.by_kind["versions"] == 1

    async def test_the_list_of_one_that_was_detached_meanwhile_is_read_no_further(self) -> None:
        async with discovering() as w:
            for number in range(101):
                w.orders.create(str(number), WAITING)
            w.simulator.faults.add(Hang(), kind="list")
            list_pass = asyncio.create_task(w.app.accounts[0].list_passes())
            await until(lambda: w.simulator.requests.by_kind["list"] > 0)
            await w.reload(workflows=[{"name": "other", "discover": {}}])
            w.simulator.faults.clear()
            await list_pass
            assert w.simulator.requests.by_kind["list"] == 1

    async def test_a_round_over_one_that_was_detached_meanwhile_polls_nothing(self) -> None:
        async with watching(["a"]) as w:
            [poller] = w.app.pollers
            [instance] = poller.instances.values()
            await w.reload(workflows=[{"name": "other", "discover": {}}])
            poller.put(instance, lifecycle.on_due(instance))
            assert not len(poller.queue)


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

    async def test_workflows_of_a_list_that_is_not_whole_are_found_and_no_others_dropped(
        self,
    ) -> None:
        workflows: list[dict[str, Any]] = [
            {"name": name, "discover": {}} for name in ("order-*", "later")
        ]
        async with watching(workflows=workflows, poll={"forget_after": "1m"}) as w:
            account = w.simulator.world.account("acc")
            for name in ("order-a", "order-b"):
                account.workflow(name).create("i", WAITING)

            def with_more_announced(reply: Response) -> Response:
                return Response(200, reply.body.replace(b'"total_count":', b'"total_count":1'))

            w.simulator.faults.add(Rewrite(with_more_announced), kind="workflows")
            with capture_logs() as logs:
                await w.cycle(after=60)
                del account.workflows["order-a"]
                for _ in range(3):
                    await w.cycle(after=60)
            names = {"order-a", "order-b", "later"}
            assert {p.key.workflow for p in w.app.pollers} == names
            listed = "failed to list the account's workflows; still watching those known"
            warned = [line["event"] for line in logs if line["log_level"] == "warning"]
            assert listed in warned
            assert not [event for event in warned if event.startswith("no workflow matches")]

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
            assert str(poller.watched.passes.failure) == "the list repeats after 100 rows"

    async def test_a_cursor_too_long_for_a_url_is_a_failed_pass(self) -> None:
        async with discovering() as w:
            w.orders.create("a", WAITING)
            await w.cycle(after=1)
            first = json.dumps({"result": [{"id": "b"}], "result_info": {"cursor": "/" * 30_000}})
            fault = w.simulator.faults.add(Respond(text=first), kind="list")
            await w.cycle(after=INTERVAL)
            assert w.value("cloudflare_workflow_up") == 0
            w.simulator.faults.remove(fault)
            await w.cycle(after=INTERVAL)
            assert w.value("cloudflare_workflow_up") == 1


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

    async def test_nothing_of_a_failed_list_pass_stays(self) -> None:
        """Its frames hold a page and the ids before it, for each workflow until the API is back."""
        async with discovering() as w:
            for n in range(120):
                w.orders.create(f"i-{n}", WAITING)
            w.clock.advance(1)
            w.simulator.faults.add(error(503), kind="list", skip=1)
            await w.cycle()
            (poller,) = w.app.pollers
            failure = poller.watched.passes.failure
            assert failure is not None
            assert failure.reason == "http_5xx"
            assert failure.__traceback__ is None
