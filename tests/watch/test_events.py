"""Events make their instances due: nothing is counted from one, and none is lost."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from exporter.config.accounts import Workflow
from exporter.watch.events import Events
from simulator import QUEUES_EDIT, Attempt, Error, Queue, Script, Sleep, Step, error, retried, steps
from simulator.clock import timestamp
from simulator.lifecycle_events import event_body
from tests import disk
from tests.watching import Watching, watching

QUEUE = "e5a9a1b1c0de4f0f8a1f5b6c7d8e9f00"
FAILURE = Error("TypeError", "no")
LONG = Script((Sleep("nap", 10_000),))


def failing(after: float) -> Script:
    return Script((Step("charge", (Attempt(after, FAILURE),)),))


def event(kind: str, instance: str, at: float, **other: Any) -> dict[str, Any]:
    fields = {"account": "acc", "workflow": "orders", "version": "v"} | other
    return event_body(kind, instance=instance, time=timestamp(round(at * 1000)), **fields)


@asynccontextmanager
async def events(
    discover: Any = (),
    *,
    glob: str = "orders",
    interval: str = "2m",
    state: Path | None = None,
    **settings: Any,
) -> AsyncIterator[tuple[Watching, Queue]]:
    """An exporter that discovers `orders`, and gets its events."""
    workflows = [{"name": glob, "discover": dict(discover)}]
    wanted = {"queue_id": QUEUE, "api_token": "queues", "list_interval": interval}
    async with watching(workflows=workflows, events=wanted, state=state, **settings) as w:
        w.simulator.access.token("queues", permissions=[QUEUES_EDIT])
        queue = w.simulator.world.account("acc").queue(QUEUE, "orders")
        yield w, queue


def source(w: Watching) -> Events:
    found = w.app.accounts[0].events
    assert found is not None
    return found


async def step(w: Watching, *, after: float = 0) -> dict[str, int]:
    """A step of the events' loop, and what it had polled; the requests, by kind."""
    w.clock.advance(after)
    w.simulator.requests.clear()
    await source(w).step()
    queue = w.app.accounts[0].workflows.queue
    while len(queue) or queue.under_way:  # noqa: ASYNC110 - on a socket, and no event is set
        await asyncio.sleep(0.002)
    await source(w).step()
    await w.saved()
    return {k: n for k, n in w.requests.items() if k not in ("pull", "ack")}


def results(w: Watching) -> dict[tuple[str, str], float]:
    """Messages that are done with, by type and result."""
    found = w.samples("cloudflare_workflows_exporter_events_total")
    named = {(dict(k)["type"], dict(k)["result"]): v for k, v in found.items()}
    return {k: v for k, v in named.items() if v}


