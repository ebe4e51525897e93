"""What the gauges of an instance show, and how a detail response becomes that. Pure."""

from collections import Counter
from sys import intern

from msgspec import Struct
from msgspec.structs import force_setattr

from exporter.cloudflare.models import Detail
from exporter.cloudflare.times import seconds, unix
from exporter.instances.failed_step import error_name, failed_step
from exporter.statuses import ENDED


class OpenStep(Struct, frozen=True, array_like=True, gc=False):
    """A step that is open now."""

    name: str
    """The full name, with the engine's counter."""
    type: str
    attempts: int
    """Attempts so far."""
    start: float | None
    """Unix time."""
    retry_limit: float | None = None
    """Maximum attempts after the first, +Inf without a limit; None: not known, or not a plain
    step."""


class InstanceValues(Struct, frozen=True, array_like=True, gc=False):
    """What an instance's gauges show; recorded in the state (see `state_records.py`).

    Times are Unix seconds. None stands for what isn't known (yet); what comes from the steps is
    known once there was a detail response.
    """

    status: str
    version_id: str
    trigger: str
    error_name: str | None = None
    error_step: str | None = None
    step_count: int | None = None
    steps: dict[tuple[str, str], int] | None = None
    """Number of steps by type and outcome."""
    attempts: dict[str, int] | None = None
    """Number of attempts by outcome."""
    retries: int | None = None
    open_steps: tuple[OpenStep, ...] = ()
    queued: float | None = None
    start: float | None = None
    end: float | None = None
    queue_duration: float | None = None
    """Seconds."""
    run_duration: float | None = None
    """Seconds, once the run has ended."""

    def __post_init__(self) -> None:
        # Tens of thousands of instances share a few of these texts.
        for name in ("status", "version_id", "trigger"):
            force_setattr(self, name, intern(getattr(self, name)))

    @property
    def ended(self) -> bool:
        return self.status in ENDED


def values_of(response: Detail, status: str) -> InstanceValues:
    """The values that a detail response shows of an instance with this status."""
    steps = response.steps or []
    outcomes = Counter(attempt.outcome for step in steps for attempt in step.attempts or ())
    error = response.error
    failed = failed_step(steps, error, response.end) if error else None
    return InstanceValues(
        status=status,
        version_id=response.version_id or "",
        trigger=(response.trigger and response.trigger.source) or "unknown",
        error_name=error_name(error, failed) if error else None,
        error_step=failed.name if failed else None,
        step_count=len(steps) if response.step_count is None else int(response.step_count),
        steps=dict(Counter((intern(step.type or "unknown"), step.outcome) for step in steps)),
        attempts={outcome: outcomes[outcome] for outcome in ("success", "failure", "running")},
        retries=sum(max(0, len(step.attempts or ()) - 1) for step in steps),
        open_steps=tuple(
            OpenStep(
                intern(step.name),
                intern(step.type or "unknown"),
                len(step.attempts or ()),
                unix(step.start),
                step.retry_limit if step.type == "step" else None,
            )
            for step in steps
            if status not in ENDED and step.name and step.outcome == "running"
        ),
        queued=unix(response.queued),
        start=unix(response.start),
        end=unix(response.end),
        queue_duration=seconds(response.queued, response.start),
        run_duration=seconds(response.start, response.end) if status in ENDED else None,
    )
