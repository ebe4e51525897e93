"""The simulator as a program, steered over HTTP, and served from a thread."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from simulator import ManualClock, Simulator, World, serve_in_thread
from simulator.scenarios import ACCOUNT, TOKEN, crowd
from tests.waiting import DEADLINE, tied


class Program:
    """A running simulator with a manual clock."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        self.process = process
        self.ready: dict[str, Any] = json.loads(process.stdout.readline())
        api = self.ready["api"].replace("{account_id}", ACCOUNT)
        self.api = httpx.Client(
            base_url=api,
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=DEADLINE,
            verify=False,
        )
        self.control = httpx.Client(base_url=self.ready["control"], timeout=DEADLINE, verify=False)

    def do(self, method: str, path: str, body: Any = None) -> Any:
        response = self.control.request(method, path, json=body)
        assert response.status_code == 200, response.text
        return response.json()

    def result(self, path: str) -> Any:
        return self.api.get(path).json()["result"]

    def close(self) -> None:
        self.api.close()
        self.control.close()


def run(*arguments: str) -> "subprocess.Popen[str]":
    command = tied(sys.executable, "-m", "simulator", *arguments)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def program() -> Iterator[Program]:
    with run("--port", "0", "--clock", "manual", "--scenario", "empty") as process:
        program = Program(process)
        program.do("POST", "/instances", {"workflow": "w"})  # with it, there is the account
        yield program
        program.close()
        process.terminate()


@pytest.fixture(autouse=True)
def afresh(request: pytest.FixtureRequest) -> None:
    if "program" in request.fixturenames:
        program = request.getfixturevalue("program")
        program.do("DELETE", "/faults")
        program.do("DELETE", "/requests")


@pytest.mark.process
class TestControl:
    def test_creates_instances_and_moves_the_clock(self, program: Program) -> None:
        script = {
            "queued": 1,
            "pieces": [
                {"type": "step", "name": "charge", "attempts": [{"duration": 2}]},
                {"type": "parallel", "branches": [[{"type": "sleep", "name": "nap"}], []]},
            ],
        }
        created = program.do("POST", "/instances", {"workflow": "w", "id": "a", "script": script})
        assert created == {"id": "a"}
        assert program.result("/workflows/w/instances/a")["status"] == "queued"
        program.do("POST", "/clock/advance", {"seconds": 1.5})
        shown = program.result("/workflows/w/instances/a")
        assert (shown["status"], shown["steps"][0]["name"]) == ("running", "charge-1")

    @pytest.mark.parametrize(
        ("verb", "body", "status"),
        [
            ("pause", {}, "paused"),
            ("terminate", {"source": "api"}, "terminated"),
            ("event", {"value": {"by": "alice"}}, "complete"),
            ("status", {"value": "hibernating"}, "hibernating"),
            ("restart", {"script": {"queued": None}}, "queued"),
            ("result", {"value": {"status": "odd"}}, "odd"),
            ("pause", {"after": 60}, "waiting"),
        ],
    )
    def test_intervenes(
        self, program: Program, verb: str, body: dict[str, Any], status: str
    ) -> None:
        script = {"pieces": [{"type": "waitForEvent", "name": "approval"}]}
        created = program.do("POST", "/instances", {"workflow": "w", "script": script})
        path = f"{ACCOUNT}/w/{created['id']}"
        program.do("POST", f"/instances/{path}/{verb}", body)
        assert program.result(f"/workflows/w/instances/{created['id']}")["status"] == status
        program.do("POST", f"/instances/{path}/delete")
        assert program.api.get(f"/workflows/w/instances/{created['id']}").status_code == 404

    def test_sets_faults_and_shows_requests(self, program: Program) -> None:
        program.do("POST", "/faults", {"action": {"type": "respond", "status": 503}, "times": 1})
        assert program.api.get("/workflows").status_code == 503
        assert program.api.get("/workflows").status_code == 200
        program.do("POST", "/faults/release")
        calls = program.do("GET", "/requests")
        assert calls["by_status"] == {"workflows 503": 1, "workflows 200": 1}
        assert [call["status"] for call in calls["latest"]] == [503, 200]

    def test_sets_the_limit_and_spends_from_it(self, program: Program) -> None:
        program.do("PUT", "/limit", {"quota": 10})
        assert program.do("POST", "/limit/spend", {"requests": 12}) == {"accepted": 10}
        assert program.api.get("/workflows").status_code == 429
        program.do("PUT", "/limit", {})
        program.do("POST", "/clock/advance", {"seconds": 300})
        assert program.api.get("/workflows").status_code == 200

    def test_lets_other_credentials_in(self, program: Program) -> None:
        program.do("POST", "/credentials", {"email": "a@example.com", "key": "k"})
        headers = {"X-Auth-Email": "a@example.com", "X-Auth-Key": "k"}
        url = program.ready["url"] + f"/accounts/{ACCOUNT}/workflows"
        assert httpx.get(url, headers=headers, timeout=DEADLINE, verify=False).status_code == 200

    @pytest.mark.parametrize(
        ("path", "body", "status", "why"),
        [
            ("/instances", {"workflow": "w", "scrip": {}}, 400, "unknown field `scrip`"),
            ("/faults", {"action": {"type": "nope"}}, 400, "$.action.type"),
            ("/instances/nobody/w/a/pause", {}, 404, "there is no 'nobody'"),
        ],
    )
    def test_says_what_is_wrong(
        self, program: Program, path: str, body: Any, status: int, why: str
    ) -> None:
        response = program.control.post(path, json=body)
        assert response.status_code == status
        assert why in response.json()["error"]


