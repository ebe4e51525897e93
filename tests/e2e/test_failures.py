"""Whatever goes wrong with a request shows, harms nothing, is logged once, and is over with the
next round."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from structlog.testing import capture_logs

from exporter.app import App
from exporter.clock import Clock
from exporter.config.settings import Settings
from simulator import (
    Attempt,
    Drip,
    Drop,
    Hang,
    ManualClock,
    Respond,
    Script,
    Simulator,
    Sleep,
    Step,
    Truncate,
    Wait,
    error,
    garbage,
    html,
    redirect,
    serve,
)
from simulator.faults import Action
from tests.e2e.scrape import Samples, scrape, value
from tests.ports import reserved_port

WATCHED = ("cloudflare_workflow_instance", "cloudflare_workflow_step_", "cloudflare_workflow_run")
POLLS = "cloudflare_workflows_exporter_polls_total"
LAST_SUCCESS = "cloudflare_workflow_last_success_timestamp_seconds"
UP = "cloudflare_workflow_up"
TOKEN = "S3cr3t-t0ken"
PERMISSIONS = ("Workers Scripts Read", "Workers Tail Read", "Workers Scripts Write")


@dataclass(frozen=True)
class Failure:
    """What the API does, the class in which it is counted, and words that the log must have."""

    action: Action
    result: str
    said: Sequence[str]
    advice: Sequence[str] = ()


NESTED = "[" * 100_000
FAILURES: Mapping[str, Failure] = {
    "401": Failure(
        error(401, 10000, "Authentication error"),
        "unauthorized",
        ("HTTP 401", "Authentication error (code 10000)"),
        ("API token", "expired or revoked"),
    ),
    "403": Failure(
        error(403, 10000, "Authentication error"), "unauthorized", ("HTTP 403",), PERMISSIONS
    ),
    "403 of a firewall": Failure(
        html(403), "unauthorized", ("HTTP 403", "text/html"), ("firewalls and proxies",)
    ),
    "404 of a wrong route": Failure(
        error(404, 7003, "Could not route"), "http_4xx", ("HTTP 404", "7003"), ("account_id",)
    ),
    "404 of another kind": Failure(error(404), "http_4xx", ("HTTP 404",), ("api.url",)),
    "404 of a proxy": Failure(html(404), "http_4xx", ("HTTP 404", "text/html"), ("api.url",)),
    "404 without a body": Failure(Respond(status=404), "http_4xx", ("HTTP 404",), ("api.url",)),
    "429": Failure(
        error(429, 10429, "Rate limited"),
        "rate_limited",
        ("HTTP 429", "no requests for 300 s"),
        ("api.requests_per_5m",),
    ),
    "429 with Retry-After": Failure(
        error(429, 10429, "Rate limited", retry_after="60"),
        "rate_limited",
        ("HTTP 429", "no requests for 60 s"),
        ("api.requests_per_5m",),
    ),
    "400": Failure(error(400, 7003, "bad"), "http_4xx", ("HTTP 400",), ("api.url",)),
    "500": Failure(error(500), "http_5xx", ("HTTP 500", "Internal error")),
    "502 of a proxy": Failure(html(502), "http_5xx", ("HTTP 502", "text/html")),
    "200 of a portal": Failure(
        html(200), "invalid_answer", ("text/html", "can't be read"), ("firewalls and proxies",)
    ),
    "success: false": Failure(
        error(200, 10001, "Something broke"), "invalid_answer", ("Something broke (code 10001)",)
    ),
    "no result": Failure(
        garbage('{"success": true, "result": null}'), "invalid_answer", ("no result",)
    ),
    "another type": Failure(garbage('{"result": [1]}'), "invalid_answer", ("can't be read",)),
    "truncated": Failure(Truncate(), "invalid_answer", ("can't be read",)),
    "an empty body": Failure(Truncate(0), "invalid_answer", ("empty",)),
    "no JSON": Failure(garbage("nonsense"), "invalid_answer", ("can't be read",)),
    "no UTF-8": Failure(Respond(body=b'{"result": "\xff"}'), "invalid_answer", ("can't be read",)),
    "nested deep": Failure(garbage(NESTED), "invalid_answer", ("can't be read",)),
    "nested deep in a field": Failure(
        garbage('{"result": {"queued": "2026-01-01T00:00:00Z", "params": ' + NESTED),
        "invalid_answer",
        ("can't be read",),
    ),
    "no gzip": Failure(
        Respond(text="nonsense", headers={"content-encoding": "gzip"}),
        "invalid_answer",
        ("unreadable body",),
    ),
    "dropped without a response": Failure(Drop(), "connection", ("disconnected",), ("firewalls",)),
    "dropped in mid-body": Failure(Drop(0.5), "connection", ("closed connection",), ("firewalls",)),
    "reset": Failure(Drop(0.5, reset=True), "connection", ("reset",), ("firewalls",)),
    "no response in time": Failure(Hang(), "timeout", ("within 2 s",), ("api.timeout",)),
    "too slow a response": Failure(
        Drip(size=1, every=0.05), "timeout", ("within 2 s",), ("api.timeout",)
    ),
    "a redirect": Failure(
        redirect("https://example.com/login"), "invalid_answer", ("HTTP 302",), ("api.url",)
    ),
}


def order_1(clock: ManualClock) -> tuple[Simulator, str]:
    """The API, with an instance that has something of everything and now waits."""
    simulator = Simulator(clock=clock)
    simulator.access.token(TOKEN)
    pieces = (Step("pay", (Attempt(1),)), Sleep("nap", 5), Wait("approval"))
    workflow = simulator.world.account("acc").workflow("orders")
    workflow.create("order-1", Script(pieces, queued=1), at=clock() - 60)
    return simulator, "order-1"


class Watch:
    """An exporter that watches one instance, round by round."""

    def __init__(self, app: App, clock: ManualClock) -> None:
        self.app = app
        self.clock = clock
        self.shown: Samples = {}
        """What `/metrics` shows since the last round."""

    async def round(self, *, after: float = 15) -> list[dict[str, Any]]:
        """A round; what is logged meanwhile, at the level info and above."""
        self.clock.advance(after)
        with capture_logs() as lines:
            for poller in self.app.pollers:
                await poller.round(whole=True)
            await self.app.writer.save()  # nothing is shown before
        self.shown = scrape(self.app)
        return [dict(line) for line in lines if line["log_level"] != "debug"]

    def values(self) -> Samples:
        """Everything that says something of instances and their runs."""
        return {k: v for k, v in self.shown.items() if k[0].startswith(WATCHED)}

    def value(self, name: str) -> float:
        return value(self.shown, name)

    def polls(self) -> dict[tuple[str, str], float]:
        """Requests by kind and result."""
        return {
            (dict(labels)["kind"], dict(labels)["result"]): count
            for (name, labels), count in self.shown.items()
            if name == POLLS
        }


@asynccontextmanager
async def watching(
    url: str, clock: ManualClock, *, detail_refresh: str = "1h", api_timeout: str = "60s"
) -> AsyncIterator[Watch]:
    settings = Settings(
        api={
            "url": url + "/accounts/{account_id}",
            "timeout": api_timeout,
            "requests_per_5m": 1_000_000,
        },
        accounts=[
            {
                "name": "acc",
                "account_id": "acc",
                "api_token": TOKEN,
                "workflows": [{"name": "orders", "instances": ["order-1"]}],
            }
        ],
        poll={"interval": "15s", "detail_refresh": detail_refresh},
    )
    app = App(settings, clock=Clock(wall=clock, monotonic=clock))
    async with app.opened():
        yield Watch(app, clock)


def moved(
    before: dict[tuple[str, str], float], after: dict[tuple[str, str], float]
) -> dict[tuple[str, str], float]:
    """By how much each count has grown."""
    return {key: after[key] - before[key] for key in after if after[key] != before[key]}


async def assert_visible_and_harmless(
    watch: Watch, kind: str, failure: Failure, *, succeeding: Callable[[], object]
) -> None:
    """A round in which the request fails, one more, and one that succeeds again."""
    values, succeeded, polls = watch.values(), watch.value(LAST_SUCCESS), watch.polls()

    # A 429 stops all requests for 5 minutes, or for as long as it says.
    later = 301.0 if failure.result == "rate_limited" else 15.0

    (line,) = await watch.round()
    assert line["log_level"] == "warning"
    assert (line["account"], line["workflow"]) == ("acc", "orders")
    assert (line["instance_id"], line["result"]) == ("order-1", failure.result)
    assert [word for word in failure.said if word not in line["error"]] == [], line["error"]
    assert [word for word in failure.advice if word not in line["advice"]] == []
    assert TOKEN not in str(line)
    assert watch.values() == values
    assert watch.value(UP) == 0
    assert watch.value(LAST_SUCCESS) == succeeded
    assert moved(polls, watch.polls()) == {(kind, failure.result): 1}

    assert await watch.round(after=later) == [], "it is logged once"
    assert watch.values() == values

    succeeding()
    polls = watch.polls()
    (line,) = await watch.round(after=later)
    assert (line["log_level"], line["event"]) == (
        "info",
        "instances can be polled and listed again",
    )
    assert watch.values() == values
    assert watch.value(UP) == 1
    assert watch.value(LAST_SUCCESS) == watch.clock()
    assert moved(polls, watch.polls()) == {(kind, "success"): 1}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAILURES)
@pytest.mark.parametrize("kind", ["simple", "detail"])
async def test_a_call_that_fails_shows_and_harms_nothing(kind: str, name: str) -> None:
    clock, failure = ManualClock(), FAILURES[name]
    simulator, _ = order_1(clock)
    settings = {
        "detail_refresh": {"simple": "1h", "detail": "10s"}[kind],
        "api_timeout": "2s" if failure.result == "timeout" else "60s",
    }
    async with serve(simulator) as served, watching(served.url, clock, **settings) as w:
        assert await w.round() == []
        assert w.value(UP) == 1
        simulator.faults.add(failure.action)
        await assert_visible_and_harmless(w, kind, failure, succeeding=simulator.faults.clear)


async def test_an_api_that_takes_no_connections() -> None:
    clock = ManualClock()
    simulator, _ = order_1(clock)
    failure = Failure(Drop(), "connection", ("Connection refused",), ("api.url",))
    async with AsyncExitStack() as serving, AsyncExitStack() as watches:
        port = watches.enter_context(reserved_port())
        url = (await serving.enter_async_context(serve(simulator, port=port))).url
        watch = await watches.enter_async_context(watching(url, clock))
        await watch.round()
        await serving.aclose()
        values, polls = watch.values(), watch.polls()
        # The first request finds its old connection closed, or a new one refused.
        (line,) = await watch.round()
        assert line["result"] == "connection"
        assert moved(polls, watch.polls()) == {("simple", "connection"): 1}
        assert watch.value(UP) == 0
        assert watch.values() == values

        await watches.enter_async_context(serve(simulator, port=port))
        (line,) = await watch.round()
        assert line["event"] == "instances can be polled and listed again"
        assert watch.value(UP) == 1
        assert watch.values() == values
    with reserved_port() as port:
        url = f"http://127.0.0.1:{port}/client/v4"
        async with watching(url, clock) as watch:
            (line,) = await watch.round()
        assert [word for word in failure.said if word not in line["error"]] == [], line["error"]
        assert watch.value(UP) == 0


async def test_a_failure_at_first_sight_leaves_nothing_but_the_failure() -> None:
    clock = ManualClock()
    simulator, _ = order_1(clock)
    async with serve(simulator) as served, watching(served.url, clock) as w:
        simulator.faults.add(html(503))
        (line,) = await w.round()
        assert line["result"] == "http_5xx"
        assert w.value(UP) == 0
        assert not [name for name, _ in w.values() if "_instance_" in name]
        simulator.faults.clear()
        await w.round()
        assert w.value(UP) == 1
        assert w.value("cloudflare_workflow_instance_step_count") == 3


async def test_a_failure_of_another_class_is_logged_too() -> None:
    clock = ManualClock()
    simulator, _ = order_1(clock)
    async with serve(simulator) as served, watching(served.url, clock) as w:
        await w.round()
        simulator.faults.add(error(500), times=1)
        simulator.faults.add(error(403), times=1)
        logged = [line["result"] for _ in range(2) for line in await w.round()]
        assert logged == ["http_5xx", "unauthorized"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_credential_goes_along_a_redirect(status: int) -> None:
    """The other server isn't called at all."""
    clock = ManualClock()
    simulator, _ = order_1(clock)
    elsewhere, _ = order_1(clock)
    async with (
        serve(simulator) as served,
        serve(elsewhere) as other,
        watching(served.url, clock) as w,
    ):
        location = f"{other.url}/accounts/acc/workflows/orders/instances/order-1"
        simulator.faults.add(redirect(location, status))
        await w.round()
        assert w.value(UP) == 0
        assert simulator.requests.total == 1
        assert elsewhere.requests.total == 0


async def test_a_token_without_the_permission_has_the_needed_one_logged() -> None:
    """As the API itself refuses it, and not a fault put in its way."""
    clock = ManualClock()
    simulator, _ = order_1(clock)
    simulator.access.token(TOKEN, permissions=["Account Analytics Read"])
    async with serve(simulator) as served, watching(served.url, clock) as w:
        (line,) = await w.round()
        assert line["result"] == "unauthorized"
        assert [permission for permission in PERMISSIONS if permission not in line["advice"]] == []


async def test_a_wrong_token_is_logged_as_wrong() -> None:
    clock = ManualClock()
    simulator, _ = order_1(clock)
    simulator.access.revoke(TOKEN)
    async with serve(simulator) as served, watching(served.url, clock) as w:
        (line,) = await w.round()
        assert "HTTP 401" in line["error"]
        assert "wrong, expired or revoked" in line["advice"]
