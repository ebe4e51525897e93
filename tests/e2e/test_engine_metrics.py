"""Every value on `/metrics`, exact, for whatever Cloudflare's real engine can act out."""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from demo import LocalEngine
from demo.local_engine import Action, Workflow
from exporter.app import App
from exporter.clock import Clock
from exporter.config.settings import Settings
from simulator import ManualClock
from tests.e2e.oracle import BUCKETS, Expected, Failure, Result, retried
from tests.e2e.scrape import differences, scrape, value

pytestmark = pytest.mark.engine

ACCOUNT = "local"
ALL = "cloudflare_workflow_"
Condition = str | Callable[[Result], bool]


@dataclass(frozen=True)
class Stage:
    """What is done to the instance, and what it then comes to: there it is polled."""

    until: Condition
    act: tuple[Action, ...] = ()


@dataclass(frozen=True)
class Scenario:
    """What an instance plays (see scenarios.mjs), stage by stage."""

    name: str
    acts_out: str
    stages: tuple[Stage, ...]
    params: dict[str, object] = field(default_factory=dict)
    failure: Failure | None = None
    workflow: Workflow = "orders"

    @property
    def instance_id(self) -> str:
        return f"metrics-{self.name.replace(' ', '-')}"


def begun(steps: int) -> Callable[[Result], bool]:
    """The last of so many steps has begun."""
    return lambda result: len(result["steps"]) == steps


def attempts(**wanted: int) -> Callable[[Result], bool]:
    """There are just so many attempts of each outcome."""
    return lambda result: retried(result) == wanted


def ends(status: str) -> tuple[Stage, ...]:
    return (Stage(status),)


def quick(delay: str) -> dict[str, object]:
    return {"delay": delay}


ENDLESS: dict[str, object] = {"ms": 500_000}
"""Of a step that is still open when the last test has ended, however busy the machine is."""


SCENARIOS = (
    Scenario("complete", "ok", ends("complete")),
    Scenario("retried", "retry", ends("complete"), quick("50 milliseconds")),
    Scenario("exhausted", "exhaust", ends("errored"), failure=Failure("Error", "always-fails")),
    Scenario(
        "not retried", "error", ends("errored"), failure=Failure("WorkflowFatalError", "fatal")
    ),
    # This engine flattens the name that the error has in the workflow, in the attempt too.
    Scenario("custom error", "customerror", ends("errored"), failure=Failure("Error", "fatal")),
    Scenario("thrown outside a step", "throw", ends("errored"), failure=Failure("Error")),
    Scenario("rolled back", "rollback", ends("errored"), failure=Failure("Error")),
    Scenario("caught", "caught", ends("complete")),
    Scenario("sleeping", "sleep", (Stage(begun(2)),)),
    Scenario("slept", "sleep", ends("complete"), {"for": "200 milliseconds"}),
    Scenario("waiting for an event", "wait", (Stage(begun(2)),)),
    Scenario("event received", "wait", (Stage(begun(2)), Stage("complete", ("event",)))),
    Scenario(
        "wait timed out",
        "wait",
        ends("errored"),
        {"timeout": "1 second"},
        Failure("WorkflowTimeoutError", "approval"),
    ),
    Scenario("wait timed out and caught", "waitcaught", ends("complete")),
    Scenario("paused", "sleep", (Stage(begun(2)), Stage("paused", ("pause",)))),
    Scenario("resumed", "sleep", (Stage("paused", ("pause",)), Stage("running", ("resume",)))),
    Scenario("waiting for pause", "slowstep", (Stage("waitingForPause", ("pause",)),), ENDLESS),
    Scenario(
        "terminated in a sleep", "sleep", (Stage(begun(2)), Stage("terminated", ("terminate",)))
    ),
    Scenario(
        "terminated in a step",
        "slowstep",
        (Stage(begun(1)), Stage("terminated", ("terminate",))),
        ENDLESS,
    ),
    Scenario("side by side", "parallel", ends("complete")),
    Scenario("200 steps", "many", ends("complete"), {"n": 200}),
    Scenario("odd name", "longname", ends("complete")),
    Scenario("backing off for an hour", "stalled", (Stage(attempts(failure=1)),)),
    Scenario("big output", "bigout", ends("complete")),
    Scenario(
        "step timed out",
        "steptimeout",
        ends("errored"),
        failure=Failure("WorkflowTimeoutError", "too-long"),
    ),
    Scenario("slow step", "slowstep", (Stage(begun(1)),), ENDLESS),
)


