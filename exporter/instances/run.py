"""What is known of a run, and what finished of it: the data that `run_tracker` and `list_rows` make
of responses and rows."""

from math import inf
from sys import intern
from typing import NamedTuple

from msgspec import Struct, field
from msgspec.structs import force_setattr

from exporter.instances.step_identity import StepKey
from exporter.instances.values import InstanceValues

APART = 1.0
"""Seconds by which two times may differ and still mean the same moment: list rows and the responses
for an instance come from different stores."""

Marks = dict[StepKey, int | bytes]
"""What was already observed of each step, as bits: bit 0 is the step itself, bit n its n-th
attempt. Those of many attempts are the bytes of an integer: the state's have 64 bits at most."""


class Run(Struct, frozen=True, array_like=True, gc=False):
    """What is known of an instance's current run; recorded in the state (see `state_records.py`).

    Times are Unix seconds. `queued` is None until a response shows it: list rows don't have it.
    """

    queued: float | None
    status: str
    start: float | None = None
    end: float | None = None
    step_count: int = 0
    queue_observed: bool = False
    end_observed: bool = False
    """Whether its end was observed. After a restart from a step it will end once more."""
    marks: Marks = field(default_factory=dict)
    sealed: float = -inf
    """Everything that ended until then was observed. An ended run has this in place of marks."""
    ended_by_row: bool = False
    """Whether only a row has shown its end, so that the number of its steps isn't known."""
    newest: float = -inf
    """The latest time in any detail response so far. A response with a later time is newer."""

    def __post_init__(self) -> None:
        # Tens of thousands of runs share a few statuses.
        force_setattr(self, "status", intern(self.status))


class FinishedRun(NamedTuple):
    status: str
    duration: float | None
    """Seconds; None for a run that ended before it started."""


# No work for the garbage collector: a large response has 25,000 steps with several attempts each.
class FinishedStep(Struct, frozen=True, gc=False):
    name: str
    """The full name, with the engine's counter."""
    type: str
    outcome: str
    duration: float
    attempts: int | None
    """None for sleeps and waits, which have none."""


class FinishedAttempt(Struct, frozen=True, gc=False):
    step: str
    outcome: str
    duration: float


class Observations(Struct):
    """What has finished and was not observed before. Durations are in seconds."""

    run: FinishedRun | None = None
    queue_duration: float | None = None
    steps: list[FinishedStep] = field(default_factory=list)
    attempts: list[FinishedAttempt] = field(default_factory=list)


class Tracked(NamedTuple):
    run: Run
    values: InstanceValues
    observations: Observations


def same_time(one: float | None, other: float | None) -> bool:
    """Whether two times may mean the same moment. If one isn't known, they may."""
    return one is None or other is None or abs(one - other) <= APART


def as_mark(bits: int) -> int | bytes:
    """Bits as `Marks` has them."""
    return bits if bits < 2**64 else bits.to_bytes(bits.bit_length() // 8 + 1)


def from_mark(mark: int | bytes) -> int:
    """The bits that a mark in `Marks` stands for."""
    return mark if isinstance(mark, int) else int.from_bytes(mark)
