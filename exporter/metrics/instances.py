"""An instance's figures as samples."""

from collections.abc import Callable, Iterator

from exporter.metrics import catalogue
from exporter.metrics.catalogue import Family
from exporter.settings import STATUSES
from exporter.watch.tracker import Figures

OUTCOMES = ("success", "failure", "running")

Sample = tuple[Family, tuple[str, ...], float]
"""A family, the values of the labels that follow `instance_id`, and the value."""


def samples(
    figures: Figures,
    last_change: float,
    step_label: Callable[[str], str],
    error_label: Callable[[str], str] = str,
) -> Iterator[Sample]:
    """What an instance shows, given when it last moved and how steps and errors are labelled."""
    for status in dict.fromkeys((*STATUSES, figures.status)):
        yield catalogue.STATUS, (status,), status == figures.status
    yield catalogue.INFO, (figures.version_id, figures.trigger), 1
    if figures.error_name is not None:
        step = step_label(figures.error_step) if figures.error_step else ""
        yield catalogue.ERROR_INFO, (error_label(figures.error_name), step), 1
    if figures.step_count is not None:
        yield catalogue.STEP_COUNT, (), figures.step_count
    if figures.steps is not None:
        for step_type in dict.fromkeys(("step", *(type_ for type_, _ in figures.steps))):
            for outcome in OUTCOMES:
                count = figures.steps.get((step_type, outcome), 0)
                yield catalogue.STEPS, (step_type, outcome), count
    if figures.attempts is not None:
        for outcome in OUTCOMES:
            yield catalogue.ATTEMPTS, (outcome,), figures.attempts[outcome]
    if figures.retries is not None:
        yield catalogue.RETRIES, (), figures.retries
    yield from _open_steps(figures, step_label)
    yield from _times(figures)
    yield catalogue.LAST_CHANGE, (), last_change


def _open_steps(figures: Figures, step_label: Callable[[str], str]) -> Iterator[Sample]:
    # Steps of one label and type, side by side, are one series: attempts added, earliest start.
    attempts: dict[tuple[str, str], int] = {}
    starts: dict[tuple[str, str], float] = {}
    for step in figures.open_steps:
        key = (step_label(step.name), step.type)
        attempts[key] = attempts.get(key, 0) + step.attempts
        if step.start is not None:
            starts[key] = min(step.start, starts.get(key, step.start))
    for key, count in attempts.items():
        yield catalogue.CURRENT_STEP_ATTEMPTS, key, count
    for key, start in starts.items():
        yield catalogue.CURRENT_STEP_START, key, start


def _times(figures: Figures) -> Iterator[Sample]:
    for family, value in (
        (catalogue.QUEUED, figures.queued),
        (catalogue.START, figures.start),
        (catalogue.END, figures.end),
        (catalogue.QUEUE_DURATION, figures.queue_duration),
        (catalogue.RUN_DURATION, figures.run_duration),
    ):
        if value is not None:
            yield family, (), value
