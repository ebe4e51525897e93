"""An upstream that responds with anything at all: nothing crashes, nothing grows without bound, and
nothing but values gets into the exposition."""

import json
import re
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from structlog.testing import capture_logs

from exporter.app import App
from exporter.clock import Clock
from exporter.config.metrics import Metrics
from exporter.config.settings import Settings
from exporter.metrics.catalogue import WorkflowKey
from exporter.metrics.exposition import Exposition
from exporter.metrics.store import Store
from simulator import ManualClock
from tests.e2e.scrape import samples
from tests.exposed import show_at_once

PRIVATE = "private-params-outputs-and-messages"
INJECTED = "injected_metric"
TOKEN = "S3cr3t-t0ken"
LIMIT = 5

hostile_text = st.one_of(
    st.sampled_from(
        [
            f'"}} 1\n{INJECTED} 1\n# EOF\n',
            f"\\\n{INJECTED} 1",
            f'\\"}} 1\n{INJECTED}{{a="',
            f"\r\n{INJECTED} 1\r\n",
            f"\u2028{INJECTED} 1\x85{INJECTED} 1",
            "\x00",
            "\x1b[2J",
            "\ud800",
            "<script>alert(1)</script>",
            "../../..",
            "%0a%0d",
            "x" * 20_000,
            TOKEN,
            "",
        ]
    ),
    st.text(max_size=20),
)
rubbish = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        hostile_text,
        st.sampled_from([10**400, -1, 2**63, 1e308]),
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(hostile_text, inner, max_size=4),
    max_leaves=12,
)
times = st.sampled_from(
    [
        "2026-11-24T17:06:11.123Z",
        "2026-11-24T17:06:12Z",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        None,
        1732467971,
    ]
)


