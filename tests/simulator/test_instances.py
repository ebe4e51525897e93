"""What an instance shows in the course of its life."""

from datetime import datetime
from typing import Any

import httpx
import pytest

from simulator import (
    LOCAL_ENGINE,
    Attempt,
    Config,
    Error,
    Instance,
    ManualClock,
    Script,
    Simulator,
    Sleep,
    Step,
    Style,
    Wait,
    Workflow,
    World,
    parallel,
    retried,
    steps,
)
from simulator.api_results import instance_detail, instance_row


def see(instance: Instance, **how: bool) -> dict[str, Any]:
    """The instance as the API shows it now."""
    result: dict[str, Any] = instance_detail(instance, instance.workflow.world.settle(), **how)
    return result


def seconds(instance: Instance, time: str | None) -> float | None:
    """A time of an answer, in seconds since the instance was created."""
    if time is None:
        return None
    queued = datetime.fromisoformat(see(instance)["queued"])
    return (datetime.fromisoformat(time) - queued).total_seconds()


def statuses(instance: Instance, clock: ManualClock, *gaps: float) -> list[str]:
    """The status after each of these waits."""
    seen = []
    for gap in gaps:
        clock.advance(gap)
        seen.append(see(instance)["status"])
    return seen


class TestAStep:
    def test_runs_and_succeeds(self, orders: Workflow, clock: ManualClock) -> None:
        instance = orders.create("a", Script(steps("charge", duration=2)))
        clock.advance(1)
        (step,) = see(instance)["steps"]
        assert (step["name"], step["end"], step["success"]) == ("charge-1", None, None)
        assert "output" not in step
        assert step["attempts"][0] == {
            "start": step["start"],
            "end": None,
            "success": None,
            "error": None,
        }
        clock.advance(1)
        (step,) = see(instance)["steps"]
        assert (seconds(instance, step["end"]), step["success"]) == (2, True)
        assert step["output"] == "ok"

    def test_backs_off_between_two_attempts(self, orders: Workflow, clock: ManualClock) -> None:
        step = retried("charge", 1, duration=2, backoff=10, error=Error("TypeError", "no"))
        instance = orders.create("a", Script((step,)))
        clock.advance(5)
        (shown,) = see(instance)["steps"]
        assert shown["end"] is None
        (attempt,) = shown["attempts"]
        assert attempt["error"] == {"name": "TypeError", "message": "no"}
        assert attempt["success"] is False
        clock.advance(9)
        (shown,) = see(instance)["steps"]
        assert [seconds(instance, a["start"]) for a in shown["attempts"]] == [0, 12]
        assert see(instance)["status"] == "complete"

    @pytest.mark.parametrize(
        ("name", "error"),
        [
            ("TypeError", {"name": "TypeError", "message": "no"}),
            ("CardError", {"name": "Error", "message": "CardError: no"}),
            ("WorkflowTimeoutError", {"name": "Error", "message": "WorkflowTimeoutError: no"}),
        ],
    )
    def test_ends_the_run_when_its_attempts_are_exhausted(
        self, orders: Workflow, clock: ManualClock, name: str, error: dict[str, str]
    ) -> None:
        failed = retried("charge", 2, succeeds=False, error=Error(name, "no"))
        instance = orders.create("a", Script((failed, *steps("never"))))
        clock.advance(10)
        shown = see(instance)
        assert (shown["status"], shown["success"], shown["step_count"]) == ("errored", False, 1)
        assert "rollback" not in shown
        assert shown["error"] == error
        assert seconds(instance, shown["end"]) == 3

    def test_may_fail_without_ending_the_run(self, orders: Workflow, clock: ManualClock) -> None:
        failed = retried("optional", 1, succeeds=False, caught=True)
        instance = orders.create("a", Script((failed, *steps("after"))))
        clock.advance(10)
        assert see(instance)["status"] == "complete"
        assert [s["success"] for s in see(instance)["steps"]] == [False, True]

    def test_of_a_name_that_was_used_gets_the_next_counter(
        self, orders: Workflow, clock: ManualClock
    ) -> None:
        instance = orders.create("a", Script((*steps("a", "b", "a"), Sleep("a", 1))))
        clock.advance(10)
        assert [s["name"] for s in see(instance)["steps"]] == ["a-1", "b-1", "a-2", "a-1"]

    def test_a_sleep_of_another_duration_has_a_counter_of_its_own(
        self, orders: Workflow, clock: ManualClock
    ) -> None:
        instance = orders.create("a", Script((Sleep("nap", 1), Sleep("nap", 2), Sleep("nap", 1))))
        clock.advance(2.5)
        instance.restart_from("nap", 2, "sleep")
        clock.advance(10)
        shown = see(instance)["steps"]
        assert [(s["name"], seconds(instance, s["start"])) for s in shown] == [
            ("nap-1", 0),
            ("nap-1", 2.5),
            ("nap-2", 4.5),
        ]

    def test_runs_beside_others_in_a_group(self, orders: Workflow, clock: ManualClock) -> None:
        group = parallel((Sleep("nap", 1), *steps("par")), *steps("par", duration=3))
        instance = orders.create("a", Script((group, *steps("after"))))
        clock.advance(1.5)
        shown = see(instance)
        assert [(s["name"], s["end"] is None) for s in shown["steps"]] == [
            ("nap-1", False),
            ("par-1", True),
            ("par-2", True),
        ]
        assert [seconds(instance, s["start"]) for s in shown["steps"]] == [0, 0, 1]
        clock.advance(2)
        assert seconds(instance, see(instance)["steps"][-1]["start"]) == 3

    @pytest.mark.parametrize(
        ("name", "slow_ends"), [("Error", 9.5), ("WorkflowFatalError", None)], ids=["any", "fatal"]
    )
    def test_of_a_group_that_fails_leaves_the_others_running_unless_it_is_fatal(
        self, orders: Workflow, clock: ManualClock, name: str, slow_ends: float | None
    ) -> None:
        failing = retried("fails", 1, succeeds=False, duration=1, error=Error(name))
        group = parallel(
            failing, (*steps("quick", duration=0.5), *steps("slow", "never", duration=9))
        )
        instance = orders.create("a", Script((group,)))
        clock.advance(5)
        before = see(instance)
        assert (before["status"], seconds(instance, before["end"])) == ("errored", 1)
        assert before["steps"][2]["end"] is None
        clock.advance(15)
        shown = see(instance)
        assert (shown["status"], seconds(instance, shown["end"])) == ("errored", 1)
        assert [(s["name"], seconds(instance, s["end"])) for s in shown["steps"]] == [
            ("fails-1", 1),
            ("quick-1", 0.5),
            ("slow-1", slow_ends),
        ]

    def test_shows_its_configuration(self, orders: Workflow, clock: ManualClock) -> None:
        config = Config(3, "[dynamic]", None, "30 seconds", sensitive="output")
        instance = orders.create("a", Script((Step("charge", config=config),)))
        clock.advance(1)
        (step,) = see(instance)["steps"]
        assert step["config"] == {
            "retries": {"limit": 3, "delay": "[dynamic]"},
            "timeout": "30 seconds",
            "sensitive": "output",
        }
        assert step["output"] == "[REDACTED]"

    def test_that_never_ends_stays_open(self, orders: Workflow, clock: ManualClock) -> None:
        instance = orders.create("a", Script((Step("stuck", (Attempt(None),)),)))
        clock.advance(1e9)
        assert see(instance)["status"] == "running"
        backing_off = Step("stalled", (Attempt(1, Error()), Attempt()), backoff=None)
        instance = orders.create("b", Script((backing_off,)))
        clock.advance(1e9)
        assert see(instance)["steps"][0]["end"] is None


