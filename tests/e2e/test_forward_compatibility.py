"""What the API didn't have yesterday is taken as it comes: shown under its own name, never fatal.

Against the simulator, since the local engine can't act these out.
"""

from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from simulator import (
    Attempt,
    Config,
    Error,
    Instance,
    Script,
    Sleep,
    Step,
    Wait,
    steps,
)
from tests.watching import Watching, watching

STATUS = "cloudflare_workflow_instance_status"
STEPS = "cloudflare_workflow_instance_steps"
INFO = "cloudflare_workflow_instance_info"
SUCCEEDED = {"instance_id": "a", "outcome": "success"}
Patch = Callable[[dict[str, Any]], dict[str, Any]]

WAITING = Script(pieces=(*steps("pay", duration=1), Wait("approval")))


async def poll(w: Watching, *, after: float = 15) -> None:
    """A round in which all goes well, and of which nothing is logged."""
    with capture_logs() as lines:
        await w.round(after=after)
    assert [line for line in lines if line["log_level"] != "debug"] == []
    assert w.value("cloudflare_workflow_up") == 1


def without(*keys: str) -> Patch:
    return lambda result: {k: v for k, v in result.items() if k not in keys}


def with_(**more: Any) -> Patch:
    return lambda result: {**result, **more}


def in_steps(**more: Any) -> Patch:
    """More fields in each step and each attempt, where there are any."""

    def patch(result: dict[str, Any]) -> dict[str, Any]:
        for step in result.get("steps", []):
            step.update(more)
            for attempt in step.get("attempts", []):
                attempt.update(more)
        return result

    return patch


class TestStatuses:
    async def test_an_unknown_one_is_shown_under_its_own_name(self) -> None:
        async with watching(["a"]) as w:
            a = w.orders.create("a", WAITING)
            await poll(w)
            a.force_status("hibernating")
            await poll(w)
            assert w.status("a") == "hibernating"
            assert w.value(STATUS, instance_id="a", status="waiting") == 0
            ones = [labels for labels, value in w.samples(STATUS).items() if value == 1]
            assert len(ones) == 1

    async def test_an_unknown_one_goes_away_with_the_next_status(self) -> None:
        async with watching(["a"]) as w:
            a = w.orders.create("a", WAITING)
            a.force_status("hibernating")
            await poll(w)
            a.force_status(None)
            await poll(w)
            assert w.status("a") == "waiting"
            assert w.value(STATUS, instance_id="a", status="hibernating") is None

    async def test_an_unknown_one_ends_no_run(self) -> None:
        async with watching(["a"]) as w:
            w.orders.create("a", WAITING).force_status("archived")
            await poll(w)
            assert sum(w.samples("cloudflare_workflow_runs_finished_total").values()) == 0
            labels = {"step": "approval", "step_type": "waitForEvent", "instance_id": "a"}
            assert w.value("cloudflare_workflow_instance_current_step_attempts", **labels) == 0

    @pytest.mark.parametrize(
        ("status", "after", "done"),
        [
            ("queued", 1, None),
            ("waiting", 10, None),
            ("paused", 10, Instance.pause),
            ("terminated", 10, Instance.terminate),
        ],
    )
    async def test_those_of_today_are_known(
        self, status: str, after: float, done: Callable[[Instance], None] | None
    ) -> None:
        async with watching(["a"]) as w:
            a = w.orders.create("a", Script(queued=5, pieces=(Wait("approval"),)))
            w.clock.advance(after)
            if done is not None:
                done(a)
            await poll(w, after=0)
            assert w.status("a") == status

    async def test_without_one_it_is_unknown(self) -> None:
        async with watching(["a"]) as w:
            w.orders.create("a", WAITING).patch = without("status")
            await poll(w)
            assert w.status("a") == "unknown"

    @pytest.mark.parametrize("bad", [None, "", 5, "x" * 200], ids=repr)
    @pytest.mark.parametrize("more", [{"instances": ["a", "b"]}, {"discover": {}}], ids=str)
    async def test_one_that_cannot_be_read_changes_nothing_known(
        self, bad: Any, more: dict[str, Any]
    ) -> None:
        failing = Script(steps("pay"), throws=Error("TypeError"))
        poll = {"ended_interval": "15s"}
        async with watching(workflows=[{"name": "orders", **more}], poll=poll) as w:
            await w.cycle(after=1)
            both = [w.orders.create("a", failing), w.orders.create("b", WAITING)]
            for _ in range(3):
                await w.cycle(after=15)
            for instance in both:
                instance.patch = with_(status=bad)
            for _ in range(3):
                await w.cycle(after=15)
                assert (w.status("a"), w.status("b")) == ("errored", "waiting")
            if "instances" in more:
                as_of = w.value("cloudflare_workflow_data_timestamp_seconds")
                assert as_of == w.clock() - 45, "no status could be read since"
            for instance in both:
                instance.patch = None
            await w.cycle(after=15)
            assert (w.status("a"), w.status("b")) == ("errored", "waiting")
            assert w.value("cloudflare_workflow_runs_finished_total", status="errored") == 1

    @pytest.mark.parametrize("bad", [None, ""])
    async def test_without_one_a_restart_from_a_step_is_no_second_end(self, bad: Any) -> None:
        async with watching(["a"], poll={"ended_interval": "15s"}) as w:
            a = w.orders.create("a", Script(steps("pay"), throws=Error("TypeError")))
            await w.round(after=15)
            a.patch = with_(status=bad)
            a.restart_from("pay", script=WAITING)
            await w.round(after=15)
            assert w.value("cloudflare_workflow_runs_finished_total", status="errored") == 1
            a.patch = None
            await w.round(after=15)
            assert w.status("a") == "waiting"
            assert w.value("cloudflare_workflow_runs_finished_total", status="errored") == 1


