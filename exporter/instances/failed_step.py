"""At which step an instance failed, and the name of its error. The API says neither. Pure."""

from datetime import datetime
from math import inf

from exporter.cloudflare.models import AFTERMATH, Error, Step
from exporter.cloudflare.times import unix


def failed_step(steps: list[Step], error: Error, end: datetime | None) -> Step | None:
    """The step whose failure became an instance's error; None if the error comes from no step.

    Of the steps that failed with that error, it is the last. But if another step began after it,
    the workflow had caught the failure and continued. If no step has the error, it was thrown
    outside of all steps.

    Args:
        steps: All steps.
        error: The error of the instance.
        end: The end of the run. A step that failed after it is not the cause.
    """
    until = unix(end) or inf
    own = [step for step in steps if step.type not in AFTERMATH]
    begun = max((t for step in own if (t := unix(step.start) or 0.0) <= until), default=0.0)
    failed = [s for s in own if s.outcome == "failure" and begun <= (unix(s.end) or -inf) <= until]
    latest_first = sorted(failed, key=lambda step: unix(step.end) or -inf, reverse=True)
    return next((step for step in latest_first if _is_cause(step_error(step), error)), None)


def _is_cause(cause: Error | None, error: Error) -> bool:
    if cause is None:
        return True
    # The engine's own errors have another message at the instance.
    own = cause.name == error.name and (error.name or "").startswith("Workflow")
    # Of a large response only the beginning of each message was read. At the instance, the name of
    # the error may stand before it.
    said = cause.message or ("" if _is_generic(cause) else cause.name) or ""
    return own or said[:100] in (error.message or "")


def step_error(step: Step) -> Error | None:
    """The error of a step or, while it has none, of its latest attempt."""
    attempts = step.ordered_attempts
    return step.error or (attempts[-1].error if attempts else None)


def _is_generic(error: Error) -> bool:
    return error.name in (None, "", "Error")


def error_name(error: Error, failed: Step | None) -> str:
    """The name of an instance's error. Where the engine has reduced it to `Error`, it is that of
    the failed step's error: the engine keeps the original name at the attempt.
    """
    cause = step_error(failed) if failed else None
    if _is_generic(error) and cause is not None and cause.name:
        return cause.name
    return error.name or "Error"
