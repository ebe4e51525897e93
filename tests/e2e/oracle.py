"""What `/metrics` must show, worked out from the engine's raw JSON and from nothing else.

Written from the contract and not from the exporter's code, and simpler than it can be: the last
response of each run, all at once, without any memory. What an instance failed with and at which
step the JSON doesn't say outright; the scenario has it.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from exporter.cloudflare.errors import FAILURE_REASONS
from tests.e2e.scrape import Samples

Result = dict[str, Any]
"""An instance as the API's `result` has it."""

STATUSES = (
    "queued",
    "running",
    "paused",
    "errored",
    "terminated",
    "complete",
    "waitingForPause",
    "waiting",
    "rollingBack",
)
ENDED = ("complete", "errored", "terminated")
OUTCOMES = ("success", "failure", "running")

BUCKETS: dict[str, list[float]] = {
    "run_duration_seconds": [0.05, 0.5, 2, 3600],
    "queue_duration_seconds": [0.001, 0.1, 1],
    "step_duration_seconds": [0.005, 0.01, 0.02, 0.5, 1, 1.1, 5],
    "step_attempt_duration_seconds": [0.005, 0.01, 0.02, 0.5, 1, 1.1, 5],
    "step_attempts": [1, 2, 3, 5],
}
"""Upper bounds among which what the engine acts out falls on several sides."""


@dataclass(frozen=True)
class Failure:
    """The name of the error that an instance has, and the step it failed at (without counter)."""

    error: str
    step: str = ""


def milliseconds(text: str | None) -> int | None:
    """Of a time since 1970, in whole milliseconds, as precise as the engine writes it."""
    if text is None:
        return None
    moment = datetime.fromisoformat(text)
    return int(moment.replace(microsecond=0).timestamp()) * 1000 + moment.microsecond // 1000


def between(start: str | None, end: str | None) -> float | None:
    """Seconds."""
    begun, ended = milliseconds(start), milliseconds(end)
    return None if begun is None or ended is None else (ended - begun) / 1000


def label(step_name: str) -> str:
    return re.sub(r"-\d+$", "", step_name)


def step_outcome(step: Result) -> str:
    if step["type"] == "step":
        if step["end"] is None:
            return "running"
        return "success" if step["success"] else "failure"
    if not step["finished"]:
        return "running"
    return "failure" if step["error"] else "success"


def attempt_outcome(attempt: Result) -> str:
    if attempt["end"] is None:
        return "running"
    return "success" if attempt["success"] else "failure"


class Add(Protocol):
    """Adds a sample of one instance."""

    def __call__(self, name: str, value: float, **labels: str) -> None: ...


def _le(bound: float) -> str:
    return "+Inf" if bound == float("inf") else str(float(bound))


