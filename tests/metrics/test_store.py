"""The store and its exposition."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter.cloudflare.models import (
    Attempt,
    Detail,
    Error,
    Retries,
    Step,
    StepConfig,
    Trigger,
)
from exporter.config.metrics import Metrics
from exporter.instances.run_tracker import track
from exporter.metrics import catalogue
from exporter.metrics.catalogue import WorkflowKey
from exporter.metrics.exposition import Exposition
from exporter.metrics.store import Store
from tests.exposed import show_at_once

FORMATS: tuple[tuple[str, Callable[[str], Iterable[Metric]]], ...] = (
    ("", parse_text),
    ("application/openmetrics-text", openmetrics.text_string_to_metric_families),
)
ORDERS = WorkflowKey("acc", "orders")
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class Shown(Store):
    """A store, and what a scrape of it sees."""

    def __init__(self, settings: Metrics) -> None:
        super().__init__(settings)
        self._exposition = Exposition(self)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        show_at_once(self._exposition, self.take())
        return self._exposition.render(accept)


def shown(store: Shown, name: str) -> dict[tuple[str, ...], float]:
    """Samples of a name, by the values of their labels but account and workflow, in order."""
    body, _ = store.render()
    return {
        tuple(v for k, v in sorted(s.labels.items()) if k not in ("account", "workflow")): s.value
        for family in parse_text(body.decode())
        for s in family.samples
        if s.name == name
    }


def watching(settings: Metrics | None = None) -> Shown:
    store = Shown(settings or Metrics())
    store.attached(ORDERS)
    return store


def put(
    store: Store, instance_id: str, *steps: Step, status: str = "running", **more: object
) -> None:
    detail = Detail(queued=EPOCH, status=status, steps=list(steps), **more)  # type: ignore[arg-type]
    tracked = track(None, detail, now=EPOCH.timestamp() + 3600)
    assert tracked is not None
    store.counted(ORDERS, instance_id, tracked.observations)
    store.shown(ORDERS, instance_id, tracked.values, EPOCH.timestamp())


def open_step(name: str, attempts: int, second: int) -> Step:
    start = EPOCH + timedelta(seconds=second)
    return Step("step", name, start, attempts=[Attempt(start)] * attempts)


class TestInstances:
    def test_each_metric_of_the_catalogue_is_there(self) -> None:
        store = watching()
        limited = StepConfig(Retries(3))
        put(store, "a", Step("step", "pay-1", EPOCH, attempts=[Attempt(EPOCH)], config=limited))
        put(store, "b", status="errored", start=EPOCH, end=EPOCH, error=Error("Boom"))
        families = parse_text(store.render()[0].decode())
        there = {sample.name for family in families for sample in family.samples}
        of_instances = {f.name for f in catalogue.FAMILIES if "instance_id" in f.labels}
        assert of_instances - there == set()

    def test_every_known_status_is_there_and_an_unknown_one_under_its_name(self) -> None:
        store = watching()
        put(store, "a", status="archived")
        statuses = shown(store, "cloudflare_workflow_instance_status")
        assert {status for (_, status), value in statuses.items() if value == 1} == {"archived"}
        assert {status for (_, status), value in statuses.items() if value == 0} == {
            "queued",
            "running",
            "paused",
            "errored",
            "terminated",
            "complete",
            "waitingForPause",
            "waiting",
            "rollingBack",
        }

    def test_open_steps_of_one_name_are_one_series(self) -> None:
        """Attempts added, the earliest start."""
        store = watching()
        put(store, "a", open_step("par-1", 2, 20), open_step("par-2", 1, 10))
        assert shown(store, "cloudflare_workflow_instance_current_step_attempts") == {
            ("a", "par", "step"): 3
        }
        assert shown(
            store, "cloudflare_workflow_instance_current_step_start_timestamp_seconds"
        ) == {("a", "par", "step"): EPOCH.timestamp() + 10}

    def test_all_outcomes_of_attempts_are_always_there(self) -> None:
        store = watching()
        put(store, "a")
        assert shown(store, "cloudflare_workflow_instance_attempts") == {
            ("a", "success"): 0,
            ("a", "failure"): 0,
            ("a", "running"): 0,
        }

    @pytest.mark.parametrize(
        ("which", "left"),
        [("all", {"r", "c", "t", "e"}), ("unfinished", {"r", "e"}), ("none", set())],
    )
    def test_whose_series_are_shown(self, which: str, left: set[str]) -> None:
        store = watching(Metrics.model_validate({"instance_series": which}))
        for name, status in (
            ("r", "running"),
            ("c", "complete"),
            ("t", "terminated"),
            ("e", "errored"),
        ):
            put(store, name, status="running")
            put(store, name, status=status)
        assert {i for (i,) in shown(store, "cloudflare_workflow_instance_retries")} == left

    def test_of_an_expired_instance_only_its_counts_stay(self) -> None:
        store = watching()
        put(store, "a", status="complete")
        store.removed(ORDERS, "a")
        assert not shown(store, "cloudflare_workflow_instance_status")
        assert shown(store, "cloudflare_workflow_runs_finished_total")["complete",] == 1


class TestZeros:
    """`increase()` doesn't see a series that begins at 1."""

    def test_of_every_counter_but_those_of_steps_and_events(self) -> None:
        """A step's begin with its name, those of events with an account that has events."""
        store = watching()
        store.account_found("acc")
        body = store.render()[0].decode()
        begun = {family.name for family in parse_text(body) if family.samples}
        counters = {f for f in catalogue.FAMILIES if f.kind in ("counter", "histogram")}
        assert {f for f in counters if f.name.removesuffix("_total") not in begun} == {
            catalogue.STEP_DURATIONS,
            catalogue.STEP_ATTEMPTS,
            catalogue.ATTEMPT_DURATIONS,
            catalogue.EVENTS,
            catalogue.EVENT_DELAY,
        }

    def test_of_every_endpoint_and_the_codes_that_alerts_ask_for(self) -> None:
        store = Shown(Metrics())
        store.account_found("acc")
        requests = shown(store, "cloudflare_workflows_exporter_api_requests_total")
        endpoints = {"instance", "instances", "workflow", "workflows", "versions"}
        codes = {"200", "401", "403", "404", "429", "500", "timeout"}
        assert requests == {(code, endpoint): 0 for code in codes for endpoint in endpoints}
        durations = shown(store, "cloudflare_workflows_exporter_api_request_duration_seconds_count")
        assert durations == {(endpoint,): 0 for endpoint in endpoints}

    def test_of_an_open_step_before_it_or_an_attempt_fails(self) -> None:
        store = watching()
        attempt = Attempt(EPOCH, None, None)
        put(store, "x", Step("step", "pay-1", EPOCH, attempts=[attempt]), Step("sleep", "nap-1"))
        prefix = "cloudflare_workflow_step"
        outcomes = {("failure", "pay"): 0, ("success", "pay"): 0}
        assert shown(store, f"{prefix}_attempt_duration_seconds_count") == outcomes
        assert shown(store, f"{prefix}_attempts_count") == outcomes
        assert shown(store, f"{prefix}_duration_seconds_count") == {
            (outcome, step, kind): 0
            for outcome in ("success", "failure")
            for step, kind in (("pay", "step"), ("nap", "sleep"))
        }

    def test_of_the_outcome_that_a_step_did_not_have(self) -> None:
        store = watching()
        put(store, "x", Step("step", "pay-1", EPOCH, attempts=[Attempt(EPOCH, EPOCH, False)]))
        counts = shown(store, "cloudflare_workflow_step_attempt_duration_seconds_count")
        assert counts == {("failure", "pay"): 1, ("success", "pay"): 0}


