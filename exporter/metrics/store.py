"""Turns what the exporter learns into the values of metrics, for the state and for scrapes."""

import platform
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Literal, get_args

from exporter import __version__
from exporter.cloudflare.errors import FAILURE_REASONS, FailureReason, RequestFailed
from exporter.cloudflare.event_queue import KINDS
from exporter.cloudflare.models import TIMERS, WorkflowVersion
from exporter.config.metrics import Metrics, Names
from exporter.instances.run import Observations
from exporter.instances.values import InstanceValues
from exporter.metrics import catalogue
from exporter.metrics.catalogue import FAMILIES, EventResult, Family, PollKind, WorkflowKey
from exporter.metrics.instance_samples import InstanceSamples, Sample
from exporter.metrics.labels import InstanceLabels, LimitedLabel, StepLabel
from exporter.metrics.series import Changes, LabelValues, Series, SeriesData
from exporter.statuses import ENDED_WITHOUT_ERROR, STATUSES

_MAX_WORDS = 50
"""Maximum distinct statuses and types of steps: there are only a few, but the API may send any
text."""


class Store:
    """The values of all metrics.

    Most methods are named for what has happened; they take what the metrics are to show of it. Each
    takes effect as a whole between two scrapes, since none of them awaits anything.

    Args:
        settings: Which series to show, with which labels and buckets.
        clock: Returns Unix time.
    """

    def __init__(self, settings: Metrics, clock: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self._clock = clock
        self.series = Series(_bounds(settings), clock)
        self._changed = defaultdict[WorkflowKey, dict[str, Iterable[Sample] | None]](dict)
        self.accounts: set[str] = set()
        """Labels of the watched accounts."""
        self._labels: dict[WorkflowKey, InstanceLabels] = {}
        """The labels of the instances of each workflow that is attached."""
        self._instances: dict[WorkflowKey, set[str]] = {}
        """The ids of those that have series."""
        self._words = LimitedLabel(Names(limit=_MAX_WORDS))
        self._words.labels.update(STATUSES)
        self._statuses = dict.fromkeys(STATUSES)
        self.series.set(catalogue.BUILD_INFO, (__version__, platform.python_version()), 1)
        self._zero()

    def use(self, settings: Metrics) -> None:
        """Changes the settings; only while no workflow is attached."""
        self.settings, self.series.bounds = settings, _bounds(settings)
        self.series.touch()

    def _zero(self, *owner: str) -> None:
        """Creates the series at 0 of an account or a workflow or, without an owner, of the
        process."""
        for family in FAMILIES:
            values = family.zeros
            if values is not None and len(family.labels) == len(owner) + len(values):
                self.series.zero(family, [(*owner, *labels) for labels in product(*values)])

    def configured(self, *, successful: bool, at: float | None = None) -> None:
        """The configuration was loaded at Unix time `at`, or could not be loaded."""
        self.series.set(catalogue.CONFIG_SUCCESSFUL, (), successful)
        if at is not None:
            self.series.set(catalogue.CONFIG_SUCCESS_TIME, (), at)

    @property
    def workflows(self) -> Collection[WorkflowKey]:
        """The workflows that have series."""
        return self._labels.keys()

    def attached(self, workflow: WorkflowKey) -> None:
        """A workflow is attached, and its series begin."""
        step, error = StepLabel(self.settings.step_names), LimitedLabel(self.settings.error_names)
        self._labels[workflow] = InstanceLabels(step, error, self._words)
        self._instances[workflow] = set()
        self._zero(*workflow)

    def detached(self, workflow: WorkflowKey) -> None:
        """A workflow is detached, and its series are removed."""
        del self._labels[workflow]
        self._changed[workflow].update(dict.fromkeys(self._instances.pop(workflow)))
        self.series.drop(*workflow)

    def counts(self, workflow: WorkflowKey, counts: Mapping[str, int]) -> None:
        """The platform has these counts of a workflow's instances by status."""
        self._set_by_status(catalogue.INSTANCES, workflow, counts)

    def limits(self, workflow: WorkflowKey, newest: WorkflowVersion) -> None:
        """A workflow's newest version has these limits; it may lack some that older ones had."""
        steps = newest.limits.steps if newest.limits else None
        self.series.set(catalogue.STEP_LIMIT, workflow, steps)
        running = newest.concurrency.limit if newest.concurrency else None
        self.series.set(catalogue.CONCURRENCY_LIMIT, workflow, running)

    def shown(
        self, workflow: WorkflowKey, instance_id: str, values: InstanceValues, last_change: float
    ) -> None:
        """An instance has these values now; they last changed at this Unix time."""
        labels = self._labels[workflow]
        self._instances[workflow].add(instance_id)
        for step in values.open_steps:
            name = (*workflow, labels.step(step.name))
            self._zero_outcomes(catalogue.STEP_DURATIONS, (*name, labels.word(step.type)))
            if step.type not in TIMERS:
                self._zero_outcomes(catalogue.STEP_ATTEMPTS, name)
                self._zero_outcomes(catalogue.ATTEMPT_DURATIONS, name)
        series, status = self.settings.instance_series, self.settings.instance_status
        finished = values.status in ENDED_WITHOUT_ERROR
        hidden = series == "none" or (series == "unfinished" and finished)
        family = catalogue.CURRENT_STATUS if status == "current" else catalogue.STATUS
        samples = InstanceSamples(values, last_change, labels, family)
        self._changed[workflow][instance_id] = None if hidden else samples

    def removed(self, workflow: WorkflowKey, instance_id: str) -> None:
        """An instance no longer has series."""
        self._changed[workflow][instance_id] = None
        self._instances[workflow].discard(instance_id)

    def backfilled(self, workflow: WorkflowKey) -> None:
        """A run was counted that is history."""
        self.series.set(catalogue.BACKFILL_TIME, workflow, self._clock())

    def skipped(self, workflow: WorkflowKey) -> None:
        """A run expired whose steps were not fetched after its end."""
        self.series.count(catalogue.DETAILS_SKIPPED, workflow)

    def ignored(self, parts: int = 1) -> None:
        """Parts of a response could not be read."""
        self.series.count(catalogue.ROWS_IGNORED, (), parts)

    def dropped(self) -> None:
        """An instance has no series because of `max_instances`."""
        self.series.count(catalogue.INSTANCES_DROPPED, ())

    @contextmanager
    def poll(self, kind: PollKind) -> Iterator[None]:
        """Counts the request that is made within this context, by its result."""
        try:
            yield
        except RequestFailed as failure:
            self.polled(kind, failure.reason)
            raise
        self.polled(kind, "success")

    def polled(self, kind: PollKind, result: FailureReason | Literal["success"]) -> None:
        """A request had this result."""
        self.series.count(catalogue.POLLS, (kind, result))

    def reported(
        self,
        workflow: WorkflowKey,
        *,
        up: bool,
        as_of: float,
        steps_as_of: float,
        failing: Mapping[str, int],
        watched: Mapping[str, int],
    ) -> None:
        """A round over a workflow or a list pass of it has ended.

        Args:
            up: Whether the workflow can be read.
            as_of: Unix time as of which the status of the live instances is known.
            steps_as_of: The same of their steps.
            failing: Instances whose last poll failed, by class of failure.
            watched: Watched instances by status, with or without series.
        """
        for result in FAILURE_REASONS:
            self.series.set(catalogue.FAILING, (*workflow, result), failing.get(result, 0))
        self._set_by_status(catalogue.WATCHED, workflow, watched)
        self.series.set(catalogue.UP, workflow, up)
        self.series.set(catalogue.DATA_TIME, workflow, as_of)
        self.series.set(catalogue.STEPS_TIME, workflow, steps_as_of)
        if up:
            self.series.set(catalogue.LAST_SUCCESS, workflow, self._clock())

    def events_found(self, account: str) -> None:
        """An account's events are watched."""
        zero, endpoints = self.series.zero, catalogue.QUEUE_ENDPOINTS
        zero(catalogue.EVENTS, product([account], (*KINDS, ""), get_args(EventResult)))
        zero(catalogue.EVENT_DELAY, [()])
        zero(catalogue.API_REQUESTS, product([account], endpoints, catalogue.CODES))
        zero(catalogue.API_DURATION, product(endpoints))

    def event_seen(self, account: str, kind: str, result: EventResult) -> None:
        """A message of an account's queue had this result. Its kind is empty if it isn't one of
        `KINDS`, or can't be read."""
        if account in self.accounts:
            self.series.count(catalogue.EVENTS, (account, kind, result))

    def event_shown(self, seconds: float) -> None:
        """What an event announced was shown this many seconds after it happened."""
        self.series.count(catalogue.EVENT_DELAY, (), seconds)

    def _set_by_status(
        self, family: Family, workflow: WorkflowKey, counts: Mapping[str, int]
    ) -> None:
        """Sets a gauge for every status, also at 0 for those that are known or were ever seen."""
        shown = dict.fromkeys(self._statuses, 0)
        for status, count in counts.items():
            shown[self._words(status)] = shown.get(self._words(status), 0) + count
        self._statuses.update(dict.fromkeys(shown))
        for status, count in shown.items():
            self.series.set(family, (*workflow, status), count)

    def account_found(self, account: str) -> None:
        """An account is watched, as before or from now on."""
        self.accounts.add(account)
        self._zero(account)

    def account_lost(self, account: str) -> None:
        """An account was removed, and its series with it."""
        self.accounts.discard(account)
        self.series.drop(account)

    def api_request(self, account: str, endpoint: str, code: str, seconds: float) -> None:
        """A request to the API ended, with this HTTP status or error, after this many seconds."""
        if account in self.accounts:
            self.series.count(catalogue.API_REQUESTS, (account, endpoint, code))
        self.series.count(catalogue.API_DURATION, (endpoint,), seconds)

    def counted(self, workflow: WorkflowKey, instance_id: str, observations: Observations) -> None:
        """Something finished of an instance, which may have series or not."""
        queued, run = observations.queue_duration, observations.run
        if queued is not None:
            self.series.count(catalogue.QUEUE_DURATIONS, workflow, queued, instance_id)
        if run is not None:
            ending = (*workflow, run.status)
            self.series.count(catalogue.RUNS_FINISHED, ending, 1, instance_id)
            if run.duration is not None:
                self.series.count(catalogue.RUN_DURATIONS, ending, run.duration, instance_id)
        for step in observations.steps:
            name, kind = (*workflow, self._step(workflow, step.name)), self._words(step.type)
            labels, outcome = (*name, kind), step.outcome
            self._observe(catalogue.STEP_DURATIONS, labels, outcome, step.duration, instance_id)
            if step.attempts is not None:
                self._observe(catalogue.STEP_ATTEMPTS, name, outcome, step.attempts, instance_id)
        for attempt in observations.attempts:
            name, outcome = (*workflow, self._step(workflow, attempt.step)), attempt.outcome
            self._observe(catalogue.ATTEMPT_DURATIONS, name, outcome, attempt.duration, instance_id)

    def _observe(
        self, family: Family, labels: LabelValues, outcome: str, value: float, instance_id: str
    ) -> None:
        self._zero_outcomes(family, labels)
        self.series.count(family, (*labels, outcome), value, instance_id)

    def _zero_outcomes(self, family: Family, labels: LabelValues) -> None:
        self.series.zero(family, [(*labels, outcome) for outcome in catalogue.FINISHED_OUTCOMES])

    def _step(self, workflow: WorkflowKey, name: str) -> str:
        return self._labels[workflow].step(
            name, on_other=lambda: self.series.count(catalogue.STEP_NAMES_DROPPED, ())
        )

    def restore(self, family: Family, labels: LabelValues, data: SeriesData) -> bool:
        """Restores a series, as `Series.restore` does, and the label values that it has."""
        if "step" in family.labels:
            step = labels[family.labels.index("step")]
            self._labels[WorkflowKey(*labels[:2])].step.add(step)
        if family in (catalogue.INSTANCES, catalogue.WATCHED):
            self._statuses[labels[-1]] = None  # it may not be one that is known today
        return self.series.restore(family, labels, data)

    def state_write_failed(self) -> None:
        """The state could not be written or used."""
        self.series.count(catalogue.STATE_WRITE_ERRORS, ())

    def leases_lost(self, count: int) -> None:
        """Other replicas have taken over this many workflows."""
        self.series.count(catalogue.LEASES_LOST, (), count)

    def take(self) -> Changes:
        """Returns the changes since the last call."""
        changes = self.series.take()
        changes.instances = {**self._changed}
        self._changed.clear()
        return changes


def _bounds(settings: Metrics) -> dict[Family, Sequence[float]]:
    """The buckets of each histogram."""
    configured = {f"cloudflare_workflow_{name}": bounds for name, bounds in settings.buckets}
    return {f: f.buckets or configured[f.name] for f in FAMILIES if f.kind == "histogram"}