class TestSteps:
    async def test_an_unknown_type_is_shown_under_its_own_name_and_observed(self) -> None:
        async with watching(["a"]) as w:
            a = w.orders.create("a", WAITING)

            def patch(result: dict[str, Any]) -> dict[str, Any]:
                new = {
                    "type": "subworkflow",
                    "name": "child-1",
                    "start": "2026-01-01T00:00:00Z",
                    "end": "2026-01-01T00:00:03Z",
                    "success": True,
                    "child": {"id": "x"},
                }
                if "steps" in result:
                    result["steps"].append(new)
                return {**result, "step_count": result["step_count"] + 1}

            a.patch = patch
            await poll(w)
            shown = {"instance_id": "a", "step_type": "subworkflow"}
            assert w.value(STEPS, **shown, outcome="success") == 1
            assert w.value(STEPS, **shown, outcome="running") == 0
            observed = {"step": "child", "step_type": "subworkflow", "outcome": "success"}
            name = "cloudflare_workflow_step_duration_seconds"
            assert w.value(f"{name}_count", **observed) == 1
            assert w.value(f"{name}_sum", **observed) == 3

    async def test_one_without_a_type_or_name_is_no_current_step(self) -> None:
        async with watching(["a"]) as w:
            a = w.orders.create("a", WAITING)
            a.patch = lambda result: {**result, "steps": [{"start": None}, {}]}
            await poll(w)
            assert w.value(STEPS, instance_id="a", step_type="unknown", outcome="running") == 2
            assert w.samples("cloudflare_workflow_instance_current_step_attempts") == {}

    async def test_a_rollback_is_shown_while_it_runs_and_after_it(self) -> None:
        async with watching(["a"], poll={"ended_interval": "15s"}) as w:
            script = Script(
                pieces=(*steps("charge", duration=1),),
                throws=Error("TypeError", "no"),
                rollback=(Step("refund", (Attempt(30),)),),
            )
            w.orders.create("a", script)
            await poll(w, after=5)
            assert w.status("a") == "rollingBack"
            current = {"instance_id": "a", "step": "refund", "step_type": "rollback"}
            name = "cloudflare_workflow_instance_current_step_attempts"
            assert w.value(name, **current) == 1
            assert sum(w.samples("cloudflare_workflow_runs_finished_total").values()) == 0

            await poll(w, after=60)
            assert w.status("a") == "errored"
            assert w.value("cloudflare_workflow_runs_finished_total", status="errored") == 1
            observed = {"step": "refund", "step_type": "rollback", "outcome": "success"}
            seconds = w.value("cloudflare_workflow_step_duration_seconds_sum", **observed)
            assert seconds == 30

    async def test_a_termination_has_no_name_start_or_end(self) -> None:
        async with watching(["a"]) as w:
            a = w.orders.create("a", WAITING)
            w.clock.advance(5)
            a.terminate(source="cron")
            await poll(w)
            assert w.status("a") == "terminated"
            assert w.value(STEPS, instance_id="a", step_type="termination", outcome="running") == 1
            assert w.value("cloudflare_workflow_runs_finished_total", status="terminated") == 1
            durations = w.samples("cloudflare_workflow_step_duration_seconds_count")
            assert {dict(labels)["step"] for labels in durations} == {"pay"}

    async def test_the_planned_end_of_a_sleep_is_no_end(self) -> None:
        async with watching(["a"]) as w:
            w.orders.create("a", Script(pieces=(Sleep("nap", 3600),)))
            await poll(w)
            shown = {"instance_id": "a", "step_type": "sleep"}
            assert w.value(STEPS, **shown, outcome="running") == 1
            durations = w.samples("cloudflare_workflow_step_duration_seconds_count")
            assert set(durations.values()) == {0}