@pytest.fixture(scope="module")
def acting(engine: LocalEngine) -> LocalEngine:
    """The engine with every scenario begun, so that they take their time side by side."""
    for scenario in SCENARIOS:
        engine.create(scenario.workflow, scenario.instance_id, scenario.acts_out, **scenario.params)
    return engine


class Undated(httpx.AsyncHTTPTransport):
    """Takes the `Date` off responses: the clock in hand runs ahead of the engine's."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        response.headers.pop("date", None)
        return response


class MovedError(AssertionError):
    """An instance became another while it was polled."""


@dataclass
class Observer:
    """An exporter that watches instances of one workflow on the real engine, clock in hand."""

    engine: LocalEngine
    workflow: Workflow
    app: App
    clock: ManualClock

    async def round(self, *, after: float = 15) -> None:
        self.clock.advance(after)
        for poller in self.app.pollers:
            await poller.round(whole=True)
        await self.app.writer.save()  # what a scrape shows is committed

    async def poll(self, *instance_ids: str) -> list[Result]:
        """A round; what the engine said of these instances, before it and after it the same."""
        before = [self.engine.get(self.workflow, i) for i in instance_ids]
        await self.round()
        after = [self.engine.get(self.workflow, i) for i in instance_ids]
        if before != after:
            raise MovedError(f"{before} became {after} while it was polled")
        return before

    def wrong(
        self, expected: Expected, watched: list[Result], counted: Sequence[Result] = ()
    ) -> list[str]:
        """What differs from the values of instances that are watched now; `counted` are all runs,
        where others were before."""
        expected.counts(counted or watched)
        expected.watch(watched=watched, last_success=self.clock())
        return differences(scrape(self.app, ALL), expected.samples)


@asynccontextmanager
async def observing(
    engine: LocalEngine, workflow: Workflow, *instance_ids: str
) -> AsyncIterator[Observer]:
    """Watches instances of the engine in the hosted API's layout, bearer token and all."""
    clock = ManualClock(time.time())
    settings: dict[str, Any] = {
        "api": {"url": engine.accounts_api, "requests_per_5m": 1_000_000},
        "accounts": [
            {
                "name": ACCOUNT,
                "account_id": "acc",
                "api_token": engine.token,
                "workflows": [{"name": workflow, "instances": list(instance_ids)}],
            }
        ],
        # Everything is due in every round, and after a refresh in full.
        "poll": {"interval": "15s", "ended_interval": "15s", "detail_refresh": "5m"},
        "metrics": {"buckets": BUCKETS, "step_names": {"limit": 1000}},
    }
    clocks = Clock(wall=clock, monotonic=clock)
    app = App(Settings(**settings), clock=clocks, transport=Undated())
    async with app.opened():
        yield Observer(engine, workflow, app, clock)


def expected(workflow: str) -> Expected:
    return Expected(ACCOUNT, workflow)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
async def test_the_values_are_those_of_the_engines_own_response(
    acting: LocalEngine, scenario: Scenario
) -> None:
    """At each stage, and no more after further polls: nothing is counted twice."""
    workflow, instance_id = scenario.workflow, scenario.instance_id
    async with observing(acting, workflow, instance_id) as o:
        for number, stage in enumerate(scenario.stages):
            for action in stage.act:
                acting.act(workflow, instance_id, action)
            acting.wait_for(workflow, instance_id, stage.until)
            (result,) = await o.poll(instance_id)
            moved = o.clock()
            last = number == len(scenario.stages) - 1
            for again in (False, True, True) if last else (False,):
                if again:
                    # Past detail_refresh: the detail response of a live one, once more.
                    await o.round(after=600)
                values = expected(workflow)
                values.instance(
                    instance_id, result, scenario.failure if last else None, last_change=moved
                )
                assert o.wrong(values, [result]) == []


