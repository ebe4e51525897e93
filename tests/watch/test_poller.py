"""Polling: what is fetched when, and what stays when it fails."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from exporter.config.units import Duration
from simulator import Error, Hang, Respond, Script, Sleep, Wait, error, retried, steps
from simulator.api_results import instance_detail
from simulator.faults import Exchange
from simulator.response import success
from tests.waiting import until
from tests.watch.discovering import behind
from tests.watching import watching

INTERVAL = 15.0


class TestWhatIsFetchedWhen:
    async def test_first_sight_goes_straight_to_the_detail_request(self) -> None:
        async with watching(["a"]) as w:
            w.orders.create("a", Script(pieces=(Wait("approval"),)))
            assert await w.round() == {"detail": 1}

    async def test_an_instance_at_rest_costs_one_simple_request_a_round(self) -> None:
        async with watching(["a", "b"]) as w:
            for name in ("a", "b"):
                w.orders.create(name, Script(pieces=(Wait("approval"),)))
            await w.round()
            for _ in range(5):
                assert await w.round(after=INTERVAL) == {"simple": 2}

    async def test_a_change_costs_one_detail_request(self) -> None:
        async with watching(["a"]) as w:
            w.orders.create("a", Script(pieces=(Sleep("nap", 20), Wait("approval"))))
            await w.round(after=1)
            assert await w.round(after=INTERVAL) == {"simple": 1}
            assert await w.round(after=INTERVAL) == {"simple": 1, "detail": 1}
            assert await w.round(after=INTERVAL) == {"simple": 1}

    async def test_a_live_instance_at_rest_gets_a_detail_request_after_detail_refresh(self) -> None:
        """A retry inside a step that stays open doesn't show in simple responses."""
        async with watching(["a"], poll={"detail_refresh": "1m"}) as w:
            script = Script(pieces=(retried("flaky", failures=9, duration=1, backoff=30),))
            w.orders.create("a", script)
            await w.round(after=2)
            labels = {"instance_id": "a", "outcome": "failure"}
            assert w.value("cloudflare_workflow_instance_attempts", **labels) == 1
            for _ in range(3):
                assert await w.round(after=INTERVAL) == {"simple": 1}
            assert w.value("cloudflare_workflow_instance_attempts", **labels) == 1
            assert await w.round(after=INTERVAL) == {"detail": 1}
            assert w.value("cloudflare_workflow_instance_attempts", **labels) == 2

    async def test_an_ended_instance_is_polled_every_ended_interval(self) -> None:
        async with watching(["a"], poll={"ended_interval": "1m", "detail_refresh": "1m"}) as w:
            w.orders.create("a", Script(steps("pay")))
            await w.round(after=60)
            assert w.status("a") == "complete"
            polls = [await w.round(after=INTERVAL) for _ in range(8)]
            assert polls == [{}, {}, {}, {"simple": 1}] * 2

    async def test_a_restart_of_an_ended_instance_is_found(self) -> None:
        async with watching(["a"], poll={"ended_interval": "1m"}) as w:
            a = w.orders.create("a", Script(steps("pay")))
            await w.round(after=60)
            a.restart(script=Script(pieces=(Wait("approval"),)))
            await w.round(after=60)
            assert w.status("a") == "waiting"
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 1

    async def test_a_round_that_comes_a_little_early_leaves_nothing_out(self) -> None:
        """Rounds are jittered; what is due before the middle of the interval belongs to them."""
        async with watching(["a"]) as w:
            w.orders.create("a", Script(pieces=(Wait("approval"),)))
            await w.round()
            assert await w.round(after=INTERVAL * 0.95) == {"simple": 1}

    async def test_an_upstream_that_leaves_fields_out_of_simple_responses(self) -> None:
        """What they never have is no news: it costs no detail request."""
        async with watching(["a"]) as w:
            a = w.orders.create("a", Script(pieces=(Wait("approval"),)))
            a.patch = lambda result: result if "steps" in result else {**result, "versionId": None}
            assert await w.round() == {"detail": 1}
            assert await w.round(after=INTERVAL) == {"simple": 1}

    async def test_one_whose_detail_responses_have_steps_but_no_count_of_them(self) -> None:
        async with watching(["a"]) as w:
            a = w.orders.create("a", Script(pieces=(*steps("pay"), Wait("approval"))))
            a.patch = lambda result: {**result, "step_count": None} if "steps" in result else result
            assert await w.round(after=INTERVAL) == {"detail": 1}
            assert await w.round(after=INTERVAL) == {"simple": 1}
            assert w.value("cloudflare_workflow_instance_step_count", instance_id="a") == 2


