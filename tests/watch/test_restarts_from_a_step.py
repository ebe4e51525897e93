"""Restarts from a step: the run keeps `queued` and `start`, loses its end, and ends again.

Each end counts once more, and so does what ran again; nothing else counts twice.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from simulator import Attempt, Error, Instance, Respond, Script, Sleep, Step, error, steps
from simulator.api_results import instance_detail, instance_row
from simulator.response import success
from tests.watching import Watching, watching

DECLINED = Script((*steps("fetch"), Step("charge", (Attempt(1.0, Error("CardError")),))))
CHARGED = Script(steps("fetch", "charge", "ship"))
CONFIGURED: dict[str, Any] = {"instances": ["a"]}
DISCOVERED: dict[str, Any] = {"discover": {}}
COUNTED_ONLY: dict[str, Any] = {"discover": {"statuses": ["paused"]}}
WATCHED = pytest.mark.parametrize(
    "watched", [CONFIGURED, DISCOVERED, COUNTED_ONLY], ids=["configured", "discovered", "counted"]
)
POLL = {"interval": "15s", "ended_interval": "15s"}


def counts(w: Watching) -> dict[str, float]:
    """Ended runs by status, finished steps and attempts by name."""
    found: Counter[str] = Counter()
    for family, label in (
        ("runs_finished_total", "status"),
        ("step_duration_seconds_count", "step"),
        ("step_attempt_duration_seconds_count", "step"),
        ("queue_duration_seconds_count", ""),
    ):
        for labels, value in w.samples(f"cloudflare_workflow_{family}").items():
            found[f"{family.split('_')[1]} {dict(labels).get(label, '')}".strip()] += int(value)
    return dict(+found)


ERRORED = {
    "finished errored": 1,
    "duration fetch": 1,
    "duration charge": 1,
    "attempt fetch": 1,
    "attempt charge": 1,
    "duration": 1,
}
RECOVERED = ERRORED | {
    "finished complete": 1,
    "duration charge": 2,
    "attempt charge": 2,
    "duration ship": 1,
    "attempt ship": 1,
}


async def errored(w: Watching) -> Instance:
    await w.cycle()
    instance = w.orders.create("a", DECLINED)
    await w.cycle(after=15)
    await w.cycle(after=15)
    assert counts(w) == ERRORED
    return instance


@WATCHED
async def test_every_end_and_what_ran_again_counts_once_more(watched: dict[str, Any]) -> None:
    async with watching(workflows=[{"name": "orders", **watched}], poll=POLL) as w:
        instance = await errored(w)
        instance.restart_from("charge", script=CHARGED, at=w.clock() + 14.5)
        await w.cycle(after=15)
        await w.cycle(after=0.1)
        if watched is not COUNTED_ONLY:
            assert w.status("a") == "running"
            assert not w.samples("cloudflare_workflow_instance_error_info")
        for _ in range(3):
            await w.cycle(after=15)
        assert counts(w) == RECOVERED
        if watched is CONFIGURED:
            assert w.status("a") == "complete"


@WATCHED
@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
async def test_while_the_exporter_is_down(
    watched: dict[str, Any], killed: bool, tmp_path: Path
) -> None:
    workflows = [{"name": "orders", **watched}]
    async with watching(workflows=workflows, poll=POLL, state=tmp_path / "state.db") as w:
        instance = await errored(w)
        instance.restart_from("charge", script=CHARGED)
        w.clock.advance(60)
        await w.restart(killed=killed)
        for _ in range(3):
            await w.cycle(after=15)
        assert counts(w) == RECOVERED
        await w.restart(killed=killed)
        for _ in range(3):
            await w.cycle(after=15)
        assert counts(w) == RECOVERED


@WATCHED
async def test_twice_in_a_row_with_reloads_in_between(watched: dict[str, Any]) -> None:
    workflows = [{"name": "orders", **watched}]
    async with watching(workflows=workflows, poll=POLL) as w:
        instance = await errored(w)
        for _ in range(2):
            instance.restart_from("charge", script=DECLINED)
            await w.cycle(after=15)
            await w.reload(poll={**POLL, "detail_refresh": "4m"})
            await w.cycle(after=15)
        assert counts(w) == ERRORED | {
            "finished errored": 3,
            "duration charge": 3,
            "attempt charge": 3,
        }


@WATCHED
async def test_of_two_ends_between_two_polls_the_later_counts(watched: dict[str, Any]) -> None:
    async with watching(workflows=[{"name": "orders", **watched}], poll=POLL) as w:
        instance = await errored(w)
        instance.restart_from("charge", script=DECLINED)
        instance.restart_from("charge", script=CHARGED, at=w.clock() + 5)
        for _ in range(3):
            await w.cycle(after=15)
        assert counts(w) == RECOVERED


@WATCHED
async def test_of_a_run_that_had_not_ended(watched: dict[str, Any]) -> None:
    """What had finished of the deleted steps stays counted; the run ends once."""
    async with watching(workflows=[{"name": "orders", **watched}], poll=POLL) as w:
        await w.cycle()
        slow = Script((*steps("fetch", "charge"), Step("ship", (Attempt(600.0),))))
        instance = w.orders.create("a", slow)
        await w.cycle(after=15)
        instance.restart_from("charge", script=CHARGED)
        for _ in range(3):
            await w.cycle(after=15)
        seen_before = {"duration charge": 1, "attempt charge": 1} if watched is COUNTED_ONLY else {}
        assert (
            counts(w)
            == {
                "finished complete": 1,
                "duration": 1,
                "duration fetch": 1,
                "attempt fetch": 1,
                "duration charge": 2,
                "attempt charge": 2,
                "duration ship": 1,
                "attempt ship": 1,
            }
            | seen_before
        )


@WATCHED
async def test_an_end_with_fewer_steps_than_the_run_had_counts_once(
    watched: dict[str, Any],
) -> None:
    async with watching(workflows=[{"name": "orders", **watched}], poll=POLL) as w:
        await w.cycle()
        instance = w.orders.create("a", Script((*steps("fetch", "charge"), Sleep("nap", 600))))
        await w.cycle(after=15)
        instance.restart_from("fetch", script=Script(steps("fetch")))
        await w.cycle(after=15)
        assert counts(w)["finished complete"] == 1


@WATCHED
async def test_terminated_before_a_step_ran_again_counts_as_an_end(watched: dict[str, Any]) -> None:
    """It has as many steps as before: in place of the one that was deleted a termination."""
    async with watching(workflows=[{"name": "orders", **watched}], poll=POLL) as w:
        instance = await errored(w)
        instance.restart_from("charge", queued=60)
        instance.terminate(w.clock() + 5)
        await w.cycle(after=15)
        assert counts(w) == ERRORED | {"finished terminated": 1}


async def test_an_error_of_a_configured_one_shows_as_soon_as_in_its_row() -> None:
    async with watching(workflows=[{"name": "orders", **CONFIGURED, **DISCOVERED}]) as w:
        await w.cycle()
        instance = w.orders.create("a", CHARGED)
        await w.cycle(after=15)
        assert w.status("a") == "complete"
        instance.restart_from("charge", script=DECLINED)
        await w.cycle(after=15)
        assert w.status("a") == "errored"


@WATCHED
async def test_a_stale_response_of_the_end_before_counts_nothing_twice(
    watched: dict[str, Any],
) -> None:
    async with watching(workflows=[{"name": "orders", **watched}], poll=POLL) as w:
        instance = await errored(w)
        now = w.simulator.world.settle()
        before = [success(instance_detail(instance, now, simple=s)).body for s in (True, False)]
        instance.restart_from("charge", script=CHARGED)
        for kind, body in zip(("simple", "detail"), before, strict=True):
            w.simulator.faults.add(Respond(body=body), kind=kind, times=1)
        for _ in range(4):
            await w.cycle(after=15)
        assert counts(w) == RECOVERED


async def test_a_stale_response_of_an_end_that_had_expired_counts_nothing_twice() -> None:
    poll = POLL | {"forget_after": "1m"}
    async with watching(workflows=[{"name": "orders", **DISCOVERED}], poll=poll) as w:
        await w.cycle()
        instance = w.orders.create("a", CHARGED)
        for _ in range(12):
            await w.cycle(after=15)
        assert not w.watched()
        before = success(instance_detail(instance, w.simulator.world.settle()))
        instance.restart_from("charge")
        w.simulator.faults.add(Respond(body=before.body), kind="detail", times=1)
        for _ in range(3):
            await w.cycle(after=15)
        assert counts(w)["finished complete"] == 2


async def test_a_stale_row_after_the_configuration_named_it_counts_nothing_twice() -> None:
    async with watching(["a"], poll=POLL) as w:
        instance = await errored(w)
        before = instance_row(instance, w.simulator.world.settle())
        instance.restart_from("charge", script=Script((Sleep("nap", 600),)))
        await w.cycle(after=15)
        instance.patch_row = lambda _: before
        await w.reload(workflows=[{"name": "orders", **DISCOVERED}])
        await w.cycle(after=15)
        assert w.status("a") == "waiting"
        instance.patch_row = None
        instance.terminate()
        await w.cycle(after=15)
        assert counts(w)["finished errored"] == counts(w)["finished terminated"] == 1


async def test_ended_again_when_the_exporter_stops_after_a_stale_response(tmp_path: Path) -> None:
    workflows = [{"name": "orders", **DISCOVERED}]
    async with watching(workflows=workflows, poll=POLL, state=tmp_path / "state.db") as w:
        instance = await errored(w)
        before = success(instance_detail(instance, w.simulator.world.settle()))
        instance.restart_from("charge", script=DECLINED)
        w.simulator.faults.add(Respond(body=before.body), kind="detail", times=1)
        await w.cycle(after=15)
        await w.restart()
        await w.cycle(after=15)
        assert counts(w)["finished errored"] == 2


@WATCHED
async def test_no_end_counts_twice_whose_steps_come_without_a_start(
    watched: dict[str, Any],
) -> None:
    async with watching(workflows=[{"name": "orders", **watched}], poll=POLL) as w:
        await w.cycle()
        instance = w.orders.create("a", CHARGED)
        instance.patch = lambda result: {**result, "start": None}
        await w.cycle(after=15)
        assert counts(w)["finished complete"] == 1


async def test_one_that_gets_series_later_shows_the_steps_that_run_then() -> None:
    workflows = [{"name": "orders", "discover": {"max_instances": 1}}]
    async with watching(workflows=workflows, poll=POLL) as w:
        await w.cycle()
        older = w.orders.create("older", Script((Sleep("nap", 600),)))
        instance = w.orders.create("a", CHARGED)
        await w.cycle(after=15)
        instance.restart_from("charge", script=Script((*steps("fetch", "charge"), Sleep("nap"))))
        await w.cycle(after=15)
        assert w.shown() == {"older"}
        older.terminate()
        await w.cycle(after=15)
        await w.cycle(after=15)
        assert w.shown() == {"a"}
        assert (
            w.value(
                "cloudflare_workflow_instance_current_step_attempts",
                instance_id="a",
                step="nap",
                step_type="sleep",
            )
            == 0
        )


@pytest.mark.parametrize("until", ["rollingBack", "archived"])
async def test_of_a_run_that_had_moved_on_from_its_end(until: str) -> None:
    async with watching(workflows=[{"name": "orders", **DISCOVERED}], poll=POLL) as w:
        instance = await errored(w)
        instance.force_status(until)
        await w.cycle(after=15)
        assert w.status("a") == until
        instance.restart_from("charge", queued=20, script=CHARGED)
        for _ in range(4):
            await w.cycle(after=15)
        assert counts(w) == RECOVERED


async def test_one_that_waits_in_the_queue_shows_as_its_row_does() -> None:
    """No time in its detail response is later than what is known; its row is."""
    async with watching(workflows=[{"name": "orders", **DISCOVERED}], poll=POLL) as w:
        instance = await errored(w)
        instance.restart_from("charge", queued=60, script=CHARGED)
        await w.cycle(after=15)
        assert w.status("a") == "queued"
        assert counts(w) == ERRORED
        for _ in range(6):
            await w.cycle(after=15)
        assert counts(w) == RECOVERED


async def test_a_configured_one_that_waits_in_the_queue_shows_once_its_step_begins() -> None:
    async with watching(["a"], poll=POLL) as w:
        instance = await errored(w)
        instance.restart_from("charge", queued=60, script=CHARGED)
        await w.cycle(after=15)
        assert w.status("a") == "errored"
        await w.cycle(after=46)
        assert w.status("a") == "running"
        for _ in range(3):
            await w.cycle(after=15)
        assert counts(w) == RECOVERED


@WATCHED
async def test_requests_that_fail_meanwhile_lose_nothing(watched: dict[str, Any]) -> None:
    async with watching(workflows=[{"name": "orders", **watched}], poll=POLL) as w:
        instance = await errored(w)
        instance.restart_from("charge", script=CHARGED)
        w.simulator.faults.add(error(500), times=6)
        for _ in range(12):
            await w.cycle(after=15)
        assert counts(w) == RECOVERED