class TestWorkflows:
    def test_everything_known_is_zero_from_the_start(self) -> None:
        store = watching()
        zero = {("complete",): 0, ("errored",): 0, ("terminated",): 0}
        assert shown(store, "cloudflare_workflow_runs_finished_total") == zero
        assert shown(store, "cloudflare_workflow_run_duration_seconds_count") == zero
        assert shown(store, "cloudflare_workflow_queue_duration_seconds_count") == {(): 0}
        assert shown(store, "cloudflare_workflow_up") == {(): 0}
        polls = shown(store, "cloudflare_workflows_exporter_polls_total")
        assert len(polls) == 33
        assert set(polls.values()) == {0}

    def test_step_names_past_the_limit_are_other_and_counted(self) -> None:
        store = watching(Metrics.model_validate({"step_names": {"limit": 1}}))
        done = [
            Step("step", name, EPOCH, EPOCH, True, attempts=[Attempt(EPOCH, EPOCH, True)])
            for name in ("a-1", "b-1", "c-1")
        ]
        put(store, "x", *done)
        counts = shown(store, "cloudflare_workflow_step_duration_seconds_count")
        assert counts == {
            ("success", "a", "step"): 1,
            ("failure", "a", "step"): 0,
            ("success", "other", "step"): 2,
            ("failure", "other", "step"): 0,
        }
        assert shown(store, "cloudflare_workflows_exporter_step_names_dropped_total") == {(): 4}

    def test_error_names_are_rewritten_and_limited_too(self) -> None:
        names = {"limit": 1, "rewrite": [{"regex": "Error-[0-9]+", "replacement": "Error"}]}
        store = watching(Metrics.model_validate({"error_names": names}))
        put(store, "a", error=Error("PayError-17"))
        put(store, "b", error=Error("PayError-18"))
        put(store, "c", error=Error("TypeError"))
        assert set(shown(store, "cloudflare_workflow_instance_error_info")) == {
            ("PayError", "a", ""),
            ("PayError", "b", ""),
            ("other", "c", ""),
        }

    def test_buckets_are_the_configured_ones(self) -> None:
        store = watching(Metrics.model_validate({"buckets": {"queue_duration_seconds": [7]}}))
        assert set(shown(store, "cloudflare_workflow_queue_duration_seconds_bucket")) == {
            ("7.0",),
            ("+Inf",),
        }