class TestAnEvent:
    async def test_has_an_errored_instance_shown_before_the_next_list_pass(self) -> None:
        async with events() as (w, queue):
            w.orders.create("a", failing(60))
            await w.cycle()
            await step(w, after=5)
            assert await step(w, after=58) == {"detail": 1}
            assert w.status("a") == "errored"
            assert w.value("cloudflare_workflow_runs_finished_total", status="errored") == 1
            assert queue.backlog == 0
            assert "detail" not in await w.cycle(after=15)
            assert w.value("cloudflare_workflow_runs_finished_total", status="errored") == 1

    async def test_has_an_unseen_instance_requested_and_taken_by_the_selectors_rules(self) -> None:
        async with events({"min_age": "10m", "exclude": ["x*"]}) as (w, queue):
            await w.cycle()
            for name in ("a", "x-1"):
                w.orders.create(name, failing(5))
            w.orders.create("done", Script(steps("fetch", duration=5)))
            assert await step(w, after=10) == {"detail": 2}
            assert w.shown() == {"a"}  # what completes isn't selected
            assert w.value("cloudflare_workflow_runs_finished_total", status="errored") == 1
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 1
            assert queue.backlog == 0
            await w.cycle(after=15)
            assert w.shown() == {"a"}
            assert w.value("cloudflare_workflow_runs_finished_total", status="errored") == 1
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 1

    async def test_of_an_attempt_that_is_retried_changes_no_status(self) -> None:
        async with events() as (w, _queue):
            charge = retried("charge", 1, error=FAILURE, duration=5, backoff=100)
            w.orders.create("a", Script((charge, Sleep("nap", 1000))))
            await w.cycle()
            assert await step(w, after=6) == {"detail": 1}
            assert w.status("a") == "running"
            assert w.value("cloudflare_workflow_runs_finished_total", status="errored") == 0
            assert ("errored", "shown") in results(w)
            assert await step(w, after=2) == {}

    async def test_that_comes_again_costs_nothing(self) -> None:
        async with events() as (w, queue):
            queue.twice = 1.0
            w.orders.create("a", failing(5))
            assert (await step(w, after=10)) == {"detail": 1}
            assert await step(w, after=200) == {}
            assert w.value("cloudflare_workflow_runs_finished_total", status="errored") == 1
            assert queue.backlog == 0

    async def test_of_one_whose_record_is_still_to_be_deleted_counts_nothing_twice(self) -> None:
        async with events(poll={"forget_after": "1m"}) as (w, _queue):
            await w.cycle()
            a = w.orders.create("a", Script(steps("pay")))
            await w.cycle(after=15)
            await step(w)
            w.clock.advance(150)
            await w.app.accounts[0].list_passes()  # its end is in no list any more
            a.restart_from("pay")
            w.clock.advance(2)
            await source(w).step()
            await w.app.pollers[0].round(whole=True)
            assert "a" not in w.app.pollers[0].instances
            await step(w)
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 2

    @pytest.mark.parametrize("time", [None, "", 1_800_000_000_000, "0001-01-01T00:00:00Z"])
    async def test_without_a_time_has_its_instance_polled_all_the_same(self, time: Any) -> None:
        async with events() as (w, queue):
            w.orders.create("a", failing(60))
            await w.cycle()
            queue.lost = 1.0
            w.clock.advance(61)
            w.simulator.world.settle()
            queue.lost = 0.0
            body = event("errored", "a", 0)
            body["metadata"]["eventTimestamp"] = time
            queue.push(body, round(w.clock() * 1000))
            assert await step(w) == {"detail": 1}
            assert w.status("a") == "errored"
            assert results(w)["errored", "shown"] == 1
            assert await step(w, after=60) == {}

    async def test_without_an_account_is_of_the_queues(self) -> None:
        async with events() as (w, queue):
            w.orders.create("a", failing(5))
            await w.cycle()
            body = event("errored", "a", w.clock() + 5)
            body["metadata"]["accountId"] = None
            queue.push(body, round(w.clock() * 1000))
            await step(w, after=10)
            assert results(w)["errored", "shown"] == 2  # that of the simulator, too

    async def test_of_a_start_is_left_to_the_lists(self) -> None:
        async with events() as (w, queue):
            w.orders.create("a", LONG)
            assert await step(w, after=1) == {}
            assert results(w) == {("started", "listed"): 1}
            assert queue.backlog == 0

    async def test_of_a_live_instance_without_series_is_left_to_the_lists(self) -> None:
        async with events({"statuses": ["errored"]}) as (w, queue):
            a = w.orders.create("a", LONG)
            await w.cycle()
            a.pause(w.clock() + 5)
            assert await step(w, after=6) == {}
            assert results(w) == {("started", "known"): 1, ("paused", "listed"): 1}
            assert queue.backlog == 0

    @pytest.mark.parametrize("plain", [True, False])
    async def test_comes_as_base64_or_plain(self, *, plain: bool) -> None:
        async with events() as (w, queue):
            queue.plain = plain
            w.orders.create("a", failing(5))
            await step(w, after=10)
            assert w.status("a") == "errored"

    async def test_has_a_configured_instance_polled(self) -> None:
        wanted = {"queue_id": QUEUE, "api_token": "queues"}
        async with watching(["a"], events=wanted) as w:
            w.simulator.access.token("queues", permissions=[QUEUES_EDIT])
            w.simulator.world.account("acc").queue(QUEUE, "orders")
            order = w.orders.create("a", LONG)
            w.orders.create("other", failing(5))
            await w.cycle()
            order.pause(w.clock() + 5)
            assert await step(w, after=6) == {"detail": 1}
            assert w.status("a") == "paused"
            assert ("errored", "other") in results(w)

    async def test_of_one_that_cannot_be_read_is_left_to_the_lists_after_ten_minutes(self) -> None:
        async with events() as (w, queue):
            w.orders.create("a", LONG)
            await w.cycle()
            w.simulator.faults.add(error(500), kind="detail")
            queue.push(event("errored", "a", w.clock()), round(w.clock() * 1000))
            for after, ended in ((0, False), (600, False), (1, True)):
                await step(w, after=after)
                assert (("errored", "unconfirmed") in results(w)) is ended


