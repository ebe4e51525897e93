"""Steps that outlive their run: those that were open beside the one that failed it."""

from pathlib import Path
from typing import Any

import pytest

from simulator import Attempt, Error, Script, Sleep, Step, parallel, retried
from tests.watching import Watching, watching

FAILS = Step("fails", (Attempt(1, Error()),))
WATCHED = pytest.mark.parametrize(
    "watched",
    [{"instances": ["a"]}, {"discover": {}}, {"discover": {"statuses": ["paused"]}}],
    ids=["configured", "discovered", "counted"],
)


def finished(w: Watching, step: str) -> tuple[float | None, float | None]:
    """Its finished steps and attempts."""
    steps = w.samples("cloudflare_workflow_step_duration_seconds_count")
    attempts = w.samples("cloudflare_workflow_step_attempt_duration_seconds_count")
    named = ("step", step)
    return (
        sum(value for labels, value in steps.items() if named in labels),
        sum(value for labels, value in attempts.items() if named in labels),
    )


@WATCHED
async def test_are_counted_until_the_ended_interval_is_over(watched: dict[str, Any]) -> None:
    slow = retried("slow", 1, duration=100, backoff=200)
    script = Script((parallel(FAILS, slow, Sleep("nap", 500), Sleep("year", 4e7)),))
    async with watching(workflows=[{"name": "orders", **watched}]) as w:
        await w.cycle()
        w.orders.create("a", script)
        requests = await w.cycle(after=15)
        assert requests["detail"] == 1
        assert (finished(w, "fails"), finished(w, "slow")) == ((1, 1), (0, 0))
        assert (await w.cycle(after=300))["detail"] == 1
        assert (finished(w, "slow"), finished(w, "nap")) == ((0, 1), (0, 0))
        assert (await w.cycle(after=300))["detail"] == 1
        assert (finished(w, "slow"), finished(w, "nap")) == ((1, 2), (1, 0))
        for _ in range(5):
            assert "detail" not in await w.cycle(after=300)
        assert w.value("cloudflare_workflow_runs_finished_total", status="errored") == 1


@WATCHED
@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
async def test_are_counted_once_the_exporter_is_back(
    watched: dict[str, Any], killed: bool, tmp_path: Path
) -> None:
    script = Script((parallel(FAILS, Step("slow", (Attempt(100),))),))
    workflows = [{"name": "orders", **watched}]
    async with watching(workflows=workflows, state=tmp_path / "state.db") as w:
        await w.cycle()
        w.orders.create("a", script)
        await w.cycle(after=15)
        w.clock.advance(1800)
        await w.restart(killed=killed)
        await w.cycle(after=1)
        assert finished(w, "slow") == (1, 1)
        assert "detail" not in await w.cycle(after=1800)
        assert w.value("cloudflare_workflow_runs_finished_total", status="errored") == 1


@WATCHED
async def test_there_are_none_in_a_terminated_run(watched: dict[str, Any]) -> None:
    async with watching(workflows=[{"name": "orders", **watched}]) as w:
        await w.cycle()
        w.orders.create("a", Script((Step("slow", (Attempt(100),)),))).terminate(w.clock() + 10)
        assert (await w.cycle(after=15))["detail"] == 1
        for _ in range(5):
            assert "detail" not in await w.cycle(after=300)
        assert finished(w, "slow") == (0, 0)
