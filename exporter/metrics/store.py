"""What `/metrics` shows: takes what the watch learns, holds it until it is scraped."""

import platform
from collections.abc import Callable, Iterable

from exporter import __version__
from exporter.cloudflare.errors import FAILURES
from exporter.metrics import catalogue, instances
from exporter.metrics.catalogue import Family
from exporter.metrics.labels import StepLabels
from exporter.metrics.series import Labels, Series
from exporter.settings import Metrics
from exporter.watch.sink import WorkflowKey
from exporter.watch.tracker import Observations, Tracked

_ENDINGS = ("complete", "errored", "terminated")
_KINDS = ("simple", "detail")
_HIDDEN_WHEN_UNFINISHED = frozenset({"complete", "terminated"})
# Seconds; a call to the API takes 50 to 500 ms, and api.timeout bounds it.
_API_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Store:
    """The sink that the watch fills (`exporter.watch.sink.Sink`).

    Each method takes effect as a whole between two scrapes, since nothing in it waits.

    Args:
        settings: What to show and how.
    """

    def __init__(self, settings: Metrics) -> None:
        self._settings = settings
        self._rules = [(rule.regex, rule.replacement) for rule in settings.step_names.rewrite]
        buckets = settings.buckets
        self.series = Series(
            {
                catalogue.RUN_DURATIONS: buckets.run_duration_seconds,
                catalogue.QUEUE_DURATIONS: buckets.queue_duration_seconds,
                catalogue.STEP_DURATIONS: buckets.step_duration_seconds,
                catalogue.ATTEMPT_DURATIONS: buckets.step_attempt_duration_seconds,
                catalogue.STEP_ATTEMPTS: buckets.step_attempts,
                catalogue.API_DURATION: _API_SECONDS,
            }
        )
        self.instances: dict[tuple[WorkflowKey, str], list[instances.Sample]] = {}
        self._seen: dict[WorkflowKey, set[str]] = {}
        self._labels: dict[WorkflowKey, StepLabels] = {}
        self.lag: Callable[[], float] = lambda: 0.0
        """Asked at each scrape for `poll_lag_seconds`."""
        self._start()

    def _start(self) -> None:
        self.series.set(catalogue.BUILD_INFO, (__version__, platform.python_version()), 1)
        self.series.zero(
            catalogue.POLLS,
            [(kind, result) for kind in _KINDS for result in ("success", *FAILURES)],
        )
        self.series.zero(catalogue.API_DURATION, [("instance",)])
        self.series.zero(catalogue.STEP_NAMES_DROPPED, [()])

    def configured(self, *, successful: bool, at: float | None = None) -> None:
        """The configuration was loaded (at Unix time `at`), or could not be."""
        self.series.set(catalogue.CONFIG_SUCCESSFUL, (), successful)
        if at is not None:
            self.series.set(catalogue.CONFIG_SUCCESS_TIME, (), at)

    def watch(self, workflow: WorkflowKey) -> None:
        """Shows a workflow's series at 0 from the start."""
        self._seen[workflow] = set()
        self._labels[workflow] = StepLabels(self._rules, limit=self._settings.step_names.limit)
        endings = [(*workflow, status) for status in _ENDINGS]
        self.series.zero(catalogue.RUNS_FINISHED, endings)
        self.series.zero(catalogue.RUN_DURATIONS, endings)
        for family in (
            catalogue.QUEUE_DURATIONS,
            catalogue.WATCHED,
            catalogue.UP,
            catalogue.LAST_SUCCESS,
        ):
            self.series.zero(family, [workflow])

    def moved(
        self, workflow: WorkflowKey, instance_id: str, tracked: Tracked, last_change: float
    ) -> None:
        figures, label = tracked.figures, self._labels[workflow]
        self._observe(workflow, tracked.observations)
        self._seen[workflow].add(instance_id)
        self.series.set(catalogue.WATCHED, workflow, len(self._seen[workflow]))
        if self._settings.instance_series == "none" or (
            self._settings.instance_series == "unfinished"
            and figures.status in _HIDDEN_WHEN_UNFINISHED
        ):
            self.instances.pop((workflow, instance_id), None)
        else:
            self.instances[workflow, instance_id] = list(
                instances.samples(figures, last_change, label)
            )

    def forgotten(self, workflow: WorkflowKey, instance_id: str) -> None:
        self.instances.pop((workflow, instance_id), None)
        self._seen[workflow].discard(instance_id)
        self.series.set(catalogue.WATCHED, workflow, len(self._seen[workflow]))

    def polled(self, kind: str, result: str) -> None:
        self.series.add(catalogue.POLLS, (kind, result))

    def round_over(self, workflow: WorkflowKey, *, up: bool, at: float) -> None:
        self.series.set(catalogue.UP, workflow, up)
        if up:
            self.series.set(catalogue.LAST_SUCCESS, workflow, at)

    def called(self, account: str, endpoint: str, code: str, seconds: float) -> None:
        """A call to the API was made."""
        self.series.add(catalogue.API_REQUESTS, (account, endpoint, code))
        self.series.observe(catalogue.API_DURATION, (endpoint,), seconds)

    def _observe(self, workflow: WorkflowKey, new: Observations) -> None:
        series = self.series
        if new.queue_duration is not None:
            series.observe(catalogue.QUEUE_DURATIONS, workflow, new.queue_duration)
        if new.run is not None:
            ending = (*workflow, new.run.status)
            series.add(catalogue.RUNS_FINISHED, ending)
            if new.run.duration is not None:
                series.observe(catalogue.RUN_DURATIONS, ending, new.run.duration)
        for step in new.steps:
            labels = (*workflow, self._step(workflow, step.name))
            series.observe(
                catalogue.STEP_DURATIONS, (*labels, step.type, step.outcome), step.duration
            )
            if step.attempts is not None:
                series.observe(catalogue.STEP_ATTEMPTS, (*labels, step.outcome), step.attempts)
        for attempt in new.attempts:
            labels = (*workflow, self._step(workflow, attempt.step))
            series.observe(
                catalogue.ATTEMPT_DURATIONS, (*labels, attempt.outcome), attempt.duration
            )

    def _step(self, workflow: WorkflowKey, name: str) -> str:
        return self._labels[workflow](
            name, on_other=lambda: self.series.add(catalogue.STEP_NAMES_DROPPED, ())
        )

    def samples(self) -> dict[Family, Iterable[tuple[Labels, float]]]:
        """Everything but histograms, as of now, by family."""
        self.series.set(catalogue.POLL_LAG, (), self.lag())
        shown: dict[Family, list[tuple[Labels, float]]] = {}
        for (workflow, instance_id), block in self.instances.items():
            prefix = (*workflow, instance_id)
            for family, labels, value in block:
                shown.setdefault(family, []).append(((*prefix, *labels), value))
        return {**{f: s.items() for f, s in self.series.values.items()}, **shown}