class TestAResponseThatIsBehind:
    async def test_is_followed_by_further_polls_then_left_to_the_lists(self) -> None:
        async with events() as (w, queue):
            w.orders.create("a", LONG)
            await w.cycle()
            queue.push(event("errored", "a", w.clock()), round(w.clock() * 1000))
            polls = [await step(w, after=after) != {} for after in (0, *[1] * 30)]
            assert [i for i, polled in enumerate(polls) if polled] == [0, 1, 3, 8, 23]
            assert results(w)[("errored", "unconfirmed")] == 1
            assert queue.backlog == 0
            assert w.status("a") in ("running", "waiting")

    async def test_is_followed_by_one_poll_once_a_later_one_shows_it(self) -> None:
        async with events() as (w, queue):
            order = w.orders.create("a", LONG)
            await w.cycle()
            order.terminate(w.clock() + 3)
            queue.push(event("terminated", "a", w.clock() + 3), round(w.clock() * 1000))
            assert await step(w) == {"detail": 1}
            assert await step(w, after=1) == {"detail": 1}
            assert await step(w, after=2) == {"detail": 1}
            assert w.value("cloudflare_workflow_runs_finished_total", status="terminated") == 1
            assert await step(w, after=60) == {}

    async def test_may_be_confirmed_by_a_list_first(self) -> None:
        async with events() as (w, queue):
            order = w.orders.create("a", LONG)
            await w.cycle()
            queue.push(event("terminated", "a", w.clock() + 1), round(w.clock() * 1000))
            await step(w)
            order.terminate(w.clock() + 0.5)
            await w.cycle(after=0.5)
            assert await step(w) == {}
            assert results(w)[("terminated", "shown")] == 1


class TestAcknowledgement:
    async def test_waits_until_what_was_made_due_is_recorded(self, tmp_path: Path) -> None:
        async with events(state=tmp_path / "state.db") as (w, queue):
            w.orders.create("a", failing(30))
            await w.cycle()
            await step(w, after=5)
            fault = w.simulator.faults.add(error(500), instance="a")
            await step(w, after=30)
            assert queue.backlog == 0  # recorded, though no poll succeeded
            w.simulator.faults.remove(fault)
            await w.restart(killed=True)
            await w.cycle(after=1)
            assert w.status("a") == "errored"

    async def test_waits_until_an_unseen_instance_is_recorded(self, tmp_path: Path) -> None:
        async with events(state=tmp_path / "state.db") as (w, queue):
            await w.cycle()
            w.orders.create("a", failing(1))
            fault = w.simulator.faults.add(error(500), instance="a")
            await step(w, after=5)
            assert queue.backlog == 0  # recorded, though no poll succeeded
            w.simulator.faults.remove(fault)
            w.simulator.faults.add(error(500), kind="list")
            await w.restart(killed=True)
            await w.cycle(after=30)
            assert w.value("cloudflare_workflow_runs_finished_total", status="errored") == 1

    async def test_does_not_come_while_nothing_can_be_committed(self) -> None:
        async with events() as (w, queue):
            w.orders.create("a", failing(30))
            await w.cycle()
            await step(w, after=5)

            w.clock.advance(30)
            async with w.app.writer.saving:
                stepping = asyncio.create_task(source(w).step())
                await asyncio.sleep(0.1)
                assert queue.backlog == 1
            await stepping
            assert queue.backlog == 0