ANY_TEXT = st.text(max_size=12)


class TestExposition:
    @pytest.mark.slow
    @given(ANY_TEXT, ANY_TEXT, ANY_TEXT, ANY_TEXT)
    def test_any_text_survives_in_both_formats(
        self, step: str, version: str, trigger: str, error: str
    ) -> None:
        """Names are customers' own: quotes, newlines, control characters and all."""
        store = watching()
        put(
            store,
            "a",
            open_step(step or "x", 1, 0),
            version_id=version,
            trigger=Trigger(trigger),
            error=Error(error),
        )
        for accept, parse in FORMATS:
            body, _ = store.render(accept)
            samples = [s for family in parse(body.decode()) for s in family.samples]
            info = next(s for s in samples if s.name == "cloudflare_workflow_instance_info")
            assert info.labels["version_id"] == version
            assert info.labels["trigger"] == (trigger or "unknown")
            failed = next(s for s in samples if s.name == "cloudflare_workflow_instance_error_info")
            assert failed.labels["error_name"] == (error or "Error")

    def test_both_formats_hold_the_same_samples(self) -> None:
        store = watching()
        put(store, "a", open_step("pay-1", 1, 0), status="running", start=EPOCH)
        text, openmetrics = (
            {
                (s.name, tuple(sorted(s.labels.items()))): s.value
                for family in parse(store.render(accept)[0].decode())
                for s in family.samples
                if s.name.startswith("cloudflare")
            }
            for accept, parse in FORMATS
        )
        assert text == openmetrics

    def test_types(self) -> None:
        store = watching()
        families = {
            f.name: f.type
            for accept, parse in FORMATS[1:]
            for f in parse(store.render(accept)[0].decode())
        }
        assert families["cloudflare_workflow_instance"] == "info"
        assert families["cloudflare_workflow_instance_status"] == "gauge"
        assert families["cloudflare_workflow_runs_finished"] == "counter"
        assert families["cloudflare_workflow_step_duration_seconds"] == "histogram"

    @pytest.mark.parametrize(
        ("accept", "wanted"),
        [
            ("", False),
            ("*/*", False),
            ("text/html,*/*;q=0.8", False),
            ("application/openmetrics-text", True),
            ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.4", True),
            ("text/plain;version=0.0.4;q=0.5,application/openmetrics-text;q=0.4", False),
            ("application/openmetrics-text;q=0", False),
            ("application/openmetrics-text;q=x", False),
            # What Prometheus 3 sends.
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
                "application/openmetrics-text;version=0.0.1;q=0.5,"
                "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
                "text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                True,
            ),
        ],
    )
    def test_the_format_is_the_scrapers_choice(self, accept: str, wanted: bool) -> None:
        body, content_type = watching().render(accept)
        assert body.endswith(b"# EOF\n") == wanted
        assert content_type.startswith("application/openmetrics-text" if wanted else "text/plain")


class TestCatalogue:
    def test_no_name_is_there_twice(self) -> None:
        names = [family.name for family in catalogue.FAMILIES]
        assert len(names) == len(set(names))

    def test_instances_are_never_labelled_instance_or_type(self) -> None:
        """Prometheus' own conventions keep these names, but an event has a type of its own."""
        named = {f for f in catalogue.FAMILIES if {"instance", "type", "job"} & {*f.labels}}
        assert named == {catalogue.EVENTS}
        assert catalogue.EVENTS.labels == ("account", "type", "result")


def test_the_current_status_alone_can_be_shown() -> None:
    store = watching(Metrics(instance_status="current"))
    put(store, "a", status="running")
    assert set(shown(store, "cloudflare_workflow_instance_status")) == {("a", "running")}
    put(store, "a", status="complete")
    assert shown(store, "cloudflare_workflow_instance_status") == {("a", "complete"): 1}