class TestSleepsAndWaits:
    def test_a_sleep_shows_its_planned_end(self, orders: Workflow, clock: ManualClock) -> None:
        instance = orders.create("a", Script((Sleep("nap", 30),)))
        clock.advance(1)
        shown = see(instance)
        (sleep,) = shown["steps"]
        assert (shown["status"], sleep["finished"]) == ("waiting", False)
        assert (seconds(instance, sleep["end"]), sleep["error"]) == (30, None)

    def test_an_event_ends_a_wait_of_its_type(self, orders: Workflow, clock: ManualClock) -> None:
        instance = orders.create("a", Script((Wait("approval", "approve"),)))
        clock.advance(5)
        instance.send_event("other")
        assert see(instance)["status"] == "waiting"
        clock.advance(1)
        instance.send_event("approve", {"by": "alice"})
        shown = see(instance)
        assert (shown["status"], seconds(instance, shown["end"])) == ("complete", 6)
        assert shown["steps"][0]["event_type"] == "approve"
        assert '"by": "alice"' in shown["steps"][0]["output"]

    def test_an_event_that_comes_in_a_pause_counts_from_the_resume(
        self, orders: Workflow, clock: ManualClock
    ) -> None:
        instance = orders.create("a", Script((Wait("approval", timeout=60),)))
        clock.advance(1)
        instance.pause()
        clock.advance(4)
        instance.send_event()
        assert see(instance)["steps"][0]["finished"] is False
        clock.advance(60)
        instance.resume()
        shown = see(instance)
        assert (shown["status"], seconds(instance, shown["end"])) == ("complete", 65)

    def test_an_event_too_late_is_for_the_next_wait(
        self, orders: Workflow, clock: ManualClock
    ) -> None:
        waits = (Wait("first", timeout=5, caught=True), Sleep("nap", 5), Wait("second"))
        instance = orders.create("a", Script(waits))
        clock.advance(6)
        instance.send_event()
        clock.advance(4)
        first, _, second = see(instance)["steps"]
        assert (first["error"] is None, second["finished"]) == (False, True)

    def test_a_wait_that_times_out_fails_the_run(
        self, orders: Workflow, clock: ManualClock
    ) -> None:
        instance = orders.create("a", Script((Wait("approval", timeout=60),)))
        assert statuses(instance, clock, 59, 1) == ["waiting", "errored"]
        (wait,) = see(instance)["steps"]
        assert (wait["finished"], wait["error"]["name"]) == (True, "WorkflowTimeoutError")

    @pytest.mark.parametrize(
        ("piece", "error"),
        [
            (Wait("approval", timeout=1), {"name": "WorkflowTimeoutError", "message": ""}),
            (
                Step("charge", (Attempt(1, Error("CardError", "no")),)),
                {"name": "Error", "message": "CardError: no"},
            ),
        ],
        ids=["wait", "step"],
    )
    def test_how_the_local_engine_writes_an_error(
        self, clock: ManualClock, piece: Step | Wait, error: dict[str, str]
    ) -> None:
        local = World(clock, style=LOCAL_ENGINE).account("acc").workflow("orders")
        instance = local.create("a", Script((piece,)))
        clock.advance(2)
        (step,) = see(instance)["steps"]
        assert step.get("attempts", [step])[-1]["error"] == error