class TestFailures:
    async def test_a_failed_poll_is_repeated_in_the_next_round_even_of_an_ended_instance(
        self,
    ) -> None:
        async with watching(["a"], poll={"ended_interval": "1m"}) as w:
            w.orders.create("a", Script(steps("pay")))
            await w.round(after=60)
            w.simulator.faults.add(error(500), times=1)
            await w.round(after=60)
            assert w.value("cloudflare_workflow_up") == 0
            assert await w.round(after=INTERVAL) == {"simple": 1}
            assert w.value("cloudflare_workflow_up") == 1

    async def test_a_change_whose_detail_request_failed_is_not_lost(self) -> None:
        async with watching(["a"]) as w:
            w.orders.create("a", Script(pieces=(Sleep("nap", 20), Wait("approval"))))
            await w.round(after=1)
            w.simulator.faults.add(error(500), kind="detail", times=1)
            await w.round(after=20)
            assert w.value("cloudflare_workflow_instance_step_count", instance_id="a") == 1
            await w.round(after=INTERVAL)
            assert w.value("cloudflare_workflow_instance_step_count", instance_id="a") == 2

    async def test_the_time_of_the_last_success_stands_still(self) -> None:
        async with watching(["a"]) as w:
            w.orders.create("a", Script(pieces=(Wait("approval"),)))
            await w.round()
            succeeded = w.clock()
            w.simulator.faults.add(error(500))
            await w.round(after=INTERVAL)
            assert w.value("cloudflare_workflow_last_success_timestamp_seconds") == succeeded

    async def test_a_workflow_where_nothing_is_due_is_up(self) -> None:
        async with watching(["a"]) as w:
            w.orders.create("a", Script(steps("pay")))
            await w.round(after=60)
            assert await w.round(after=INTERVAL) == {}
            assert w.value("cloudflare_workflow_up") == 1
            assert w.value("cloudflare_workflow_last_success_timestamp_seconds") == w.clock()

    async def test_a_workflow_is_not_up_before_its_first_polls_ended(self) -> None:
        async with watching(["a"], poll={"interval": "100ms"}) as w:
            w.simulator.faults.add(Hang())
            (poller,) = w.app.pollers
            await poller.round()
            assert w.value("cloudflare_workflow_up") == 0
            assert w.value("cloudflare_workflow_last_success_timestamp_seconds") == 0
            await until(lambda: w.simulator.requests.in_flight)
            w.simulator.faults.clear()
            await w.round()
            assert w.value("cloudflare_workflow_up") == 1

    async def test_a_workflow_is_up_from_its_first_poll_that_succeeds(self) -> None:
        """With a small budget, those of its other instances take longer than an alert waits."""
        async with watching(["a", "b"], poll={"interval": "100ms"}) as w:
            for name in ("a", "b"):
                w.orders.create(name, Script(pieces=(Wait("approval"),)))
            w.simulator.faults.add(Hang(), times=1)
            (poller,) = w.app.pollers
            await poller.round()
            await until(lambda: any(i.status for i in poller.instances.values()))
            await poller.round()
            await w.saved()
            assert w.value("cloudflare_workflow_up") == 1
            assert not poller.tried
            w.simulator.faults.clear()

    async def test_a_problem_is_reported_once_and_its_end_once(self) -> None:
        async with watching(["a", "b"]) as w:
            for name in ("a", "b"):
                w.orders.create(name, Script(pieces=(Wait("approval"),)))
            await w.round()
            fault = w.simulator.faults.add(error(500))
            with capture_logs() as logs:
                await w.round(after=INTERVAL)
                await w.round(after=INTERVAL)
                w.simulator.faults.remove(fault)
                await w.round(after=INTERVAL)
                await w.round(after=INTERVAL)
            logged = [(e["log_level"], e["event"], e.get("instances")) for e in logs]
            assert logged == [
                ("warning", "failed to poll instances; keeping last known values", 2),
                ("info", "instances can be polled and listed again", None),
            ]


