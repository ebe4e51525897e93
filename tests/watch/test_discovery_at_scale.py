"""Discovery where most instances have ended, responses are behind, or the budget is small."""

import json
import sqlite3
from pathlib import Path
from typing import Any, ClassVar

import pytest
from structlog.testing import capture_logs

from benchmarks import virtual_time
from benchmarks.api_budget import Lags, Run, quantile
from exporter.app import App
from exporter.config.settings import Settings
from exporter.metrics import catalogue
from exporter.watch.poll_queue import PollQueue
from simulator import Error, Hang, Rewrite, Script, Sleep, error, retried, steps
from simulator.response import Response
from tests.e2e.scrape import scrape
from tests.exposed import shown_values
from tests.watch.discovering import INTERVAL, WAITING, behind, discovering, iso
from tests.watching import watching


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
            await w.app.accounts[0].list_passes()
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

    async def test_a_deleted_one_that_had_errored_goes(self) -> None:
        async with discovering() as w:
            for n in range(400):
                w.orders.create(f"old-{n}", Script(steps("pay")), at=w.clock() - 9000)
            w.orders.create("waits", WAITING, at=w.clock() - 9000)
            w.orders.create("failed", Script(steps("pay"), throws=Error("TypeError")))
            await w.cycle(after=INTERVAL)
            assert w.status("failed") == "errored"
            w.orders.instances["failed"].delete()
            lists = [(await w.cycle(after=310))["list"] for _ in range(24)]
            assert w.shown() == {"waits"}
            assert {*lists} == {2, 3}, "those of ended instances are read every ten minutes"

    async def test_the_first_pass_reads_everything_to_count_history(self) -> None:
        async with discovering(more={"metrics": {"backfill": True}}) as w:
            for n in range(150):
                w.orders.create(f"old-{n}", Script(steps("pay")), at=w.clock() - 9000)
            assert (await w.cycle(after=1))["list"] == 2
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 150
            assert (await w.cycle(after=INTERVAL))["list"] == 1

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
            await w.app.accounts[0].list_passes()
            w.clock.advance(30)
            w.simulator.requests.clear()
            await w.app.accounts[0].list_passes()
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

    async def test_the_next_pass_waits_for_twice_as_long_as_one_took_while_details_do(self) -> None:
        def slowly(reply: Response) -> Response:
            w.clock.advance(20)
            return reply

        async with discovering() as w:
            (account,) = w.app.accounts
            w.simulator.faults.add(Rewrite(slowly), kind="list", times=2)
            w.simulator.faults.add(Hang(), kind="detail")
            for new, after in ((0, INTERVAL), (30, 40)):
                for n in range(new):
                    w.orders.create(f"a{n}", WAITING)
                started = w.clock()
                await account.list_passes()
                assert account.next_pass - started == after
            w.simulator.faults.clear()
            await w.cycle(after=1)

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
            counted = sum(shown_values(app, catalogue.RUNS_FINISHED))
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

    @pytest.mark.slow(6)
    def test_details_of_live_instances_do_not_wait_for_list_passes(self) -> None:
        """Forty minutes of virtual time at 100 instances of five workflows and 100 requests in 5
        minutes, where list passes could take all of them."""

        async def main() -> list[float]:
            size = Run(live=100, history=0, life=42 * 3600.0)
            await size.measure(40, requests=100)
            return size.detailed

        ages = virtual_time.run(main())
        assert len(ages) > 90
        assert quantile(ages, 0.99) < 1200


async def test_rows_left_out_while_the_state_cannot_be_read_are_read_by_the_next_pass(
    tmp_path: Path,
) -> None:
    state = tmp_path / "state.db"
    async with watching(["again"], state=state) as w:
        for n in range(400):
            w.orders.create(f"old-{n}", Script(steps("pay")), at=w.clock() - 9000)
        w.orders.create("waits", WAITING, at=w.clock() - 9000)
        again = w.orders.create("again", Script(steps("pay")))
        await w.cycle(after=INTERVAL)
        for exclude in (["again"], []):
            await w.reload(workflows=[{"name": "orders", "discover": {"exclude": exclude}}])
        again.restart(script=WAITING)
        with sqlite3.connect(state) as other:
            other.execute("ALTER TABLE instances RENAME TO hidden")
        await w.cycle(after=INTERVAL)
        assert w.shown() == set()
        with sqlite3.connect(state) as other:
            other.execute("ALTER TABLE hidden RENAME TO instances")
        lists = []
        for _ in range(3):
            lists.append((await w.cycle(after=INTERVAL))["list"])
            assert w.shown() == {"waits", "again"}
        assert lists[0] > lists[1] == lists[2], "lists of ended instances are read once more only"
        assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 1