class TestWhatIsDoneToARun:
    def test_queued_then_running_then_complete(self, orders: Workflow, clock: ManualClock) -> None:
        instance = orders.create("a", Script(steps("a", duration=3), queued=2, output=7))
        assert statuses(instance, clock, 1.999, 0.001, 3) == ["queued", "running", "complete"]
        shown = see(instance)
        assert (seconds(instance, shown["start"]), seconds(instance, shown["end"])) == (2, 5)
        assert (shown["output"], shown["success"]) == (7, True)

    def test_a_pause_waits_for_the_step_to_end(self, orders: Workflow, clock: ManualClock) -> None:
        instance = orders.create("a", Script(steps("a", "b", duration=10)))
        clock.advance(4)
        instance.pause()
        assert statuses(instance, clock, 0, 6, 100) == ["waitingForPause", "paused", "paused"]
        assert see(instance)["step_count"] == 1
        instance.resume()
        assert statuses(instance, clock, 0, 10) == ["running", "complete"]

    @pytest.mark.parametrize(
        "piece",
        [
            Sleep("nap", 10),
            Wait("approval", timeout=10, caught=True),
            retried("charge", 1, duration=0, backoff=10),
        ],
        ids=lambda piece: piece.name,
    )
    def test_a_pause_stops_sleeps_timeouts_and_back_offs_at_once(
        self, orders: Workflow, clock: ManualClock, piece: Step | Sleep | Wait
    ) -> None:
        instance = orders.create("a", Script((piece,)))
        clock.advance(4)
        instance.pause()
        assert statuses(instance, clock, 0, 60) == ["paused", "paused"]
        (step,) = see(instance)["steps"]
        assert not step.get("finished", step.get("success"))
        instance.resume()
        seen = statuses(instance, clock, 5.999, 0.001)
        assert (seen[0] in ("waiting", "running"), seen[1]) == (True, "complete")
        assert seconds(instance, see(instance)["end"]) == 70

    def test_a_pause_in_the_queue_does_nothing(self, orders: Workflow, clock: ManualClock) -> None:
        instance = orders.create("a", Script(steps("a"), queued=5))
        instance.pause()
        assert statuses(instance, clock, 1, 5) == ["queued", "complete"]

    def test_a_pause_in_a_back_off_leaves_the_step_open(
        self, orders: Workflow, clock: ManualClock
    ) -> None:
        instance = orders.create("a", Script((retried("charge", 3, succeeds=False, backoff=10),)))
        instance.pause(clock() + 5)
        clock.advance(100)
        (step,) = see(instance)["steps"]
        assert (see(instance)["status"], step["end"], len(step["attempts"])) == ("paused", None, 1)

    def test_a_pause_after_the_end_stops_nothing_that_outlives_the_run(
        self, orders: Workflow, clock: ManualClock
    ) -> None:
        slow = retried("slow", 1, duration=0, backoff=9)
        instance = orders.create("a", Script((parallel(Step("a", (Attempt(1, Error()),)), slow),)))
        instance.pause(clock() + 2)
        clock.advance(10)
        shown = see(instance)
        assert (shown["status"], seconds(instance, shown["steps"][1]["end"])) == ("errored", 9)

    def test_a_pause_that_waits_for_a_step_stops_a_sleep_beside_it_only_then(
        self, orders: Workflow, clock: ManualClock
    ) -> None:
        instance = orders.create(
            "a", Script((parallel(Sleep("nap", 10), *steps("a", duration=6)),))
        )
        clock.advance(4)
        instance.pause()
        assert statuses(instance, clock, 0, 2, 60) == ["waitingForPause", "paused", "paused"]
        instance.resume()
        assert statuses(instance, clock, 3.999, 0.001) == ["waiting", "complete"]

    def test_a_restart_ends_a_sleep_beside_the_step_and_begins_a_timeout_again(
        self, orders: Workflow, clock: ManualClock
    ) -> None:
        beside = (Sleep("nap", 60), Wait("approval", timeout=60, caught=True))
        instance = orders.create("a", Script((parallel(*beside, *steps("a", "b", duration=9)),)))
        clock.advance(5)
        instance.restart_from("b")
        clock.advance(100)
        shown = {s["name"]: seconds(instance, s["end"]) for s in see(instance)["steps"]}
        assert shown == {"nap-1": 5, "approval-1": 65, "a-1": 14, "b-1": 14}

    def test_what_is_terminated_stays_as_it_was(self, orders: Workflow, clock: ManualClock) -> None:
        instance = orders.create("a", Script((*steps("a"), Sleep("nap", 60))))
        clock.advance(5)
        instance.terminate(source="api")
        clock.advance(1000)
        shown = see(instance)
        assert (shown["status"], shown["success"]) == ("terminated", False)
        assert shown["steps"][1]["finished"] is False
        assert shown["steps"][2] == {"type": "termination", "trigger": {"source": "api"}}
        assert shown["step_count"] == 3

    def test_a_failed_run_may_roll_back(self, orders: Workflow, clock: ManualClock) -> None:
        rollback = (Step("charge", (Attempt(5),)),)
        script = Script(steps("charge"), throws=Error(), rollback=rollback)
        instance = orders.create("a", script)
        assert statuses(instance, clock, 0.5, 1, 5) == ["running", "rollingBack", "errored"]
        shown = see(instance)
        assert shown["rollback"] == {"outcome": "complete", "error": None}
        assert [(s["type"], s["name"]) for s in shown["steps"]] == [
            ("step", "charge-1"),
            ("rollback", "charge-1"),
        ]

    def test_the_local_engine_shows_no_rollback_until_it_is_over(self, clock: ManualClock) -> None:
        local = World(clock, style=LOCAL_ENGINE).account("acc").workflow("orders")
        rollback = (Step("charge", (Attempt(5),)),)
        instance = local.create("a", Script(steps("charge"), throws=Error(), rollback=rollback))
        assert statuses(instance, clock, 0.5, 1, 5) == ["running", "running", "errored"]
        shown = see(instance)
        assert (shown["step_count"], [s["name"] for s in shown["steps"]]) == (1, ["charge-1"])
        assert seconds(instance, shown["end"]) == 6

    def test_a_terminated_run_may_roll_back_and_fail_to(
        self, orders: Workflow, clock: ManualClock
    ) -> None:
        rollback = (retried("undo", 1, succeeds=False, error=Error("Error", "stuck")),)
        instance = orders.create("a", Script(steps("a", duration=9), rollback=rollback))
        clock.advance(1)
        instance.terminate(rollback=True)
        assert statuses(instance, clock, 0, 1) == ["rollingBack", "terminated"]
        assert see(instance)["rollback"] == {
            "outcome": "failed",
            "error": {"name": "Error", "message": "stuck"},
        }

    def test_a_restart_is_a_new_run_of_the_same_instance(
        self, orders: Workflow, clock: ManualClock
    ) -> None:
        instance = orders.create("a", Script(steps("a"), queued=1))
        clock.advance(10)
        created = instance_row(instance, orders.world.settle())["created_on"]
        before = see(instance)
        instance.restart()
        shown = see(instance)
        assert (shown["status"], shown["steps"], shown["start"]) == ("queued", [], None)
        assert shown["queued"] > before["end"]
        row = instance_row(instance, orders.world.settle())
        assert (row["created_on"], row["modified_on"]) == (created, shown["queued"])

    def test_what_is_planned_for_later_happens_then(
        self, orders: Workflow, clock: ManualClock
    ) -> None:
        instance = orders.create("a", Script((Sleep("nap", 1000),)))
        instance.pause(clock() + 10)
        instance.resume(clock() + 20)
        instance.terminate(clock() + 30)
        instance.restart(clock() + 40)
        seen = statuses(instance, clock, 9, 10, 10, 10, 10)
        assert seen == ["waiting", "paused", "waiting", "terminated", "waiting"]

    def test_any_status_can_be_shown(self, orders: Workflow, clock: ManualClock) -> None:
        instance = orders.create("a", Script((Sleep("nap", 1000),)))
        instance.force_status("thawing", clock() + 60)
        instance.force_status("hibernating")
        assert see(instance)["status"] == "hibernating"
        assert [i.id for i in orders.by_status["hibernating"]] == ["a"]
        clock.advance(60)
        assert see(instance)["status"] == "thawing"
        instance.force_status(None)
        assert see(instance)["status"] == "waiting"