class TestMessagesThatAreNone:
    @pytest.mark.parametrize(
        ("body", "result"),
        [
            ("hello", "unreadable"),
            ("{", "unreadable"),
            ("[" * 100_000, "unreadable"),
            ({}, "unreadable"),
            ([], "unreadable"),
            ({"type": "cf.workflows.workflow.instance.errored"}, "unreadable"),
            ({"type": "cf.r2.bucket.created", "metadata": {"accountId": "acc"}}, "other"),
            ({"type": "cf.workflows.workflow.instance.exploded", "metadata": 7}, "other"),
            (event("exploded", "a", 0), "other"),
            (event("errored", "a", 0, workflow="billing"), "other"),
            (event("errored", "a", 0, account="another"), "other"),
            (event("errored", "a\n", 0), "unreadable"),
        ],
    )
    @pytest.mark.parametrize("plain", [True, False])
    async def test_are_acknowledged_and_counted(
        self, body: Any, result: str, *, plain: bool
    ) -> None:
        async with events() as (w, queue):
            queue.plain = plain
            queue.push(body, round(w.clock() * 1000), content_type="json" if plain else "text")
            assert await step(w) == {}
            assert list(results(w).values()) == [1]
            assert [key[1] for key in results(w)] == [result]
            assert queue.backlog == 0

    async def test_about_other_workflows_cost_the_same_however_many_are_watched(self) -> None:
        """A queue may hold the events of every workflow, a hundred in each pull."""

        class Entries(list[Workflow]):
            reads = 0

            def __iter__(self) -> Iterator[Workflow]:
                self.reads += 1
                return super().__iter__()

        async with events(glob="orders*") as (w, queue):
            for n in range(20):
                w.simulator.world.account("acc").workflow(f"orders-{n}")
            await w.cycle()
            workflows = w.app.accounts[0].workflows
            entries = Entries(workflows.settings.entries)
            workflows.settings = replace(workflows.settings, entries=entries)
            queue.push(event("errored", "a", 0, workflow="billing"), round(w.clock() * 1000))
            await step(w)
            assert results(w) == {("errored", "other"): 1}
            assert entries.reads <= 2


class TestAProblemOfTheQueue:
    @pytest.mark.parametrize(
        ("break_", "advice"),
        [
            (lambda w, _: w.simulator.access.revoke("queues"), "Queues Edit"),
            (lambda w, _: w.simulator.access.token("queues"), "Queues Edit"),
            (lambda w, _: w.simulator.world.account("acc").queues.clear(), "events.queue_id"),
            (lambda _, q: setattr(q, "consumer", "worker"), "wrangler queues consumer http add"),
        ],
    )
    async def test_backs_off_with_one_line_of_advice_and_stops_no_poll(
        self, break_: Any, advice: str
    ) -> None:
        async with events() as (w, queue):
            w.orders.create("a", failing(30))
            await w.cycle()
            break_(w, queue)
            with capture_logs() as lines:
                for _ in range(400):
                    await step(w, after=1)
            assert [advice in line["advice"] for line in lines] == [True]
            assert (await w.cycle())["list"] == 1
            assert w.status("a") == "errored"

    async def test_pulls_ever_less_often_while_it_lasts(self) -> None:
        async with events() as (w, queue):
            queue.consumer = None
            pulls = 0
            for _ in range(400):
                await step(w, after=1)
                pulls += w.requests.get("pull", 0)
            assert 9 <= pulls <= 13  # after 1, 2, 4 … 60 s


