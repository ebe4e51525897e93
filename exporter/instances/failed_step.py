"""Which step an instance failed at, and the name of the error: the API doesn't say. Pure."""

from collections.abc import Sequence
from math import inf

from exporter.cloudflare.models import Attempt, Error, Step, unix

AFTERMATH = frozenset({"rollback", "termination"})
"""Types of steps that come after a run has failed or was terminated."""


def attempts_in_order(step: Step) -> Sequence[Attempt]:
    """A step's attempts by their start: the place among them is the number of each."""
    attempts = step.attempts or ()
    if len(attempts) < 2:
        return attempts
    return sorted(attempts, key=lambda attempt: unix(attempt.start) or inf)


def failed_step(steps: list[Step], error: Error) -> Step | None:
    """The step whose failure an instance's error comes from, if it comes from one.

    It is the step that failed last, unless another began after it (the workflow had caught the
    failure and continued) or the error is another one (thrown outside a step, after a failure was
    caught).
    """
    ahead = [step for step in steps if step.type not in AFTERMATH]
    failed = [step for step in ahead if step.outcome == "failure" and step.end]
    if not failed:
        return None
    last = max(failed, key=lambda step: unix(step.end) or 0.0)
    if any((unix(step.start) or 0.0) > (unix(last.end) or 0.0) for step in ahead):
        return None
    cause = step_error(last)
    if cause is None:
        return last
    same_name = cause.name == error.name and not _is_generic(error)
    # Of a large response there is only the beginning of each message, and a name may be before it.
    said = (cause.message or "")[:100]
    return last if same_name or said in (error.message or "") else None


def step_error(step: Step) -> Error | None:
    """The error of a step or, while it has none, of its latest attempt."""
    attempts = attempts_in_order(step)
    return step.error or (attempts[-1].error if attempts else None)


def _is_generic(error: Error) -> bool:
    return error.name in (None, "", "Error")


def error_name(error: Error, failed: Step | None) -> str:
    """The name of an instance's error: the failed step's where the engine flattened it to `Error`.

    The engine keeps the real name at the attempt.
    """
    cause = step_error(failed) if failed else None
    if _is_generic(error) and cause is not None and cause.name:
        return cause.name
    return error.name or "Error"
