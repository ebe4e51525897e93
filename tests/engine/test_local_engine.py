"""The real engine, run by us: it acts out its scenarios, and nothing of it is left behind."""

import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import httpx
import pytest

from demo import EngineError, LocalEngine
from tests.waiting import DEADLINE, wait_until


def seconds(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def step_names(result: dict[str, object]) -> list[object]:
    steps = result["steps"]
    assert isinstance(steps, list)
    return [step["name"] for step in steps]


@pytest.mark.engine
class TestScenarios:
    def test_ok_completes_in_three_steps_named_with_their_counter(
        self, engine: LocalEngine
    ) -> None:
        engine.create("orders", "engine-ok", "ok")
        result = engine.wait_for("orders", "engine-ok", "complete")
        assert step_names(result) == ["fetch-1", "transform-1", "store-1"]
        assert result["step_count"] == 3

    def test_a_parameter_reaches_the_scenario(self, engine: LocalEngine) -> None:
        engine.create("billing", "engine-many", "many", n=5)
        assert engine.wait_for("billing", "engine-many", "complete")["step_count"] == 5

    def test_retry_succeeds_at_its_third_attempt(self, engine: LocalEngine) -> None:
        engine.create("orders", "engine-retry", "retry", delay="10 milliseconds")
        result = engine.wait_for("orders", "engine-retry", "complete")
        attempts = result["steps"][1]["attempts"]
        assert [attempt["success"] for attempt in attempts] == [False, False, True]
        assert attempts[0]["error"]["name"] == "TypeError"

    def test_error_fails_at_its_first_attempt(self, engine: LocalEngine) -> None:
        engine.create("orders", "engine-error", "error")
        result = engine.wait_for("orders", "engine-error", "errored")
        assert [len(step["attempts"]) for step in result["steps"]] == [1, 1]

    def test_wait_continues_once_its_event_has_come(self, engine: LocalEngine) -> None:
        engine.create("orders", "engine-wait", "wait")
        waiting = engine.wait_for("orders", "engine-wait", lambda r: len(r["steps"]) == 2)
        assert waiting["steps"][1]["type"] == "waitForEvent"
        engine.act("orders", "engine-wait", "event")
        assert engine.wait_for("orders", "engine-wait", "complete")["steps"][1]["finished"]

    def test_a_sleeping_instance_pauses_and_resumes(self, engine: LocalEngine) -> None:
        engine.create("orders", "engine-sleep", "sleep")
        engine.act("orders", "engine-sleep", "pause")
        engine.wait_for("orders", "engine-sleep", "paused")
        engine.act("orders", "engine-sleep", "resume")
        engine.wait_for("orders", "engine-sleep", "running")

    def test_an_instance_pauses_only_when_its_step_has_ended(self, engine: LocalEngine) -> None:
        engine.create("orders", "engine-slow", "slowstep", ms=500_000)
        engine.act("orders", "engine-slow", "pause")
        engine.wait_for("orders", "engine-slow", "waitingForPause")
        engine.act("orders", "engine-slow", "terminate")
        engine.wait_for("orders", "engine-slow", "terminated")

    def test_a_restart_queues_the_instance_again(self, engine: LocalEngine) -> None:
        engine.create("orders", "engine-again", "ok")
        first = engine.wait_for("orders", "engine-again", "complete")
        engine.act("orders", "engine-again", "restart")
        engine.wait_for(
            "orders",
            "engine-again",
            lambda r: r["status"] == "complete" and r["queued"] > first["queued"],
        )

    @pytest.mark.parametrize(
        ("scenario", "status"),
        [
            ("exhaust", "errored"),
            ("customerror", "errored"),
            ("throw", "errored"),
            ("caught", "complete"),
            ("waitcaught", "complete"),
            ("steptimeout", "errored"),
            ("parallel", "complete"),
            ("rollback", "errored"),
            ("bigout", "complete"),
            ("longname", "complete"),
        ],
    )
    def test_every_other_scenario_ends_as_it_says(
        self, engine: LocalEngine, scenario: str, status: str
    ) -> None:
        engine.create("billing", f"engine-{scenario}", scenario)
        engine.wait_for("billing", f"engine-{scenario}", status)

    @pytest.mark.parametrize(("scenario", "setting"), [("sleep", "for"), ("retry", "delay")])
    def test_a_pause_stops_the_time_of_a_sleep_or_back_off(
        self, engine: LocalEngine, scenario: str, setting: str
    ) -> None:
        """The pause is as long as a sleep that begins in it."""
        for length in (2, 8, 32, 128):  # a busy machine pauses later than it is to
            name = f"engine-{scenario}-{length}"
            engine.create("orders", name, scenario, **{setting: f"{length} seconds"})
            engine.wait_for("orders", name, lambda r: len(r["steps"]) == 2)
            engine.act("orders", name, "pause")
            paused = engine.wait_for(
                "orders", name, lambda r: r["status"] in ("paused", "complete")
            )
            if paused["status"] == "complete" or len(paused["steps"][1].get("attempts", "1")) > 1:
                continue
            engine.create("billing", name, "sleep", **{"for": f"{length} seconds"})
            engine.wait_for("billing", name, "complete")
            engine.act("orders", name, "resume")
            step = engine.wait_for("orders", name, "complete")["steps"][1]
            begun, over = step["start"], step["end"]
            if scenario == "retry":
                begun, over = step["attempts"][0]["end"], step["attempts"][1]["start"]
            assert seconds(begun, over) >= 2 * length
            return
        pytest.fail("it was never paused in time")

    def test_what_is_open_beside_a_step_that_fails_outlives_the_run(
        self, engine: LocalEngine
    ) -> None:
        for seconds in (1, 4, 16, 64):  # on a busy machine the step that fails may take as long
            name = f"engine-outlived-{seconds}"
            engine.create("orders", name, "outlived", ms=1000 * seconds)
            ended = engine.wait_for("orders", name, "errored")
            slow = engine.wait_for("orders", name, lambda r: r["steps"][0]["end"])["steps"][0]
            if slow["end"] > ended["end"]:
                assert slow["success"]
                return
        pytest.fail("it never outlived the run")

    def test_stalled_waits_an_hour_after_its_first_failure(self, engine: LocalEngine) -> None:
        engine.create("billing", "engine-stalled", "stalled")
        result = engine.wait_for(
            "billing", "engine-stalled", lambda r: [len(s["attempts"]) for s in r["steps"]] == [1]
        )
        assert result["status"] == "running"
        assert result["steps"][0]["end"] is None


@pytest.mark.engine
class TestRefusals:
    def test_an_id_can_be_taken_once(self, engine: LocalEngine) -> None:
        engine.create("orders", "engine-twice", "ok")
        with pytest.raises(EngineError, match="already"):
            engine.create("orders", "engine-twice", "ok")

    def test_an_unknown_instance_cannot_be_steered_or_read(self, engine: LocalEngine) -> None:
        with pytest.raises(EngineError, match="not_found"):
            engine.act("orders", "engine-nobody", "pause")
        with pytest.raises(EngineError, match="404"):
            engine.get("orders", "engine-nobody")


@pytest.mark.engine
class TestAccountsLayout:
    """The hosted API's paths and its bearer token, before the same responses."""

    def get(self, engine: LocalEngine, path: str, token: str) -> httpx.Response:
        url = engine.accounts_api.format(account_id="acc") + path
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.get(url, headers=headers, trust_env=False, timeout=DEADLINE)

    def test_it_answers_what_the_engine_answers(self, engine: LocalEngine) -> None:
        engine.create("orders", "engine-accounts", "ok")
        engine.wait_for("orders", "engine-accounts", "complete")
        response = self.get(
            engine, "/workflows/orders/instances/engine-accounts?simple=true", engine.token
        )
        assert response.json()["result"] == engine.get("orders", "engine-accounts")

    def test_a_wrong_token_is_refused_in_the_api_s_own_envelope(self, engine: LocalEngine) -> None:
        response = self.get(engine, "/workflows", "wrong")
        assert response.status_code == 403
        assert response.json() == {
            "success": False,
            "errors": [{"code": 10000, "message": "Authentication error"}],
            "messages": [],
            "result": None,
        }

    def test_another_path_is_not_found(self, engine: LocalEngine) -> None:
        assert self.get(engine, "/zones", engine.token).status_code == 404


class TestLifetime:
    @pytest.mark.engine
    def test_instances_outlive_an_engine_that_was_given_a_place_for_them(
        self, tmp_path: Path
    ) -> None:
        with LocalEngine.start(tmp_path) as first:
            first.create("orders", "persisted", "ok")
            before = first.wait_for("orders", "persisted", "complete")
        with LocalEngine.start(tmp_path) as second:
            assert second.get("orders", "persisted") == before

    @pytest.mark.engine
    def test_an_engine_that_does_not_start_in_time_is_an_error(self) -> None:
        with pytest.raises(EngineError, match=r"did not start within 0\.01 s"):
            LocalEngine.start(timeout=0.01)

    @pytest.mark.process
    def test_it_stops_when_its_parent_is_killed(self, tmp_path: Path) -> None:
        code = (
            "import pathlib, time\n"
            "from demo import LocalEngine\n"
            f"print(LocalEngine.start(pathlib.Path({str(tmp_path)!r})).api, flush=True)\n"
            "time.sleep(600)\n"
        )
        parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        with parent:
            assert parent.stdout is not None
            api = parent.stdout.readline().strip()
            assert httpx.get(f"{api}/workflows", trust_env=False, timeout=DEADLINE).is_success
            parent.send_signal(signal.SIGKILL)

        def stopped() -> bool:
            try:
                httpx.get(f"{api}/workflows", trust_env=False, timeout=DEADLINE)
            except (httpx.NetworkError, httpx.RemoteProtocolError):
                return True
            return False

        wait_until(stopped, lambda: "the engine still responds")