class TestAnswersOutOfTheOrdinary:
    async def test_replace_the_result(self, orders: Workflow, client: httpx.AsyncClient) -> None:
        instance = orders.create("a")
        instance.result = {"status": "running"}
        assert (await client.get("/orders/instances/a")).json()["result"] == {"status": "running"}

    def test_patch_the_result_or_the_row(self, orders: Workflow) -> None:
        instance = orders.create("a")
        instance.patch = lambda result: result | {"novelty": 1}
        instance.patch_row = lambda row: row.clear()
        assert see(instance)["novelty"] == 1
        assert instance_row(instance, orders.world.settle()) == {}

    def test_come_in_the_style_that_was_asked_for(self, clock: ManualClock) -> None:
        style = Style(running_attempts=False, planned_ends=False, modified_on="step")
        workflow = World(clock, style=style).account("a").workflow("w")
        instance = workflow.create("a", Script((*steps("a", duration=2), Sleep("nap", 9))))
        clock.advance(1)
        assert see(instance)["steps"][0]["attempts"] == []
        clock.advance(2)
        assert see(instance)["steps"][1]["end"] is None
        row = instance_row(instance, workflow.world.settle())
        assert seconds(instance, row["modified_on"]) == 2


class TestTheEndpoint:
    async def test_a_simple_answer_counts_the_steps_and_omits_them(
        self, orders: Workflow, clock: ManualClock, client: httpx.AsyncClient
    ) -> None:
        orders.create("a", Script(steps("a", "b")))
        clock.advance(5)
        answer = (await client.get("/orders/instances/a?simple=true")).json()["result"]
        assert answer["step_count"] == 2
        assert "steps" not in answer

    async def test_the_order_of_steps_can_be_turned(
        self, orders: Workflow, clock: ManualClock, client: httpx.AsyncClient
    ) -> None:
        orders.create("a", Script(steps("a", "b")))
        clock.advance(5)
        answer = (await client.get("/orders/instances/a?simple=false&order=desc")).json()
        assert [s["name"] for s in answer["result"]["steps"]] == ["b-1", "a-1"]

    @pytest.mark.parametrize("query", ["simple=maybe", "order=sideways"])
    async def test_wrong_parameters_are_refused(
        self, orders: Workflow, client: httpx.AsyncClient, query: str
    ) -> None:
        orders.create("a")
        response = await client.get(f"/orders/instances/a?{query}")
        assert (response.status_code, response.json()["errors"][0]["code"]) == (400, 10001)

    async def test_odd_characters_in_an_id_are_decoded(
        self, orders: Workflow, client: httpx.AsyncClient
    ) -> None:
        orders.create("a/b ü")
        assert (await client.get("/orders/instances/a%2Fb%20%C3%BC")).status_code == 200

    async def test_an_instance_that_is_deleted_expired_or_to_come_isnt_found(
        self, orders: Workflow, clock: ManualClock, client: httpx.AsyncClient
    ) -> None:
        async def found() -> list[bool]:
            answers = [await client.get(f"/orders/instances/{i}") for i in ("old", "gone", "new")]
            return [answer.status_code == 200 for answer in answers]

        orders.release(success_retention=60_000)
        orders.create("old")
        orders.create("gone").delete(clock() + 30)
        orders.create("new", at=clock() + 30)
        assert await found() == [True, True, False]
        clock.advance(30)
        assert await found() == [True, False, True]
        clock.advance(30)
        assert await found() == [False, False, True]
        assert [i.id for i in orders.order] == ["new"]

    def test_an_id_is_taken_until_its_instance_is_gone(
        self, simulator: Simulator, orders: Workflow
    ) -> None:
        instance = orders.create("a")
        with pytest.raises(ValueError, match="already exists"):
            orders.create("a")
        instance.delete()
        simulator.world.settle()
        assert orders.create("a") is not instance
