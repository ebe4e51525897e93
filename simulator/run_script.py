"""The script of a run: what a simulated instance does, as data.

A script is made of the pieces of which a Workflow is made: steps with their attempts, sleeps,
waits for an event, and groups of those that run side by side. `run_timeline.play` turns a script
into points in time. All durations are seconds; None means that it never ends. Scripts are plain
msgspec structs, so they can be read from JSON or YAML as well:

    {"queued": 2, "pieces": [{"type": "step", "name": "charge"}, {"type": "sleep", "name": "nap"}]}
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class Error(Struct, frozen=True):
    """An error as the API shows it."""

    name: str = "Error"
    message: str = "boom"


class Attempt(Struct, frozen=True):
    """One attempt of a step; without an error it succeeds."""

    duration: float | None = 1.0
    error: Error | None = None


class Config(Struct, frozen=True):
    """A step's configuration as the API shows it; it doesn't decide what the step does."""

    limit: int = 5
    delay: float | str = 1000
    backoff: str | None = "exponential"
    timeout: float | str = "10 minutes"
    sensitive: str | None = None


class Step(Struct, frozen=True, tag="step"):
    """`step.do`: its attempts, and the seconds of back-off between two of them.

    It fails when its last attempt does; a failure ends the run unless it is `caught`.
    """

    name: str
    attempts: tuple[Attempt, ...] = (Attempt(),)
    backoff: float | None = 1.0
    output: Any = "ok"
    caught: bool = False
    config: Config = Config()


class Sleep(Struct, frozen=True, tag="sleep"):
    """`step.sleep`."""

    name: str
    duration: float | None = 60.0


class Wait(Struct, frozen=True, tag="waitForEvent"):
    """`step.waitForEvent`: ends with an event of its type, or fails after `timeout` seconds."""

    name: str
    event_type: str = "approve"
    timeout: float = 86_400.0
    caught: bool = False


class Parallel(Struct, frozen=True, tag="parallel"):
    """Branches that start together; each is a sequence of pieces."""

    branches: tuple[tuple[Piece, ...], ...]


Piece = Step | Sleep | Wait | Parallel


class Script(Struct, frozen=True, weakref=True, eq=False):
    """A run from its creation to its end.

    Args:
        queued: seconds before it starts; None: it stays queued.
        pieces: what it does, one after the other.
        output: what a complete run returns.
        throws: an error thrown outside a step, after the last piece.
        rollback: steps played as a rollback once the run has failed.
    """

    pieces: tuple[Piece, ...] = ()
    queued: float | None = 0.0
    output: Any = "done"
    throws: Error | None = None
    rollback: tuple[Step, ...] = ()


def steps(*names: str, duration: float = 1.0) -> tuple[Step, ...]:
    """Steps that each succeed at their first attempt."""
    return tuple(Step(name, (Attempt(duration),)) for name in names)


def retried(
    name: str,
    failures: int = 2,
    *,
    succeeds: bool = True,
    duration: float = 1.0,
    backoff: float = 1.0,
    error: Error | None = None,
    caught: bool = False,
) -> Step:
    """A step that fails some times, and then succeeds or has exhausted its attempts."""
    failed = (Attempt(duration, error or Error()),) * failures
    last = (Attempt(duration),) if succeeds else ()
    return Step(name, failed + last, backoff=backoff, caught=caught)


def parallel(*branches: Piece | tuple[Piece, ...]) -> Parallel:
    """A group in which each argument, a piece or a sequence of them, is a branch."""
    return Parallel(tuple(b if isinstance(b, tuple) else (b,) for b in branches))