async def test_a_step_is_polled_between_two_attempts_and_after_the_last(
    engine: LocalEngine,
) -> None:
    """What was counted of an open step isn't counted again once it has finished."""
    for delay in (1, 4, 16, 64):  # a busy machine polls later than it is to
        instance_id = f"metrics-between-{delay}"
        async with observing(engine, "billing", instance_id) as o:
            engine.create("billing", instance_id, "retry", delay=f"{delay} seconds")
            try:
                engine.wait_for(
                    "billing", instance_id, lambda result: retried(result).get("failure", 0) > 0
                )
                (backing_off,) = await o.poll(instance_id)
            except MovedError:
                continue
            if retried(backing_off) != {"success": 1, "failure": 1}:
                continue
            values = expected("billing")
            values.instance(instance_id, backing_off, None, last_change=o.clock())
            assert o.wrong(values, [backing_off]) == []

            engine.wait_for("billing", instance_id, "complete")
            (complete,) = await o.poll(instance_id)
            values = expected("billing")
            values.instance(instance_id, complete, None, last_change=o.clock())
            assert o.wrong(values, [complete]) == []
            return
    pytest.fail("between two attempts it was never polled")


async def test_a_restart_is_a_new_run_and_counted_once_more(engine: LocalEngine) -> None:
    async with observing(engine, "billing", "metrics-again") as o:
        engine.create("billing", "metrics-again", "error")
        engine.wait_for("billing", "metrics-again", "errored")
        (first,) = await o.poll("metrics-again")
        engine.act("billing", "metrics-again", "restart")
        engine.wait_for(
            "billing",
            "metrics-again",
            lambda r: r["status"] == "errored" and r["queued"] > first["queued"],
        )
        (second,) = await o.poll("metrics-again")
        moved = o.clock()
        await o.round(after=600)
        values = expected("billing")
        failure = Failure("WorkflowFatalError", "fatal")
        values.instance("metrics-again", second, failure, last_change=moved)
        assert o.wrong(values, [second], [first, second]) == []


async def test_a_workflow_adds_up_over_its_instances(acting: LocalEngine) -> None:
    ended = [s for s in SCENARIOS if s.stages in (ends("complete"), ends("errored"))]
    async with observing(acting, "orders", *(s.instance_id for s in ended)) as o:
        for scenario in ended:
            (stage,) = scenario.stages
            acting.wait_for("orders", scenario.instance_id, stage.until)
        results = await o.poll(*(s.instance_id for s in ended))
        values = expected("orders")
        for scenario, result in zip(ended, results, strict=True):
            values.instance(scenario.instance_id, result, scenario.failure, last_change=o.clock())
        assert o.wrong(values, results) == []


async def test_an_instance_that_does_not_exist_yet_is_polled_on_and_appears_once_it_does(
    engine: LocalEngine,
) -> None:
    async with observing(engine, "billing", "metrics-later") as o:
        for _ in range(3):
            await o.round()
            values = expected("billing")
            assert o.wrong(values, []) == []
        engine.create("billing", "metrics-later", "ok")
        engine.wait_for("billing", "metrics-later", "complete")
        (result,) = await o.poll("metrics-later")
        values = expected("billing")
        values.instance("metrics-later", result, None, last_change=o.clock())
        assert o.wrong(values, [result]) == []


async def test_a_back_off_of_an_hour_shows_as_one_failed_attempt_of_the_current_step(
    acting: LocalEngine,
) -> None:
    """The value that distinguishes a retry storm from a slow step, spelt out."""
    async with observing(acting, "orders", "metrics-backing-off-for-an-hour") as o:
        await o.round()
        found = scrape(o.app)
    name = "cloudflare_workflow_instance_current_step_attempts"
    assert value(found, name, step="backing-off", step_type="step") == 1
    assert value(found, "cloudflare_workflow_instance_attempts", outcome="failure") == 1
    assert value(found, "cloudflare_workflow_instance_attempts", outcome="running") == 0


async def test_a_step_name_is_shown_as_its_author_wrote_it(acting: LocalEngine) -> None:
    async with observing(acting, "orders", "metrics-odd-name") as o:
        acting.wait_for("orders", "metrics-odd-name", "complete")
        await o.round()
        written = 'étape n°1 / "quoted" \\ back {x="1"}'
        name = "cloudflare_workflow_step_duration_seconds_count"
        assert value(scrape(o.app), name, step=written, outcome="success") == 1