class TestPulls:
    async def test_are_at_once_while_full_then_rarer(self) -> None:
        async with events() as (w, queue):
            for number in range(250):
                queue.push({"n": number}, round(w.clock() * 1000))
            await source(w).step()
            await source(w).step()
            await source(w).step()
            assert queue.backlog == 0
            w.simulator.requests.clear()
            for _ in range(60):
                w.clock.advance(1)
                await source(w).step()
            assert 10 <= w.requests["pull"] <= 16

    async def test_stop_while_too_much_is_awaited(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("exporter.watch.events._MOST_AWAITED", 50)
        async with events() as (w, queue):
            now = w.clock()
            for number in range(300):
                queue.push(event("errored", f"gone-{number}", now), round(now * 1000))
            w.simulator.faults.add(error(500), kind="detail")
            for _ in range(5):
                await step(w, after=1)
            assert queue.leased == 0
            assert queue.backlog == 200

    async def test_end_with_a_reload_that_removes_them(self) -> None:
        async with events() as (w, _queue):
            assert [*w.app.leases.relays] == [source(w).relay]
            await w.reload(events=None)
            assert [*w.app.leases.relays] == []


class TestCoverage:
    @pytest.mark.slow
    async def test_stretches_list_passes_while_events_announce_all(self) -> None:
        async with events(interval="2m") as (w, queue):
            await w.cycle()
            await self.changes(w, 120)
            account = w.app.accounts[0]
            assert source(w).trusted
            assert w.value("cloudflare_workflows_exporter_event_coverage_ratio") == 1
            await w.cycle()
            assert account.next_pass - w.clock() == 120
            w.simulator.faults.add(error(500), kind="pull", times=1)
            for trusted in (False, True):
                await step(w, after=10)
                assert source(w).trusted is trusted
            queue.lost = 1.0
            with capture_logs() as lines:
                await self.changes(w, 20)
            assert [line["event"] for line in lines if line["log_level"] == "warning"] == [
                "events miss changes; list passes are back at poll.interval"
            ]
            assert account._wake.is_set()
            await w.cycle()
            assert account.next_pass - w.clock() == 15

    async def test_is_nothing_before_a_list_pass_found_changes(self) -> None:
        async with events() as (w, _):
            await step(w)
            assert w.value("cloudflare_workflows_exporter_event_coverage_ratio") is None

    async def changes(self, w: Watching, count: int) -> None:
        """Instances come and complete; list passes find them, events announce them."""
        for number in range(count):
            w.orders.create(f"{w.clock()}-{number}", Script(steps("fetch", duration=20)))
        for _ in range(4):
            await w.cycle(after=15)
            await step(w)
        await step(w, after=31)


class TestMetrics:
    @pytest.mark.parametrize("ahead", [0, 3600])
    async def test_show_backlog_and_delay(self, ahead: float) -> None:
        """The delay is by Cloudflare's clock."""
        async with events() as (w, _queue):
            w.ahead = ahead
            w.orders.create("a", failing(30))
            await w.cycle()
            await step(w, after=33)
            assert w.value("cloudflare_workflows_exporter_event_queue_backlog") == 2
            await step(w, after=1)
            assert w.value("cloudflare_workflows_exporter_event_queue_backlog") == 0
            assert w.value("cloudflare_workflows_exporter_event_delay_seconds_count") == 1
            assert w.value("cloudflare_workflows_exporter_event_delay_seconds_sum") == 3

    async def test_the_delay_is_counted_once_though_commits_fail_meanwhile(
        self, tmp_path: Path
    ) -> None:
        async with events(state=tmp_path / "state.db") as (w, queue):
            w.orders.create("a", failing(30))
            await w.cycle()
            with disk.full(tmp_path / "state.db"):
                await step(w, after=33)
            assert results(w) == {("errored", "shown"): 1, ("started", "known"): 1}
            assert queue.backlog == 2
            await step(w, after=1)
            assert queue.backlog == 0
            assert w.value("cloudflare_workflows_exporter_event_delay_seconds_count") == 1

    async def test_without_events_there_are_none(self) -> None:
        async with watching(workflows=[{"name": "orders", "discover": {}}]) as w:
            await w.cycle()
            body, _ = w.app.exposition.render()
            assert b"_exporter_event" not in b"".join(
                line for line in body.splitlines() if not line.startswith(b"#")
            )
            assert b'endpoint="pull"' not in body

    async def test_a_clock_that_is_behind_makes_no_negative_delay(self) -> None:
        async with events() as (w, _queue):
            w.ahead = -3600
            w.orders.create("a", failing(30))
            await w.cycle()
            await step(w, after=33)
            assert w.status("a") == "errored"
            assert w.value("cloudflare_workflows_exporter_event_delay_seconds_sum") == 0
