"""Random lives of an instance, and all that can be seen of them: what tracking is tested against.

A life is a list of detail responses, one after each thing that happened; the world of the model is
simple enough to count in: every finished thing has a name of its own.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from hypothesis import strategies as st

from exporter.cloudflare.models import Attempt, Detail, Error, Step
from tests.instances.times import QUEUED

ENDINGS = ("complete", "errored", "terminated")

Thing = tuple[object, ...]
"""A finished run, queue, step or attempt, by its identity."""


@dataclass
class Life:
    """An instance that lives; `responses` are its detail responses so far, oldest first."""

    clock: datetime = QUEUED
    queued: datetime = QUEUED
    status: str = "queued"
    start: datetime | None = None
    end: datetime | None = None
    error: Error | None = None
    steps: list[Step] = field(default_factory=list)
    names: Counter[str] = field(default_factory=Counter)
    responses: list[Detail] = field(default_factory=list)
    passes: int = 0
    """Restarts from a step so far: each makes the run end once more."""
    passes_of: list[int] = field(default_factory=list)
    """The same at each response."""

    def see(self) -> None:
        copies = [
            Step(
                type=s.type,
                name=s.name,
                start=s.start,
                end=s.end,
                success=s.success,
                finished=s.finished,
                error=s.error,
                attempts=None
                if s.attempts is None
                else [Attempt(a.start, a.end, a.success, a.error) for a in s.attempts],
            )
            for s in self.steps
        ]
        self.passes_of.append(self.passes)
        self.responses.append(
            Detail(
                queued=self.queued,
                status=self.status,
                start=self.start,
                end=self.end,
                error=self.error,
                step_count=len(copies),
                steps=copies,
            )
        )

    def tick(self, milliseconds: int) -> None:
        self.clock += timedelta(milliseconds=milliseconds)

    def begin(self) -> None:
        if self.status == "queued":
            self.status, self.start = "running", self.clock

    def open(self) -> list[Step]:
        return [s for s in self.steps if s.end is None and not s.finished]

    def step(self, kind: str, name: str) -> None:
        if self.status not in ("running", "rollingBack"):
            return
        self.names[name] += 1
        step = Step(type=kind, name=f"{name}-{self.names[name]}", start=self.clock)
        if kind in ("sleep", "waitForEvent"):
            step.finished = False
        else:
            step.attempts = [Attempt(start=self.clock)]
        self.steps.append(step)

    def attempt_ends(self, which: int, success: bool, final: bool) -> None:
        """The running attempt of an open step ends; a failure may be the step's last."""
        steps = [s for s in self.open() if s.attempts and s.attempts[-1].end is None]
        if not steps or self.status == "paused":
            return
        step = steps[which % len(steps)]
        assert step.attempts is not None
        step.attempts[-1].end, step.attempts[-1].success = self.clock, success
        if success or final:
            step.end, step.success = self.clock, success

    def retry(self, which: int) -> None:
        steps = [s for s in self.open() if s.attempts and s.attempts[-1].end is not None]
        if steps and self.status != "paused":
            attempts = steps[which % len(steps)].attempts
            assert attempts is not None
            attempts.append(Attempt(start=self.clock))

    def wake(self, which: int, timed_out: bool) -> None:
        steps = [s for s in self.open() if s.finished is False]
        if steps and self.status in ("running", "rollingBack"):
            step = steps[which % len(steps)]
            step.finished, step.end = True, self.clock
            step.error = Error("WorkflowTimeoutError", "") if timed_out else None

    def pause_or_resume(self) -> None:
        self.status = {"running": "paused", "paused": "running"}.get(self.status, self.status)

    def finish(self, how: str) -> None:
        """A rollback ends as the run had ended."""
        if self.status in ("running", "paused", "rollingBack"):
            how = "errored" if self.status == "rollingBack" else how
            self.status, self.end = how, self.clock
            self.error = Error("Error", "boom") if how == "errored" else None

    def roll_back(self) -> None:
        if self.status == "errored":
            self.status, self.end = "rollingBack", None

    def restart_from(self, which: int) -> None:
        """As the engine does: that step and all that began after it are deleted, and it begins
        again. `queued` and `start` stay."""
        if not self.steps or self.status == "queued":
            return
        self.tick(1)
        self.passes += 1
        target = self.steps[which % len(self.steps)]
        del self.steps[which % len(self.steps) :]
        self.status, self.end, self.error = "running", None, None
        self.names = Counter(_without_counter(step) for step in self.steps)
        kind = "step" if target.type == "rollback" else str(target.type)
        self.step(kind, _without_counter(target))

    def restart(self) -> None:
        self.tick(1)
        self.queued, self.status = self.clock, "queued"
        self.start = self.end = self.error = None
        self.steps, self.names = [], Counter()


def _without_counter(step: Step) -> str:
    return str(step.name).rsplit("-", 1)[0]


Happening = Callable[[Life, st.DrawFn], None]

_WHICH = st.integers(0, 3)
_OFTEN: list[Happening] = [
    lambda life, _: life.begin(),
    lambda life, draw: life.step(
        draw(st.sampled_from(["step", "rollback", "mystery"])), draw(st.sampled_from("ab"))
    ),
    lambda life, _: life.step("sleep", "nap"),
    lambda life, _: life.step("waitForEvent", "approval"),
    lambda life, draw: life.attempt_ends(draw(_WHICH), draw(st.booleans()), draw(st.booleans())),
    lambda life, draw: life.retry(draw(_WHICH)),
    lambda life, draw: life.wake(draw(_WHICH), draw(st.booleans())),
    lambda life, _: life.pause_or_resume(),
]
_RARE: list[Happening] = [
    lambda life, draw: life.finish(draw(st.sampled_from(ENDINGS))),
    lambda life, _: life.roll_back(),
    lambda life, _: life.restart(),
    lambda life, draw: life.restart_from(draw(_WHICH)),
    lambda life, draw: life.restart_from(draw(_WHICH)),
]


@st.composite
def lives(draw: st.DrawFn) -> Life:
    """A random life with all its detail responses, in order."""
    life = Life()
    life.see()
    for happens in draw(st.lists(st.sampled_from(_OFTEN * 3 + _RARE), min_size=1, max_size=40)):
        life.tick(draw(st.integers(0, 5000)))
        happens(life, draw)
        life.see()
    return life


def deliveries(count: int) -> st.SearchStrategy[list[int]]:
    """Which responses arrive, by index: most in order; some lost, repeated or out of date."""
    jumps = st.lists(st.sampled_from([1, 1, 1, 2, 5, 0, -1, -4]), max_size=3 * count)

    def walk(steps: list[int]) -> list[int]:
        at, path = 0, [0]
        fresh = 0
        for step in steps:
            at = max(0, min(count - 1, fresh + step))
            fresh = max(fresh, at)
            path.append(at)
        return [*path, count - 1]

    return jumps.map(walk)


def finished(response: Detail) -> set[Thing]:
    """What is finished in a response, counted the plain way."""
    run = (response.queued,)
    things: set[Thing] = set()
    if response.start:
        things.add(("queue", *run))
    for step in response.steps or []:
        for number, attempt in enumerate(step.attempts or []):
            if attempt.end:
                things.add(("attempt", *run, step.type, step.name, step.start, number))
        if step.finished or (step.finished is None and step.end):
            things.add(("step", *run, step.type, step.name, step.start))
    return things
