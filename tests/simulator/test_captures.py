"""Its responses against those of Cloudflare's real engine.

captures.json holds what the local engine of npm's miniflare 5.20261117.0-beta returned for
instances of each kind. In the local engine's style the simulator gives the same responses, all but
the times.
"""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

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
    Wait,
    World,
    parallel,
)

from .conftest import ACCOUNT, TOKEN

CAPTURES: dict[str, Any] = json.loads((Path(__file__).parent / "captures.json").read_text())

FAST = Config(3, "1 second", "constant", "30 seconds")
NO_RETRY = Config(0, 0)
TIMED_OUT = Error("WorkflowTimeoutError", "Execution timed out after 1000ms")
AFTER = Step("after", (Attempt(0.001),))
BEFORE = Step("before", (Attempt(0.001),), output=1)
TYPE_ERRORS = tuple(Attempt(0.004, Error("TypeError", f"flaky attempt {n}")) for n in (1, 2))
FLAKY = Step("flaky", (*TYPE_ERRORS, Attempt(0.002)), output="ok after 3", config=FAST)
FATAL = 'Step threw a NonRetryableError with message "NonRetryableError: card declined"'
EVENT = {"payload": {"by": "alice"}, "type": "approve", "timestamp": "2026-11-24T17:06:16.564Z"}
DECLINED = Attempt(0.002, Error("WorkflowFatalError", FATAL))
CHARGE = Step("charge", (DECLINED,), output="charged")
CHARGED = Step("charge", (Attempt(0.002),), output="charged")
THREE = tuple(Step(n, (Attempt(0.001),), output={"n": n}) for n in ("fetch", "transform", "store"))

SCRIPTS = {
    "ok": Script(THREE, output={"done": 3}),
    "retry": Script((BEFORE, FLAKY), output="ok after 3"),
    "exhaust": Script(
        (
            Step(
                "always-fails",
                (Attempt(0.002, Error("Error", "boom")),) * 3,
                config=Config(2, "1 second", "exponential"),
            ),
        )
    ),
    "error": Script(
        (
            BEFORE,
            Step("fatal", (Attempt(0.001, Error("WorkflowFatalError", FATAL)),), config=FAST),
        )
    ),
    "throw": Script((BEFORE,), throws=Error("Error", "thrown outside a step")),
    "sleep": Script((BEFORE, Sleep("nap", 3600))),
    "wait": Script((BEFORE, Wait("approval", "approve", 3600)), output=EVENT),
    "recovers": Script((BEFORE, CHARGE, Step("after", (Attempt(0.001),), output="charged"))),
    "race": Script((parallel(Step("slow", (Attempt(60),), output="slow"), CHARGE),)),
    "slowstep": Script((Step("slow", (Attempt(60),), output=1),), output=1),
    "waitcaught": Script(
        (Wait("approval", "approve", 1, caught=True), replace(AFTER, output="no approval")),
        output="no approval",
    ),
    "steptimeout": Script(
        (Step("too-long", (Attempt(1, TIMED_OUT),), config=replace(NO_RETRY, timeout="1 second")),)
    ),
    "outlived": Script(
        (
            parallel(
                Step("slow", (Attempt(1),), output="slow"),
                Step("fails", (Attempt(0.002, Error("Error", "boom")),), config=NO_RETRY),
            ),
        )
    ),
    "customerror": Script(
        (
            Step(
                "fatal",
                (Attempt(0.002, Error("CardError", "card declined")),) * 4,
                backoff=0.1,
                config=Config(3, "1 second", "constant"),
            ),
        )
    ),
    "caught": Script(
        (
            Step(
                "optional",
                (Attempt(0.002, Error("RangeError", "ignored")),),
                caught=True,
                config=NO_RETRY,
            ),
            replace(AFTER, output="done"),
        )
    ),
}


def without_times(value: Any) -> Any:
    """The same, with every time replaced by a word."""
    text = json.dumps(value, sort_keys=True)
    return json.loads(re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "time", text))