class TestNotFound:
    async def test_an_instance_that_isnt_there_yet_is_no_failure(self) -> None:
        async with watching(["a"]) as w:
            assert await w.round() == {"detail": 1}
            assert w.value("cloudflare_workflow_up") == 1
            found = w.value(
                "cloudflare_workflows_exporter_polls_total", kind="detail", result="not_found"
            )
            assert found == 1
            w.orders.create("a", Script(pieces=(Wait("approval"),)))
            await w.round(after=INTERVAL)
            assert w.status("a") == "waiting"

    async def test_a_deleted_instances_series_go_after_forget_after(self) -> None:
        async with watching(["a"], poll={"forget_after": "30s"}) as w:
            a = w.orders.create("a", Script(pieces=(Wait("approval"),)))
            await w.round()
            assert w.watched() == 1
            a.delete()
            for _ in range(3):
                await w.round(after=INTERVAL)
                assert w.status("a") == "waiting"
            await w.round(after=INTERVAL)
            assert w.status("a") is None
            assert w.watched() == 0
            assert w.value("cloudflare_workflow_up") == 1
            assert not w.samples("cloudflare_workflow_instance_info")

    async def test_a_run_that_comes_back_is_not_counted_again(self) -> None:
        async with watching(["a"], poll={"forget_after": "30s", "ended_interval": "15s"}) as w:
            w.orders.create("a", Script(steps("pay")))
            await w.round(after=60)
            gone = w.simulator.faults.add(error(404, 10400, "instance.not_found"))
            for _ in range(5):
                await w.round(after=INTERVAL)
            assert w.status("a") is None
            w.simulator.faults.remove(gone)
            await w.round(after=INTERVAL)
            assert w.status("a") == "complete"
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 1


class TestStaleAnswers:
    async def test_one_is_ignored(self) -> None:
        async with watching(["a"]) as w:
            a = w.orders.create("a", Script(pieces=(Sleep("nap", 20), Wait("approval"))))
            await w.round(after=30)
            a.result = {"queued": "2026-01-01T00:00:00Z", "status": "queued", "step_count": 0}
            assert await w.round(after=INTERVAL) == {"simple": 1}
            assert w.status("a") == "waiting"
            assert w.value("cloudflare_workflow_up") == 1

    async def test_one_changes_nothing_however_often_it_comes(self) -> None:
        """Only a time later than all that are known proves that an instance is live again."""
        async with watching(["a"], poll={"detail_refresh": "30s", "ended_interval": "15s"}) as w:
            a = w.orders.create("a", Script(steps("pay")))
            await w.round(after=60)
            a.force_status("running")
            a.patch = lambda result: {**result, "end": None}
            for _ in range(5):
                await w.round(after=INTERVAL)
                assert w.status("a") == "complete"
            assert w.value("cloudflare_workflow_up") == 1

    async def test_one_with_steps_hides_no_change_that_a_simple_one_shows(self) -> None:
        async with watching(["a"]) as w:
            a = w.orders.create("a", Script(pieces=(Wait("approval"),)))
            await w.round()
            before = success(instance_detail(a, w.simulator.world.settle()))
            a.terminate(w.clock() + 1)
            w.simulator.faults.add(Respond(body=before.body), kind="detail", times=1)
            for _ in range(2):
                await w.round(after=INTERVAL)
            assert w.status("a") == "terminated"


class TestSlowInstances:
    async def test_one_that_hangs_holds_up_nobody_and_is_asked_once_at_a_time(self) -> None:
        async with watching(["slow", "a"], poll={"interval": "100ms"}) as w:
            for name in ("slow", "a"):
                w.orders.create(name, Script(pieces=(Wait("approval"),)))
            await w.round()
            w.simulator.faults.add(Hang(), instance="slow")
            (poller,) = w.app.pollers
            w.simulator.requests.clear()
            for _ in range(3):
                w.clock.advance(1)
                await poller.round()
                # On a busy machine its poll may outlast the round, too.
                await until(lambda: poller.instances["a"].activity is None)
            assert len(w.simulator.requests.of(instance="a")) == 3
            assert w.simulator.requests.most_in_flight_of_one == 1
            w.simulator.faults.release()


