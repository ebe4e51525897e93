"""Cloudflare may respond from a replica that is behind: nothing known goes back, nothing that comes
later is lost, and nothing is counted twice."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from simulator import Error, Hang, Rewrite, Script, Wait, error, steps
from simulator.api_results import instance_detail
from simulator.response import Response
from tests.watching import Watching, watching

DISCOVERED = [{"name": "orders", "discover": {}}]


def response(w: Watching, instance_id: str) -> dict[str, Any]:
    """The detail response on an instance at this moment."""
    now = w.simulator.world.settle()
    instance = w.orders.get(instance_id, now)
    assert instance is not None
    detail: dict[str, Any] = instance_detail(instance, now)
    return detail


def with_result(result: object) -> Rewrite:
    def rewritten(reply: Response) -> Response:
        return Response(
            reply.status, json.dumps({**json.loads(reply.body), "result": result}).encode()
        )

    return Rewrite(rewritten)


def finished_steps(w: Watching) -> dict[str, float]:
    found = w.samples("cloudflare_workflow_step_duration_seconds_count")
    return {dict(labels)["step"]: count for labels, count in found.items() if count}


@pytest.mark.parametrize("restart", [False, True], ids=["", "and a restart"])
async def test_a_run_that_ended_by_a_row_does_not_continue(tmp_path: Path, restart: bool) -> None:
    async with watching(workflows=DISCOVERED, state=tmp_path / "state.db") as w:
        await w.cycle()
        three = steps("one", "two", "three", duration=10.0)
        w.orders.create("a", Script(three, throws=Error("TypeError")))
        await w.cycle(after=5)
        w.clock.advance(10)
        w.simulator.faults.add(with_result(response(w, "a")), kind="detail", times=1)
        await w.cycle(after=60)
        assert w.status("a") == "errored"
        if restart:
            await w.restart()
        for _ in range(10):
            await w.cycle(after=60)
        assert w.status("a") == "errored"
        assert finished_steps(w) == {"one": 1, "two": 1, "three": 1}


async def test_a_restarted_run_is_counted_though_the_response_is_of_the_one_before() -> None:
    async with watching(workflows=DISCOVERED) as w:
        await w.cycle()
        instance = w.orders.create("a", Script(steps("one")))
        await w.cycle(after=60)
        before = response(w, "a")
        instance.restart(w.clock() + 15)
        w.simulator.faults.add(with_result(before), kind="detail", times=1)
        await w.cycle(after=75)
        for _ in range(10):
            await w.cycle(after=60)
        assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 2
        assert finished_steps(w) == {"one": 2}


async def test_a_live_instance_is_polled_after_a_restart_though_no_row_moves(
    tmp_path: Path,
) -> None:
    async with watching(workflows=DISCOVERED, state=tmp_path / "state.db") as w:
        w.orders.create("a", Script((Wait("approval"),)))
        await w.cycle(after=15)
        await w.restart()
        requests = [await w.cycle(after=60) for _ in range(10)]
        assert any(made.get("detail") for made in requests)


class TestAwayForAWhile:
    """A live run that is in no list and isn't found, until long after it was expired."""

    async def test_what_was_counted_isnt_counted_again(self) -> None:
        async with watching(workflows=DISCOVERED, poll={"forget_after": "1m"}) as w:
            await w.cycle()
            w.ahead = -3600  # times are compared with Cloudflare's own
            w.orders.create("a", Script((*steps("one", "two"), Wait("approval"))))
            await w.cycle(after=15)
            await gone_for_a_while(w)
            assert finished_steps(w) == {"one": 1, "two": 1}

    async def test_what_ended_during_the_last_poll_isnt_either(self) -> None:
        async with watching(workflows=DISCOVERED, poll={"forget_after": "1m"}) as w:
            await w.cycle()
            w.orders.create("a", Script((*steps("one", "two"), Wait("approval"))))
            w.clock.advance(0.5)
            w.simulator.faults.add(Hang(), kind="detail", times=1)
            cycle = asyncio.create_task(w.cycle())
            while not w.simulator.requests.of(instance="a"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            w.clock.advance(8)
            w.simulator.faults.clear()
            await cycle
            assert finished_steps(w) == {"one": 1, "two": 1}
            await gone_for_a_while(w)
            assert finished_steps(w) == {"one": 1, "two": 1}

    async def test_what_ended_right_after_it_is_counted(self) -> None:
        async with watching(workflows=DISCOVERED, poll={"forget_after": "1m"}) as w:
            await w.cycle()
            w.orders.create("a", Script((*steps("one", "two"), Wait("approval"))))
            w.clock.advance(1.5)
            await w.cycle()
            assert finished_steps(w) == {"one": 1}
            await gone_for_a_while(w)
            assert finished_steps(w) == {"one": 1, "two": 1}


async def gone_for_a_while(w: Watching) -> None:
    w.simulator.faults.add(error(404, 10400), instance="a")
    w.simulator.faults.add(with_result([]), kind="list")
    for _ in range(20):
        await w.cycle(after=15)
    assert w.status("a") is None
    w.simulator.faults.clear()
    for _ in range(5):
        await w.cycle(after=15)
