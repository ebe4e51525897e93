"""Times of responses that can't be, or stand for none."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from exporter.clock import Clock
from simulator import Error, Rewrite, Script, Sleep, Wait, retried, steps
from simulator.response import Response
from tests.watch.discovering import INTERVAL, discovering
from tests.watching import watching

NOW = 1_700_000_000.0
BOTH = [{"name": "orders", "instances": ["a"], "discover": {}}]
SCRIPT = Script((retried("charge", failures=1), Sleep("nap", 20), *steps("ship")), queued=20)


@pytest.mark.parametrize(
    "none",
    [
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "1970-01-01T00:00:00.000Z",
        "9999-12-31T23:59:59-14:00",
    ],
)
async def test_those_that_stand_for_none_are_none(none: str) -> None:
    """Some write a time that isn't set as the beginning of year 1 or of 1970 (Unix time 0), or as
    the end of year 9999."""

    def rewrite(reply: Response) -> Response:
        empty = rb'(?<="end":)null|(?<="start":)null|(?<="queued":)null|(?<=ed_on":)null'
        return Response(reply.status, re.sub(empty, json.dumps(none).encode(), reply.body))

    shown: list[list[dict[str, float]]] = []
    for fault in (None, Rewrite(rewrite)):
        async with watching(workflows=BOTH) as w:
            if fault:
                w.simulator.faults.add(fault)
            for name in "ab":
                w.orders.create(name, SCRIPT)
            shown.append([])
            for _ in range(6):
                await w.cycle(after=10)
                shown[-1].append(w.values())
    assert shown[0] == shown[1]


async def test_a_row_of_the_future_makes_no_other_instance_old() -> None:
    def rewrite(reply: Response) -> Response:
        body = json.loads(reply.body)
        for row in body["result"]:
            if row["id"] == "odd":
                row["modified_on"] = "2999-01-01T00:00:00Z"
        return Response(reply.status, json.dumps(body).encode())

    failing = Script(steps("charge"), throws=Error("TypeError", "no"))
    async with watching(workflows=[{"name": "orders", "discover": {}}]) as w:
        w.orders.create("failed", failing)
        await w.cycle(after=60)
        assert w.shown() == {"failed"}
        w.orders.create("odd", Script((Wait("approval"),)))
        w.simulator.faults.add(Rewrite(rewrite), kind="list")
        with capture_logs() as lines:
            for _ in range(5):
                await w.cycle(after=1200)
        assert {line.get("first") for line in lines} == {"a time more than 7 days ahead"}
        assert w.shown() == {"failed", "odd"}
        assert w.status("failed") == "errored"
        assert w.value("cloudflare_workflows_exporter_rows_ignored_total") == 5


@pytest.mark.parametrize("key", ["start", "end", "queued"])
async def test_one_of_the_future_in_one_response_hides_nothing_that_follows(key: str) -> None:
    def rewrite(reply: Response) -> Response:
        body = json.loads(reply.body)
        body["result"][key] = "2999-01-01T00:00:00Z"
        return Response(reply.status, json.dumps(body).encode())

    async with watching(["a"]) as w:
        w.orders.create("a", SCRIPT)
        w.simulator.faults.add(Rewrite(rewrite), kind="detail", times=1)
        for _ in range(6):
            await w.cycle(after=15)
        assert w.status("a") == "complete"
        assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 1


async def test_so_does_one_of_a_step() -> None:
    def rewrite(reply: Response) -> Response:
        body = json.loads(reply.body)
        body["result"]["steps"][0]["attempts"][0]["start"] = "2999-01-01T00:00:00Z"
        return Response(reply.status, json.dumps(body).encode())

    async with watching(["a"]) as w:
        w.orders.create("a", SCRIPT)
        w.simulator.faults.add(Rewrite(rewrite), kind="detail", skip=1, times=1)
        for _ in range(6):
            await w.cycle(after=15)
        assert w.status("a") == "complete"
        assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 1


async def test_a_date_that_stands_for_none_is_not_cloudflares_time() -> None:
    def rewrite(reply: Response) -> Response:
        return replace(reply, headers={**reply.headers, "Date": "Fri, 31 Dec 9999 23:59:59 GMT"})

    async with watching(workflows=BOTH) as w:
        w.orders.create("a", SCRIPT)
        w.simulator.faults.add(Rewrite(rewrite))
        for _ in range(6):
            await w.cycle(after=15)
        assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 1


class TestAClockThatIsAhead:
    """Of this machine, compared with the `Date` of responses."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock(wall=lambda: NOW, monotonic=lambda: 0.0)

    def test_is_set_right_by_a_response(self, clock: Clock) -> None:
        clock.compare(NOW - 3600)
        assert clock.now().steady == NOW - 3600

    def test_stands_still_while_responses_come_a_little_late(self, clock: Clock) -> None:
        clock.compare(NOW - 3600)
        clock.compare(NOW - 3602)
        assert clock.now().steady == NOW - 3600

    @pytest.mark.parametrize("odd", [NOW - 86400, NOW - 365 * 86400, 0])
    def test_one_odd_date_lasts_until_the_next_response(self, clock: Clock, odd: float) -> None:
        clock.compare(odd)
        clock.compare(NOW - 1)
        assert clock.now().steady == NOW

    def test_no_date_sets_it_ahead(self, clock: Clock) -> None:
        clock.compare(NOW + 3600)
        assert clock.now().steady == NOW


async def test_history_is_history_by_a_clock_that_is_behind_at_the_start() -> None:
    async with watching(["a"]) as w:
        w.ahead = -3600
        await w.reload(workflows=[{"name": "orders", "discover": {}}])
        w.orders.create("old", Script(steps("pay")), at=w.clock() - 60)
        await w.cycle()
        w.orders.create("new", Script(steps("pay")))
        for _ in range(2):
            await w.cycle(after=INTERVAL)
        assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 1


async def test_history_stays_history_when_the_clock_is_set_back(tmp_path: Path) -> None:
    async with discovering(more={"state": tmp_path / "state.db"}) as w:
        w.orders.create("old", Script(steps("pay")), at=w.clock() - 60)
        await w.cycle()
        w.ahead = -3600
        await w.cycle(after=INTERVAL)
        await w.restart()
        for _ in range(2):
            await w.cycle(after=INTERVAL)
        assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 0


async def test_what_comes_after_a_start_with_a_clock_that_was_ahead_is_news(tmp_path: Path) -> None:
    async with watching(["a"], state=tmp_path / "state.db") as w:
        w.ahead = 3600
        await w.restart(workflows=[{"name": "orders", "discover": {}}])
        w.ahead = 0
        await w.restart()
        await w.cycle()
        w.orders.create("new", Script(steps("pay")))
        for _ in range(2):
            await w.cycle(after=INTERVAL)
        assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 1