async def test_no_poll_begins_once_the_exporter_stops() -> None:
    """Not even the one that shows whether every poll fails: its connection would be closed."""
    failing = asyncio.Event()

    class Fails:
        async def act(self, exchange: Exchange) -> None:
            await failing.wait()
            await error(500).act(exchange)

    async with watching(["live", "ended"]) as w:
        w.orders.create("live", Script((Wait("approval"),)))
        w.orders.create("ended", Script(steps("pay")))
        await w.round(after=5)
        w.simulator.requests.clear()
        w.simulator.faults.add(Fails())
        w.clock.advance(INTERVAL)
        (poller,) = w.app.pollers
        polling = asyncio.create_task(poller.round())
        await until(lambda: w.simulator.requests.total == 1)
        stopping = asyncio.create_task(w.app.watched.stop())
        await asyncio.sleep(0)
        failing.set()
        await asyncio.gather(polling, stopping)
        for _ in range(20):
            await asyncio.sleep(0)
        assert w.simulator.requests.total == 1


async def test_lag_is_how_far_the_oldest_due_poll_is_behind() -> None:
    async with watching(["a", "ended"]) as w:
        w.orders.create("a", Script(pieces=(Wait("approval"),)))
        w.orders.create("ended", Script(), at=w.clock() - 60)
        await w.round()
        w.clock.advance(INTERVAL + 7)
        assert w.value("cloudflare_workflows_exporter_poll_lag_seconds") == 7


async def test_what_errored_was_not_late_before_a_list_showed_it() -> None:
    """However long ago the steps of a live instance could have been fetched."""
    script = Script(pieces=(Sleep("nap", 3590),), throws=Error("Boom"))
    async with watching(workflows=[{"name": "orders", "discover": {}}]) as w:
        for n in range(30):
            w.orders.create(f"a{n}", script)
        await w.cycle(after=5)
        w.clock.advance(3600)
        w.simulator.faults.add(error(429), kind="detail")
        (account,) = w.app.accounts
        await account.list_passes()
        await until(lambda: account.workflows.queue.budget.blocked > 0)
        w.clock.advance(10)
        assert len(account.workflows.queue) > 10
        assert w.value("cloudflare_workflows_exporter_poll_lag_seconds") == 10


async def test_a_restart_that_only_a_poll_can_show_is_no_detail_that_can_wait() -> None:
    """Its status may be the same as before, and its start and steps are others."""
    async with watching(workflows=[{"name": "orders", "discover": {}}]) as w:
        instances = [
            w.orders.create(f"a{n}", Script(pieces=(Wait("approval"),))) for n in range(30)
        ]
        await w.cycle(after=5)
        w.clock.advance(60)
        for instance in instances:
            instance.restart()
        w.simulator.faults.add(error(429), kind="detail")
        (account,) = w.app.accounts
        await account.list_passes()
        await until(lambda: account.workflows.queue.budget.blocked > 0)
        w.clock.advance(10)
        assert len(account.workflows.queue) > 10
        assert w.value("cloudflare_workflows_exporter_poll_lag_seconds") == 10


async def test_a_budget_that_is_too_small_is_reported_now_and_then_with_what_would_help() -> None:
    async with watching(["a"], api={"requests_per_5m": 10}) as w:
        w.orders.create("a", Script(pieces=(Wait("approval"),)))
        await w.round()
        with capture_logs() as logs:
            w.app.health.warn_if_late()
            w.clock.advance(INTERVAL + 90)
            w.app.health.warn_if_late()
            w.clock.advance(60)
            w.app.health.warn_if_late()
            w.clock.advance(240)
            w.app.health.warn_if_late()
            await w.round()
            for _ in range(2):
                w.app.health.warn_if_late()
        assert logs.pop()["event"] == "polls are on time again"
        assert [line["lag"] for line in logs] == ["90s", "390s"]
        assert logs[0]["event"] == "the budget is too small; polls are overdue"
        assert logs[0]["requests_needed_in_5m"] == 20
        assert logs[0]["requests_allowed_in_5m"] == 10
        assert "api.requests_per_5m" in logs[0]["advice"]