class Expected:
    """Collects the samples of one workflow."""

    def __init__(self, account: str, workflow: str) -> None:
        self.samples: Samples = {}
        self._own = {"account": account, "workflow": workflow}

    def add(self, name: str, value: float, **labels: str) -> None:
        key = f"cloudflare_workflow_{name}", frozenset({**self._own, **labels}.items())
        assert key not in self.samples
        self.samples[key] = value

    def histogram(self, name: str, values: list[float], **labels: str) -> None:
        for bound in [*BUCKETS[name], float("inf")]:
            count = sum(value <= bound for value in values)
            self.add(f"{name}_bucket", count, le=_le(bound), **labels)
        self.add(f"{name}_count", len(values), **labels)
        self.add(f"{name}_sum", sum(values), **labels)

    def instance(
        self, instance_id: str, result: Result, failure: Failure | None, *, last_change: float
    ) -> None:
        """The gauges of one instance."""
        status, steps = result["status"], result["steps"]

        def add(name: str, value: float, **labels: str) -> None:
            self.add(f"instance_{name}", value, instance_id=instance_id, **labels)

        for each in {*STATUSES, status}:
            add("status", each == status, status=each)
        # The local engine reports neither; the hosted API does.
        add("info", 1, version_id="", trigger="unknown")
        assert (failure is None) == (result["error"] is None)
        if failure is not None:
            add("error_info", 1, error_name=failure.error, step=failure.step)
        add("step_count", result["step_count"])
        self._work(add, steps)
        if status not in ENDED:
            self._current_steps(add, steps)
        self._times(add, result)
        add("last_change_timestamp_seconds", last_change)

    def _work(self, add: Add, steps: list[Result]) -> None:
        attempts = [attempt for step in steps for attempt in step.get("attempts", [])]
        for kind in {"step"} | {step["type"] for step in steps}:
            for outcome in OUTCOMES:
                same = [s for s in steps if (s["type"], step_outcome(s)) == (kind, outcome)]
                add("steps", len(same), step_type=kind, outcome=outcome)
        for outcome in OUTCOMES:
            same = [a for a in attempts if attempt_outcome(a) == outcome]
            add("attempts", len(same), outcome=outcome)
        add("retries", len(attempts) - sum(bool(step.get("attempts")) for step in steps))

    def _times(self, add: Add, result: Result) -> None:
        for name in ("queued", "start", "end"):
            at = milliseconds(result[name])
            if at is not None:
                add(f"{name}_timestamp_seconds", at / 1000)
        waited = between(result["queued"], result["start"])
        if waited is not None:
            add("queue_duration_seconds", waited)
        took = between(result["start"], result["end"])
        if took is not None:
            add("run_duration_seconds", took)

    def _current_steps(self, add: Add, steps: list[Result]) -> None:
        by_label = defaultdict(list)
        for step in steps:
            if step_outcome(step) == "running":
                by_label[label(step["name"]), step["type"]].append(step)
        for (name, kind), same in by_label.items():
            attempts = sum(len(step.get("attempts", [])) for step in same)
            start = min(milliseconds(step["start"]) or 0 for step in same)
            add("current_step_attempts", attempts, step=name, step_type=kind)
            add("current_step_start_timestamp_seconds", start / 1000, step=name, step_type=kind)
            if kind == "step":
                limit = sum(step["config"]["retries"]["limit"] for step in same)
                add("current_step_retry_limit", limit, step=name)

    def counts(self, runs: Iterable[Result]) -> None:
        """Counters and histograms, given the last response of each run that was seen."""
        runs = list(runs)
        ended = [run for run in runs if run["status"] in ENDED]
        for status in ENDED:
            took = [between(run["start"], run["end"]) for run in ended if run["status"] == status]
            self.add("runs_finished_total", len(took), status=status)
            self.histogram(
                "run_duration_seconds", [t for t in took if t is not None], status=status
            )
        waited = [between(run["queued"], run["start"]) for run in runs]
        self.histogram("queue_duration_seconds", [w for w in waited if w is not None])
        self._steps([step for run in runs for step in run["steps"]])

    def _steps(self, steps: list[Result]) -> None:
        durations, tries, attempts = (defaultdict[Any, list[float]](list) for _ in range(3))
        # At 0 before there is one, since `increase()` doesn't see what begins at 1.
        of = {(label(s["name"]), s["type"], end) for s in steps for end in ("success", "failure")}
        durations.update((key, []) for key in of)
        tries.update(((name, end), []) for name, kind, end in of if kind == "step")
        attempts.update((key, []) for key in tries)
        for step in steps:
            name, outcome = label(step["name"]), step_outcome(step)
            if outcome != "running":
                took = between(step["start"], step["end"])
                assert took is not None
                durations[name, step["type"], outcome].append(took)
                if step["type"] == "step":
                    tries[name, outcome].append(len(step["attempts"]))
            for attempt in step.get("attempts", []):
                took = between(attempt["start"], attempt["end"])
                if took is not None:
                    attempts[name, attempt_outcome(attempt)].append(took)
        for (name, kind, outcome), values in durations.items():
            labels = {"step": name, "step_type": kind, "outcome": outcome}
            self.histogram("step_duration_seconds", values, **labels)
        for (name, outcome), values in tries.items():
            self.histogram("step_attempts", values, step=name, outcome=outcome)
        for (name, outcome), values in attempts.items():
            self.histogram("step_attempt_duration_seconds", values, step=name, outcome=outcome)

    def watch(self, *, watched: list[Result], last_success: float) -> None:
        """What the exporter shows of its own watching, while all goes well."""
        self.add("up", 1)
        self.add("data_timestamp_seconds", last_success)
        self.add("steps_data_timestamp_seconds", last_success)
        for failure in FAILURE_REASONS:
            self.add("failing_instances", 0, result=failure)
        statuses = Counter(result["status"] for result in watched)
        for status in {*STATUSES, *statuses}:
            self.add("watched_instances", statuses[status], status=status)
        self.add("details_skipped_total", 0)
        self.add("last_success_timestamp_seconds", last_success)


def retried(result: Result) -> Counter[str]:
    """Attempts by outcome; for conditions to wait for."""
    attempts = (a for step in result["steps"] for a in step.get("attempts", []))
    return Counter(attempt_outcome(attempt) for attempt in attempts)