def often(usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """`usual`, but once in a while anything else: one thing is enough for a response to be refused
    as a whole."""
    return st.integers(0, 40).flatmap(lambda n: rubbish if n == 40 else usual)


statuses = often(st.sampled_from(["running", "errored", "complete", "queued", "waiting"]))
errors = often(
    st.none() | st.fixed_dictionaries({"name": hostile_text, "message": st.just(PRIVATE)})
)
attempts = st.fixed_dictionaries(
    {"start": often(times), "end": often(times), "success": often(st.booleans()), "error": errors}
)
steps = st.fixed_dictionaries(
    {
        "type": often(st.sampled_from(["step", "sleep", "waitForEvent", "rollback"])),
        "name": hostile_text | st.text(min_size=1, max_size=3).map(lambda name: f"{name}-1"),
        "start": often(times),
        "end": often(times),
        "success": often(st.booleans() | st.none()),
        "finished": often(st.booleans()),
        "output": st.just(PRIVATE),
        "error": errors,
        "attempts": often(st.lists(attempts, max_size=4)),
    }
)
instances = st.fixed_dictionaries(
    {
        "status": statuses,
        "queued": often(times),
        "start": often(times),
        "end": often(times),
        "success": often(st.booleans() | st.none()),
        "step_count": often(st.integers(0, 30)),
        "versionId": hostile_text,
        "trigger": often(st.fixed_dictionaries({"source": hostile_text})),
        "params": st.just({"secret": PRIVATE}),
        "output": st.just(PRIVATE),
        "error": errors,
        "steps": often(st.lists(steps, max_size=8)),
    }
)
rows = st.fixed_dictionaries(
    {
        "id": often(st.from_regex(r"[a-z]{1,2}", fullmatch=True)),
        "status": statuses,
        "created_on": often(times),
        "modified_on": often(times),
        "started_on": often(times),
        "ended_on": often(times),
        "version_id": hostile_text,
    }
)
workflows = st.fixed_dictionaries(
    {
        "name": often(st.just("orders")),
        "instances": often(
            st.dictionaries(st.sampled_from(["running", "errored"]) | hostile_text, rubbish)
        ),
    }
)
pages = st.fixed_dictionaries(
    {
        "page": rubbish,
        "per_page": rubbish,
        "count": rubbish,
        "total_count": rubbish,
        "cursor": hostile_text,
        "cursors": rubbish,
    }
)


@st.composite
def responses(draw: st.DrawFn, result: st.SearchStrategy[Any]) -> bytes:
    body = {
        "success": draw(st.sampled_from([True, True, True, False, "yes"])),
        "result": draw(result),
        "result_info": draw(st.none() | pages),
        "errors": draw(st.just([]) | rubbish),
        "messages": draw(st.just([]) | rubbish),
    }
    text = json.dumps(body).encode()
    return text if draw(st.integers(0, 9)) else draw(st.binary(max_size=50)) + text[:-1]


class Upstream:
    """Responds to each kind of request with what was drawn for it, by turns."""

    def __init__(self, draw: st.DataObject) -> None:
        many = st.lists(rows, max_size=8)
        self._bodies = {
            r".*/instances/[^/]+": draw.draw(
                st.lists(responses(often(instances)), min_size=3, max_size=4)
            ),
            r".*/instances": draw.draw(st.lists(responses(often(many)), min_size=2, max_size=4)),
            r".*/workflows": draw.draw(
                st.lists(responses(often(st.lists(workflows))), min_size=1, max_size=3)
            ),
            r".*": draw.draw(st.lists(responses(often(workflows)), min_size=1, max_size=3)),
        }
        self.requests = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        path = unquote(request.url.path)
        bodies = next(b for kind, b in self._bodies.items() if re.fullmatch(kind, path, re.DOTALL))
        return httpx.Response(200, content=bodies[self.requests % len(bodies)])


@pytest.mark.slow(25)
@given(st.data())
@settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
async def test_whatever_it_says(data: st.DataObject) -> None:
    upstream, clock = Upstream(data), ManualClock()
    app = App(
        Settings(
            accounts=[
                {
                    "name": "production",
                    "account_id": "acc",
                    "api_token": TOKEN,
                    "workflows": [
                        {
                            "name": "orders",
                            "instances": ["order-1"],
                            "discover": {"max_instances": LIMIT, "min_age": "0s"},
                        }
                    ],
                }
            ],
            # More than enough: with the clock in hand, nobody waits for the budget.
            api={"url": "https://api.test/{account_id}", "requests_per_5m": 1_000_000},
            metrics={"step_names": {"limit": LIMIT}, "error_names": {"limit": LIMIT}},
        ),
        transport=httpx.MockTransport(upstream),
        clock=Clock(wall=clock, monotonic=clock),
    )
    with capture_logs() as logs:
        async with app.opened():
            for _ in range(3):
                for account in app.accounts:
                    await account.list_passes()
                for poller in app.pollers:
                    await poller.round(whole=True)
                clock.advance(300)
        text = app.exposition.render()[0].decode()
        open_metrics = app.exposition.render("application/openmetrics-text")[0].decode()
    assert_sound(text)
    list(openmetrics_families(open_metrics))  # type: ignore[no-untyped-call]
    assert upstream.requests < 1000
    assert not [entry for entry in logs if "exc_info" in entry], "a fault of the exporter"
    logged = json.dumps(logs, default=str)
    assert PRIVATE not in logged
    assert TOKEN not in logged
    assert len(logged) < 100_000


def assert_sound(text: str) -> None:
    """Parses; has only the exporter's own names and labels, so many series, and no private text."""
    found = samples(text)
    assert PRIVATE not in text
    assert all(re.match(r"cloudflare_|process_|python_", name) for name, _ in found)
    assert len(found) < 3000
    values: dict[str, set[str]] = {}
    for name, labels in found:
        if not name.startswith("cloudflare_"):
            continue
        for label, value in labels:
            values.setdefault(label, set()).add(value)
    assert values.keys() <= LABELS
    # The configured instance, other, and none.
    assert len(values.get("instance_id", ())) <= LIMIT + 1
    assert len(values.get("step", ())) <= LIMIT + 2
    assert len(values.get("error_name", ())) <= LIMIT + 2
    assert max(map(len, set().union(*values.values()))) <= LONGEST_LABEL


LONGEST_LABEL = 256
LABELS = {
    "account",
    "workflow",
    "instance_id",
    "status",
    "version_id",
    "trigger",
    "error_name",
    "step",
    "step_type",
    "outcome",
    "le",
    "endpoint",
    "code",
    "kind",
    "result",
    "version",
    "python_version",
}


def test_an_endless_supply_of_new_words_ends_in_other() -> None:
    """Those of tomorrow are shown under their own names, in moderation."""
    store = Store(Metrics())
    workflow = WorkflowKey("production", "orders")
    store.attached(workflow)
    for n in range(1000):
        counts = {"status-0": 1, f"status-{n}": 1, f"more-{n}": 2, "running": 3}
        store.counts(workflow, counts)
    exposition = Exposition(store)
    show_at_once(exposition, store.take())
    found = samples(exposition.render()[0].decode(), "cloudflare_workflow_instances")
    shown = {dict(labels)["status"]: count for (_, labels), count in found.items()}
    assert len(shown) < 60
    assert (shown["running"], shown["status-0"], shown["other"]) == (3, 1, 3)


def test_the_checks_notice_an_injection() -> None:
    with pytest.raises(AssertionError):
        assert_sound(f"{INJECTED} 1\n")