@pytest.mark.process
class TestTheProgram:
    def test_plays_a_scenario_from_a_file_and_stops_on_sigterm(self, tmp_path: Path) -> None:
        scenario = tmp_path / "scenario.yaml"
        scenario.write_text(
            "credentials: [{token: mine}]\n"
            "instances:\n"
            "- {workflow: orders, account: acc, id: a, after: -10, script: {throws: {}}}\n"
        )
        with run("--scenario", str(scenario), "--speed", "60") as process:
            program = Program(process)
            assert program.ready["accounts"] == ["acc"]
            response = httpx.get(
                program.ready["url"] + "/accounts/acc/workflows/orders/instances/a",
                headers={"Authorization": "Bearer mine"},
                timeout=DEADLINE,
            )
            assert response.json()["result"]["status"] == "errored"
            assert program.control.post("/clock/advance", json={"seconds": 1}).status_code == 400
            program.close()
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE) == 0
            assert process.stderr is not None
            assert process.stderr.read() == ""

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("instances: [{id: a}]", "missing required field `workflow`"),
            ("[", "while parsing"),
            (None, "No such file"),
        ],
    )
    def test_refuses_a_scenario_that_isnt_one(
        self, tmp_path: Path, text: str | None, why: str
    ) -> None:
        scenario = tmp_path / "scenario.yaml"
        if text is not None:
            scenario.write_text(text)
        with run("--scenario", str(scenario)) as process:
            _, said = process.communicate()
        assert process.returncode == 2
        assert why in said
        assert "Traceback" not in said

    def test_moves_a_small_shop_by_default(self) -> None:
        with run() as process:
            program = Program(process)
            names = [workflow["name"] for workflow in program.result("/workflows")]
            rows = program.result("/workflows/orders/instances?per_page=100")
            program.close()
            process.terminate()
        assert names == ["billing", "orders"]
        assert len({row["status"] for row in rows}) > 1


@pytest.mark.slow
def test_a_crowd_has_about_as_many_live_instances_as_asked_for() -> None:
    clock = ManualClock()
    simulator = Simulator(World(clock))
    crowd(simulator, 1_000)
    workflow = simulator.world.account(ACCOUNT).workflow("orders")
    for _ in range(5):
        counts = workflow.counts(simulator.world.settle())
        ended = counts["complete"] + counts["errored"] + counts["terminated"]
        assert 700 < sum(counts.values()) - ended < 1_300
        clock.advance(60)


def test_a_program_without_an_event_loop_is_served_from_a_thread() -> None:
    simulator = Simulator()
    simulator.access.token("t")
    simulator.world.account("acc").workflow("orders")
    with serve_in_thread(simulator) as served:
        url = f"{served.url}/accounts/acc/workflows/orders"
        headers = {"Authorization": "Bearer t"}
        assert httpx.get(url, headers=headers, timeout=DEADLINE, verify=False).status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, timeout=DEADLINE, verify=False)