async def test_a_large_enough_budget_is_not_reported_as_too_small() -> None:
    """Polls are overdue because another tool has used up the user's limit."""
    async with watching(["a"]) as w:
        w.orders.create("a", Script(pieces=(Wait("approval"),)))
        await w.round()
        w.simulator.limit.quota = 1200
        w.simulator.limit.spend(1195)
        await w.round(after=INTERVAL)
        (account,) = w.app.accounts
        assert account.workflows.queue.budget.blocked > 0
        w.clock.advance(INTERVAL + 90)
        with capture_logs() as logs:
            w.app.health.warn_if_late()
        assert [line["event"] for line in logs] == [
            "requests are slow or refused; polls are overdue"
        ]
        assert logs[0]["requests_needed_in_5m"] <= logs[0]["requests_allowed_in_5m"]


async def test_what_a_budget_lacks_includes_the_polls_that_wait() -> None:
    """Those of discovered instances that errored, which no interval repeats."""
    workflows = [{"name": "orders", "discover": {}}]
    async with watching(workflows=workflows, api={"requests_per_5m": 40}) as w:
        for n in range(50):
            w.orders.create(f"a{n}", Script(steps("pay"), throws=Error("Boom")))
        w.clock.advance(5)
        (account,) = w.app.accounts
        await account.list_passes()
        w.clock.advance(90)
        with capture_logs() as logs:
            w.app.health.warn_if_late()
        waiting = len(account.workflows.queue)
        assert waiting > 30
        assert logs[0]["requests_needed_in_5m"] == account.needed + waiting


async def test_what_takes_only_spare_requests_is_not_lacking() -> None:
    workflows = [{"name": "orders", "discover": {}}]
    async with watching(workflows=workflows) as w:
        for n in range(30):
            w.orders.create(f"a{n}", Script(pieces=(Wait("approval"),)))
        await w.cycle(after=5)
        (account,), (poller,) = w.app.accounts, w.app.pollers
        account.workflows.queue.budget.rate_limited(300)
        w.clock.advance(60)
        rounds = asyncio.create_task(poller.round())
        await until(lambda: len(account.workflows.queue) == 30)
        assert w.app.watched.needed(account.workflows.queue) == account.needed
        await w.app.watched.stop()
        await rounds


async def test_of_those_that_no_list_shows_changed_the_most_overdue_wait_a_few_at_a_time() -> None:
    """Beside configured ones, which are due."""
    workflows = [{"name": "orders", "instances": ["b"], "discover": {}}]
    api, poll = {"requests_per_5m": 150}, {"interval": "60s"}
    async with watching(workflows=workflows, api=api, poll=poll) as w:
        w.orders.create("b", Script(pieces=(Wait("approval"),)))
        for n in range(8):
            w.orders.create(f"a{n}", Script(pieces=(Wait("approval"),)))
            await w.cycle(after=3)
        (account,), (poller,) = w.app.accounts, w.app.pollers
        account.workflows.queue.budget.rate_limited(300)
        w.clock.advance(100)
        for _ in range(2):
            polling = asyncio.create_task(poller.round())
            for _ in range(20):
                await asyncio.sleep(0)
            polling.cancel()
            await asyncio.gather(polling, return_exceptions=True)
            waiting = {i.id for i in poller.instances.values() if i.activity}
            # Three tenths of the requests that the budget has in a minute of its first window.
            assert waiting == {"b", *(f"a{n}" for n in range(6))}