def act(name: str, instance: Instance, clock: ManualClock) -> None:
    """Bring an instance to where the capture was taken."""
    clock.advance(0.5)
    match name:
        case "event received":
            instance.send_event("approve", {"by": "alice"})
        case "paused":
            instance.pause()
        case "terminated":
            instance.terminate()
        case "restarted":
            instance.restart()
        case "restarted from a step":
            after = Step("after", (Attempt(0.001),), output="charged")
            instance.restart_from(
                "charge", script=Script((BEFORE, CHARGED, after), output="charged")
            )
        case "restarted beside an open step":
            slow = Step("slow", (Attempt(60),), output="slow")
            instance.restart_from("charge", script=Script((parallel(slow, CHARGED),)))
        case "backing off":
            return
    clock.advance(4)


@pytest.fixture
def simulator(clock: ManualClock) -> Simulator:
    simulator = Simulator(World(clock, style=LOCAL_ENGINE))
    simulator.access.token(TOKEN)
    return simulator


async def ask(simulator: Simulator, path: str) -> httpx.Response:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(simulator),
        base_url=f"http://simulator/client/v4/accounts/{ACCOUNT}",
        headers={"Authorization": f"Bearer {TOKEN}"},
        verify=False,
    ) as client:
        return await client.get(path)


INSTANCES = [n for n, c in CAPTURES.items() if "steps" in str(c["body"]) and "list" not in n]


@pytest.mark.parametrize("name", INSTANCES)
async def test_an_instance_is_written_as_the_engine_writes_it(
    simulator: Simulator, clock: ManualClock, name: str
) -> None:
    capture = CAPTURES[name]
    path = capture["request"].removeprefix("GET ")
    params = capture["body"]["result"]["params"]
    workflow = simulator.world.account(ACCOUNT).workflow("orders")
    script = SCRIPTS[params["scenario"]]
    act(name, workflow.create(path.split("/")[-1], script, params=params), clock)
    response = await ask(simulator, path)
    assert without_times(response.json()) == without_times(capture["body"])


@pytest.mark.parametrize("name", [n for n, c in CAPTURES.items() if c["http_status"] >= 400])
async def test_a_refusal_is_worded_as_the_engine_words_it(simulator: Simulator, name: str) -> None:
    capture = CAPTURES[name]
    simulator.world.account(ACCOUNT).workflow("orders")
    response = await ask(simulator, capture["request"].removeprefix("GET "))
    assert response.status_code == capture["http_status"]
    # The hosted API has a status more than the local engine.
    text = response.text.replace('|\\"rollingBack\\"', "")
    assert json.loads(text) == capture["body"]


@pytest.mark.parametrize("name", ["list", "list by status", "workflow"])
async def test_lists_and_workflows_have_the_engines_fields(
    simulator: Simulator, clock: ManualClock, name: str
) -> None:
    capture = CAPTURES[name]
    workflow = simulator.world.account(ACCOUNT).workflow("orders")
    for number in range(30):
        workflow.create(f"instance-{number}", Script(throws=Error()))
        clock.advance(1)
    response = (await ask(simulator, capture["request"].removeprefix("GET "))).json()
    expected = capture["body"]
    if name == "workflow":
        assert response["result"].keys() == expected["result"].keys()
        assert expected["result"]["instances"].keys() <= response["result"]["instances"].keys()
        return
    assert [row.keys() for row in response["result"][:5]] == [
        r.keys() for r in expected["result"][:5]
    ]
    info, engines = response["result_info"], expected["result_info"]
    assert {k: type(info[k]) for k in engines if k != "status_counts"} == {
        k: type(v) for k, v in engines.items() if k != "status_counts"
    }
    created = [row["created_on"] for row in response["result"]]
    assert created == sorted(created, reverse=True)


def test_a_step_that_fails_for_good_took_one_attempt_more_than_its_retry_limit() -> None:
    """What current_step_retry_limit and the alert on last attempts rest on."""
    (step,) = CAPTURES["exhausted"]["body"]["result"]["steps"]
    assert len(step["attempts"]) == step["config"]["retries"]["limit"] + 1
