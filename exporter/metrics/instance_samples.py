"""The samples of one instance: which of its values go into which family, with which labels."""

from collections.abc import Callable, Iterator, Mapping

from msgspec import Struct

from exporter.instances.values import InstanceValues, OpenStep
from exporter.metrics import catalogue
from exporter.metrics.catalogue import OUTCOMES, Family
from exporter.metrics.labels import InstanceLabels

Sample = tuple[Family, tuple[str, ...], float]
"""A family, the values of the labels that follow `instance_id`, and the value."""


_NO_STEPS = dict.fromkeys(OUTCOMES, 0)


class InstanceSamples(Struct, frozen=True, gc=False):
    """The samples of an instance. They are made during iteration: those of all instances, stored at
    a restart, would be millions."""

    values: InstanceValues
    last_change: float
    """Unix time at which the values last changed."""
    labels: InstanceLabels
    """The labels of its workflow's instances."""
    status: Family = catalogue.STATUS
    """The family of the status, with all states or only the current one."""

    def __iter__(self) -> Iterator[Sample]:
        values, labels = self.values, self.labels
        yield self.status, (labels.word(values.status),), 1
        yield catalogue.INFO, (values.version_id, values.trigger), 1
        if values.error_name is not None:
            step = labels.step(values.error_step) if values.error_step else ""
            yield catalogue.ERROR_INFO, (labels.error_name(values.error_name), step), 1
        if values.steps is not None:
            yield from _steps(values.steps, labels.word)
        if values.attempts is not None:
            for outcome in OUTCOMES:
                yield catalogue.ATTEMPTS, (outcome,), values.attempts[outcome]
        yield from _open_steps(values, labels)
        for family, value in (
            (catalogue.STEP_COUNT, values.step_count),
            (catalogue.RETRIES, values.retries),
            (catalogue.QUEUED, values.queued),
            (catalogue.START, values.start),
            (catalogue.END, values.end),
            (catalogue.QUEUE_DURATION, values.queue_duration),
            (catalogue.RUN_DURATION, values.run_duration),
            (catalogue.LAST_CHANGE, self.last_change),
        ):
            if value is not None:
                yield family, (), value


def _steps(steps: Mapping[tuple[str, str], int], word: Callable[[str], str]) -> Iterator[Sample]:
    """Steps by type and outcome, also at 0: every outcome of plain steps and of each type seen."""
    counts = {"step": _NO_STEPS.copy()}
    for (step_type, outcome), count in steps.items():
        counts.setdefault(word(step_type), _NO_STEPS.copy())[outcome] += count
    for step_type, by_outcome in counts.items():
        for outcome, count in by_outcome.items():
            yield catalogue.STEPS, (step_type, outcome), count


def _open_steps(values: InstanceValues, labels: InstanceLabels) -> Iterator[Sample]:
    # Parallel steps with the same label and type are one series: the sum of attempts and of limits,
    # and the earliest start. Only plain steps have limits.
    parallel: dict[tuple[str, str], list[OpenStep]] = {}
    for step in values.open_steps:
        parallel.setdefault((labels.step(step.name), labels.word(step.type)), []).append(step)
    for key, steps in parallel.items():
        yield catalogue.CURRENT_STEP_ATTEMPTS, key, sum(step.attempts for step in steps)
        if starts := [step.start for step in steps if step.start is not None]:
            yield catalogue.CURRENT_STEP_START, key, min(starts)
        if limits := [step.retry_limit for step in steps if step.retry_limit is not None]:
            yield catalogue.CURRENT_STEP_RETRY_LIMIT, key[:1], sum(limits)
