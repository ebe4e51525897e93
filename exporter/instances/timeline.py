"""The timeline of a run: its latest steps, as its page shows them, without params or outputs.

Timelines are stored packed, at about 50 bytes a step, since there are fifty thousand instances.
"""

from math import inf

from msgspec import Struct, msgpack

from exporter.cloudflare.models import Detail, Step
from exporter.cloudflare.times import unix
from exporter.instances.failed_step import step_error

LATEST = 50
"""Maximum finished steps that a timeline holds, and maximum open ones."""
_LONGEST_NAME = 256


class Entry(Struct, frozen=True, array_like=True):
    """A step, sleep or wait. Times are Unix seconds."""

    name: str
    """The full name, with the engine's counter."""
    type: str
    outcome: str
    start: float | None
    end: float | None
    """When it ended; of an open sleep or wait, the planned end."""
    attempts: int
    failures: int
    """Number of attempts that failed."""
    error_name: str | None
    """The name of the step's error, or of its latest attempt's."""

    @property
    def seconds(self) -> float | None:
        """How long it took; None until it is finished."""
        if self.outcome == "running" or self.start is None or self.end is None:
            return None
        return max(0.0, self.end - self.start)


class Timeline(Struct, frozen=True, array_like=True):
    """Steps by their start, and the number of earlier ones that are left out."""

    entries: tuple[Entry, ...] = ()
    earlier: int = 0


def pack(response: Detail, *, now: float) -> bytes:
    """The timeline of a detail response that arrived at Unix time `now`."""
    steps = sorted(response.steps or (), key=lambda step: unix(step.start) or inf)
    is_open = [step.outcome == "running" for step in steps]
    shown = {
        *[i for i, open_ in enumerate(is_open) if not open_][-LATEST:],
        *[i for i, open_ in enumerate(is_open) if open_][-LATEST:],
    }
    entries = tuple(_entry(step, now) for i, step in enumerate(steps) if i in shown)
    return msgpack.encode(Timeline(entries, len(steps) - len(entries)))


def unpack(packed: bytes) -> Timeline:
    """What `pack` packed."""
    return msgpack.decode(packed, type=Timeline)


def _entry(step: Step, now: float) -> Entry:
    attempts = step.attempts or []
    end = unix(step.end)
    if end is not None and step.outcome != "running":
        end = min(end, now)  # a sleep that was ended early has its planned end
    error = step_error(step)
    return Entry(
        name=(step.name or "")[:_LONGEST_NAME],
        type=(step.type or "unknown")[:_LONGEST_NAME],
        outcome=step.outcome,
        start=unix(step.start),
        end=end,
        attempts=len(attempts),
        failures=sum(attempt.outcome == "failure" for attempt in attempts),
        error_name=error.name[:_LONGEST_NAME] if error and error.name else None,
    )