@pytest.mark.parametrize("why", ["failed", "failed before a restart", "behind"])
async def test_what_is_to_be_polled_again_goes_before_those_that_no_list_shows_changed(
    why: str, tmp_path: Path
) -> None:
    """Rounds each second leave a single request to these."""
    more: dict[str, Any] = {"poll": {"interval": "1s"}, "api": {"requests_per_5m": 600}}
    more["workflows"] = [{"name": "orders", "discover": {}}]
    async with watching(**more, state=tmp_path / "state.db") as w:
        for n in range(6):
            w.orders.create(f"a{n}", Script(pieces=(Wait("approval"),)))
        w.orders.create("z", Script(steps("pay", duration=5), throws=Error("Boom")))
        await w.cycle(after=1)
        stale = error(500) if why != "behind" else behind(w, "z")
        w.simulator.faults.add(stale, kind="detail", times=1)
        await w.cycle(after=5)
        ended = {"instance_id": "z", "step_type": "step", "outcome": "success"}
        assert not w.value("cloudflare_workflow_instance_steps", **ended)
        if why == "failed before a restart":
            await w.restart()
        await w.cycle(after=2)
        assert w.value("cloudflare_workflow_instance_steps", **ended) == 1


async def test_history_is_not_counted_without_backfill() -> None:
    """What had ended before the exporter began to watch; what ends later counts."""
    async with watching(["old", "new"], metrics={"backfill": False}) as w:
        script = Script(pieces=(*steps("pay"), Sleep("nap", 5), *steps("ship")))
        w.orders.create("old", Script(steps("pay")), at=w.clock() - 60)
        w.orders.create("new", script, at=w.clock() - 2)
        await w.round(after=60)
        assert w.status("old") == "complete"
        assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 1
        shipped = {"step": "ship", "step_type": "step", "outcome": "success"}
        assert w.value("cloudflare_workflow_step_duration_seconds_count", **shipped) == 1
        assert not any(
            "pay" in str(k) for k in w.samples("cloudflare_workflow_step_attempts_count")
        )


async def test_old_runs_of_instances_new_in_the_configuration_are_dated_when_counted() -> None:
    """So that alerts take none for news; a run that has just ended is."""
    async with watching(["new"]) as w:
        w.orders.create("old", Script(steps("pay"), throws=Error("Boom")), at=w.clock() - 7200)
        w.orders.create("new", Script(steps("pay"), throws=Error("Boom")), at=w.clock() - 60)
        await w.round(after=60)
        assert w.value("cloudflare_workflow_backfill_timestamp_seconds") is None
        await w.reload(workflows=[{"name": "orders", "instances": ["old", "new"]}])
        await w.round(after=15)
        assert w.value("cloudflare_workflow_runs_finished_total", status="errored") == 2
        assert w.value("cloudflare_workflow_backfill_timestamp_seconds") == w.clock()
        await w.round(after=15)
        assert w.value("cloudflare_workflow_backfill_timestamp_seconds") == w.clock() - 15


async def test_so_are_old_attempts_of_live_instances_new_in_the_configuration() -> None:
    async with watching(["first"]) as w:
        w.orders.create("first", Script((Sleep("nap", 86400),)), at=w.clock() - 7200)
        script = Script((retried("pay", failures=3, duration=1, backoff=1), Sleep("nap", 86400)))
        w.orders.create("old", script, at=w.clock() - 7200)
        w.orders.create("new", script, at=w.clock() - 60)
        times = []
        for ids in (["first"], ["first", "new"], ["first", "new", "old"]):
            await w.reload(workflows=[{"name": "orders", "instances": ids}])
            await w.round(after=15)
            times.append(w.value("cloudflare_workflow_backfill_timestamp_seconds"))
        assert times == [None, None, w.clock()]


@pytest.mark.parametrize(("thrown", "shown"), [("TypeError", "TypeError"), ("CardError", "Error")])
async def test_an_errored_instance_shows_its_error(thrown: str, shown: str) -> None:
    """The engine flattens what isn't one of JavaScript's own."""
    async with watching(["a"]) as w:
        w.orders.create("a", Script(steps("pay"), throws=Error(thrown, "secret message")))
        await w.round(after=60)
        body, _ = w.app.exposition.render()
        assert b"secret message" not in body
        labels = {"instance_id": "a", "error_name": shown, "step": ""}
        assert w.value("cloudflare_workflow_instance_error_info", **labels) == 1


def test_the_interval_of_these_tests_is_the_default() -> None:
    assert Duration.parse("15s") == INTERVAL