class TestFields:
    @pytest.mark.parametrize(
        "patch",
        [
            with_(priority=7, owner={"team": ["a"]}, tags=None),
            in_steps(cost=0.5, runtime={"cpu": [1, 2]}, sensitive="output"),
            with_(schedule={"cron": "* * * * *", "scheduledTime": 1}),
            with_(rollback={"outcome": "partly", "error": None, "steps": []}),
            with_(params=[1, {"a": None}]),
            with_(output={"nested": [1e300, True]}),
            in_steps(output=[None], config={"retries": {"delay": "[dynamic]"}}),
            in_steps(config=None),
        ],
        ids=[
            "in an instance",
            "in a step",
            "schedule",
            "rollback",
            "params",
            "output",
            "config",
            "no config",
        ],
    )
    async def test_those_that_are_not_read_may_hold_anything(self, patch: Patch) -> None:
        async with watching(["a"]) as w:
            w.orders.create("a", WAITING).patch = patch
            await poll(w)
            assert w.status("a") == "waiting"
            assert w.value("cloudflare_workflow_instance_attempts", **SUCCEEDED) == 1

    @pytest.mark.parametrize("delay", [1000, 1000.5, "1000", "1 second", "[dynamic]"])
    async def test_a_delay_is_a_number_or_a_text(self, delay: float | str) -> None:
        async with watching(["a"]) as w:
            step = Step("pay", (Attempt(1),), config=Config(delay=delay, timeout=delay))
            w.orders.create("a", Script(pieces=(step, Wait("approval"))))
            await poll(w)
            assert w.value("cloudflare_workflow_instance_attempts", **SUCCEEDED) == 1

    @pytest.mark.parametrize(
        "missing", ["success", "params", "output", "error", "start", "end", "step_count", "steps"]
    )
    @pytest.mark.parametrize("patched", [without, lambda key: with_(**{key: None})])
    async def test_each_may_be_missing_or_null(
        self, missing: str, patched: Callable[[str], Patch]
    ) -> None:
        async with watching(["a"]) as w:
            w.orders.create("a", WAITING).patch = patched(missing)
            await poll(w)
            assert w.status("a") == "waiting"

    async def test_a_run_without_success_is_finished_all_the_same(self) -> None:
        async with watching(["a"]) as w:
            w.orders.create("a", Script(steps("pay"))).patch = without("success")
            await poll(w)
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 1

    @pytest.mark.parametrize("patch", [without("versionId"), with_(versionId=None)])
    async def test_without_a_version_it_is_empty(self, patch: Patch) -> None:
        async with watching(["a"]) as w:
            w.orders.create("a", WAITING).patch = patch
            await poll(w)
            assert w.value(INFO, instance_id="a", version_id="", trigger="api") == 1

    @pytest.mark.parametrize(
        ("patch", "shown"),
        [
            (without("trigger"), "unknown"),
            (with_(trigger=None), "unknown"),
            (with_(trigger={}), "unknown"),
            (with_(trigger={"source": "queue", "queue": "q"}), "queue"),
            (with_(trigger={"source": "cron"}), "cron"),
        ],
        ids=["missing", "null", "empty", "unknown", "known"],
    )
    async def test_a_trigger_source_is_shown_as_it_is(self, patch: Patch, shown: str) -> None:
        async with watching(["a"]) as w:
            a = w.orders.create("a", WAITING)
            a.patch = patch
            await poll(w)
            assert w.value(INFO, instance_id="a", version_id=a.version, trigger=shown) == 1

    @pytest.mark.parametrize("count", ["2", 2.0, 2])
    async def test_a_count_is_a_number_however_it_is_written(self, count: object) -> None:
        async with watching(["a"]) as w:
            w.orders.create("a", WAITING).patch = with_(step_count=count)
            await poll(w)
            assert w.value("cloudflare_workflow_instance_step_count", instance_id="a") == 2

    @pytest.mark.parametrize("queued", ["2026-01-01T00:00:00Z", "2026-01-01T01:00:00.000+01:00"])
    async def test_a_time_may_have_an_offset_or_no_fraction(self, queued: str) -> None:
        async with watching(["a"]) as w:
            w.orders.create("a", WAITING).patch = with_(queued=queued)
            await poll(w)
            name = "cloudflare_workflow_instance_queued_timestamp_seconds"
            assert w.value(name, instance_id="a") == 1_767_225_600

    async def test_one_instance_that_cannot_be_read_hides_no_other(self) -> None:
        async with watching(["a", "b"]) as w:
            broken: Instance = w.orders.create("a", WAITING)
            broken.result = ["queued", "running"]
            w.orders.create("b", WAITING)
            await w.round(after=15)
            assert w.status("a") is None
            assert w.status("b") == "waiting"
            assert w.value("cloudflare_workflow_up") == 1
            failing = "cloudflare_workflow_failing_instances"
            assert w.value(failing, result="invalid_answer") == 1
