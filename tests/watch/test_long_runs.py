"""Long runs: after a large detail response, the next for mere progress waits; nothing else does."""

from typing import Any

import pytest

from simulator import (
    Attempt,
    Drop,
    Instance,
    Script,
    Sleep,
    Step,
    Wait,
    error,
)
from tests.watching import Watching, watching

INTERVAL = 15.0
# A step every 10 s with 512 KiB of output each.
LARGE = tuple(Step(f"step {n}", (Attempt(10),), output="x" * 512 * 1024) for n in range(9))
COUNT = "cloudflare_workflow_step_duration_seconds_count"
STEPS = "cloudflare_workflow_instance_step_count"


def long_run(w: Watching, *more: Any) -> Instance:
    return w.orders.create("a", Script((*LARGE[:2], *more)))


def finished(w: Watching) -> float:
    """Steps that were counted."""
    return sum(w.samples(COUNT).values())


class TestProgress:
    async def test_a_small_response_is_followed_by_another_at_once(self) -> None:
        async with watching(["a"]) as w:
            w.orders.create("a", Script(tuple(Step(f"s{n}", (Attempt(10),)) for n in range(99))))
            await w.round(after=1)
            for _ in range(5):
                assert await w.round(after=INTERVAL) == {"simple": 1, "detail": 1}

    async def test_after_a_large_one_the_next_waits_in_proportion(self) -> None:
        """256 KiB an interval: after 1 MiB, four intervals."""
        async with watching(["a"]) as w:
            long_run(w, *LARGE)
            assert await w.round(after=25) == {"detail": 1}
            for _ in range(4):
                assert await w.round(after=INTERVAL) == {"simple": 1}
            assert finished(w) == 2
            # As there is news, without a simple request before.
            assert await w.round(after=INTERVAL) == {"detail": 1}
            assert finished(w) == 10

    async def test_meanwhile_the_simple_response_is_shown(self) -> None:
        """Status and step count are fresh; so is the moment that a `stuck` alert goes by."""
        async with watching(["a"]) as w:
            long_run(w, Sleep("nap", 20), *LARGE[:3])
            await w.round(after=21)
            assert (w.status("a"), w.value(STEPS, instance_id="a")) == ("waiting", 3)
            assert await w.round(after=INTERVAL) == {"simple": 1}
            assert (w.status("a"), w.value(STEPS, instance_id="a")) == ("waiting", 3)
            assert await w.round(after=INTERVAL) == {"simple": 1}
            assert (w.status("a"), w.value(STEPS, instance_id="a")) == ("running", 5)
            changed = "cloudflare_workflow_instance_last_change_timestamp_seconds"
            assert w.value(changed, instance_id="a") == w.clock()
            assert finished(w) == 2

    async def test_a_refresh_waits_too(self) -> None:
        async with watching(["a"], poll={"detail_refresh": "30s"}) as w:
            long_run(w, Wait("approval"))
            await w.round(after=25)
            polls = [await w.round(after=INTERVAL) for _ in range(5)]
            assert polls == [{"simple": 1}] * 4 + [{"detail": 1}]

    async def test_of_discovered_instances_as_well(self) -> None:
        async with watching(workflows=[{"name": "orders", "discover": {}}]) as w:
            long_run(w, *LARGE)
            assert (await w.cycle(after=25))["detail"] == 1
            for _ in range(4):
                assert "detail" not in await w.cycle(after=INTERVAL)
            assert (await w.cycle(after=INTERVAL))["detail"] == 1


class TestWhatDoesNotWait:
    async def test_an_end(self) -> None:
        async with watching(["a"]) as w:
            long_run(w, *LARGE[:1])
            await w.round(after=25)
            assert await w.round(after=INTERVAL) == {"simple": 1, "detail": 1}
            assert (w.status("a"), finished(w)) == ("complete", 3)

    async def test_an_error(self) -> None:
        async with watching(["a"]) as w:
            long_run(w, *LARGE).force_status("errored", at=w.clock() + 30)
            await w.round(after=25)
            assert await w.round(after=INTERVAL) == {"simple": 1, "detail": 1}
            assert w.status("a") == "errored"

    async def test_a_pause(self) -> None:
        async with watching(["a"]) as w:
            long_run(w, Sleep("nap", 100)).pause(at=w.clock() + 30)
            await w.round(after=25)
            assert await w.round(after=INTERVAL) == {"simple": 1, "detail": 1}
            assert w.status("a") == "paused"

    async def test_a_restart(self) -> None:
        async with watching(["a"]) as w:
            a = long_run(w, *LARGE)
            await w.round(after=25)
            a.restart(script=Script((Wait("approval"),)))
            assert await w.round(after=INTERVAL) == {"simple": 1, "detail": 1}
            assert w.value(STEPS, instance_id="a") == 1


class TestFailures:
    async def test_what_is_too_long_is_not_fetched_all_the_time(self) -> None:
        """It fails all the same, until a whole response has come."""
        async with watching(["a"], socket=True, api={"max_body": "1MiB"}) as w:
            long_run(w, *LARGE)
            assert await w.round(after=35) == {"detail": 1}
            assert w.value("cloudflare_workflow_up") == 0
            for _ in range(4):
                assert await w.round(after=INTERVAL) == {}
                assert w.value("cloudflare_workflow_up") == 0
            assert await w.round(after=INTERVAL) == {"detail": 1}
            polls = "cloudflare_workflows_exporter_polls_total"
            assert w.value(polls, kind="detail", result="invalid_answer") == 2

    @pytest.mark.parametrize(("fault", "tries"), [(error(503), 1), (Drop(), 2)])
    async def test_a_failure_that_cost_little_is_tried_again_at_once(
        self, fault: Any, tries: int
    ) -> None:
        async with watching(["a"], socket=True) as w:
            long_run(w, Sleep("nap", 10), *LARGE).pause(at=w.clock() + 40)
            await w.round(after=25)
            w.simulator.faults.add(fault, kind="detail", times=tries)
            assert await w.round(after=INTERVAL) == {"simple": 1, "detail": tries}
            assert w.value("cloudflare_workflow_up") == 0
            assert await w.round(after=INTERVAL) == {"simple": 1, "detail": 1}
            assert w.value("cloudflare_workflow_up") == 1
