"""The tracker: from what is known of a run and one full answer to figures and what is new.

The heart of the exporter, and pure: no I/O and no clock but the one handed in. Whatever is
finished is observed once, when its end is first seen, however often, late or out of order the
answers come. A run is named by `queued`, a step by its type and full name (with the counter that
the engine adds), an attempt by its number. A row of a list doesn't say `queued`: `rows.py` tells
whose it is, and takes from it what concerns whole runs.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from math import inf
from typing import NamedTuple

from msgspec import Struct, field

from exporter.cloudflare.models import ENDED, Attempt, Detail, Error, Step, Summary, seconds, unix

# What a live instance says. Gone back from an end to one of these without a new `queued`, an
# answer comes from a replica that is behind; rollingBack may follow an end.
_LIVE = frozenset({"queued", "running", "paused", "waiting", "waitingForPause"})
_AFTERMATH = frozenset({"rollback", "termination"})

APART = 1.0
"""Seconds by which times may differ that mean one moment: rows of lists and answers on an instance
come from different stores."""

Mark = dict[tuple[str, str], int]
"""What was observed, by step type and full name: bit 0 the step, bit n its n-th attempt."""


class Run(Struct, frozen=True, array_like=True):
    """What is known of an instance's current run; kept on disk (see `kept.py`).

    Times are Unix seconds. `queued` is None as long as only rows of lists told of the run.
    """

    queued: float | None
    status: str
    start: float | None = None
    end: float | None = None
    step_count: int = 0
    queue_observed: bool = False
    end_observed: bool = False
    marks: Mark = field(default_factory=dict)
    sealed: float = -inf
    """What ended up to then was observed: an ended run's marks shrink to this."""
    ended_by_row: bool = False
    """Whether a row alone told that it ended: how many steps it has isn't known."""
    latest: float = -inf
    """The latest end of what was observed."""


class OpenStep(NamedTuple):
    """A step that is open now: its full name, type, attempts so far, and start (Unix seconds)."""

    name: str
    type: str
    attempts: int
    start: float | None


class Figures(Struct, frozen=True, array_like=True):
    """What an instance's gauges show; kept on disk (see `kept.py`).

    Times are Unix seconds; None: not known (yet). What comes from the steps is None until a full
    answer came.
    """

    status: str
    version_id: str
    trigger: str
    error_name: str | None
    error_step: str | None
    step_count: int | None
    steps: dict[tuple[str, str], int] | None
    """By type and outcome."""
    attempts: dict[str, int] | None
    """By outcome."""
    retries: int | None
    open_steps: tuple[OpenStep, ...]
    queued: float | None
    start: float | None
    end: float | None
    queue_duration: float | None
    """Seconds."""
    run_duration: float | None
    """Seconds, once the run has ended."""

    @property
    def ended(self) -> bool:
        return self.status in ENDED


class FinishedRun(NamedTuple):
    status: str
    duration: float | None
    """Seconds; None for a run that ended before it started."""


# A large answer brings 25,000 steps of several attempts at once.
class FinishedStep(Struct, frozen=True, gc=False):
    name: str
    """With the engine's counter."""
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
    """What is finished and was not observed before. Durations are seconds."""

    run: FinishedRun | None = None
    queue_duration: float | None = None
    steps: list[FinishedStep] = field(default_factory=list)
    attempts: list[FinishedAttempt] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.run or self.queue_duration is not None or self.steps or self.attempts)


class Tracked(NamedTuple):
    run: Run
    figures: Figures
    observations: Observations


def is_stale(run: Run | None, answer: Summary) -> bool:
    """Whether an answer is older than what is known: a replica that is behind gave it."""
    if run is None:
        return False
    later = _later(run, answer)
    if later:
        return later < 0
    steps = int(answer.step_count or 0)
    if answer.step_count is not None and steps < run.step_count:
        return True
    if run.start is not None and answer.start is None:
        return True
    went_back = run.status in ENDED and answer.status in _LIVE
    return went_back and (run.ended_by_row or steps <= run.step_count)


def track(
    run: Run | None, answer: Detail, *, now: float, since: float = -inf, trust: bool = False
) -> Tracked | None:
    """Takes in one full answer.

    Args:
        run: What was known of the instance, None on first sight.
        answer: The full answer, steps in any order.
        now: Unix time at which the answer arrived.
        since: Unix time; what ended before it is history and not observed.
        trust: Take an answer of the same run that looks stale: its figures are shown, and still
            nothing is observed twice.

    Returns:
        What is known now, or None when the answer is stale.
    """
    queued = unix(answer.queued) or 0.0
    same_run = run is not None and not _later(run, answer)
    known = run if run is not None and same_run else Run(queued=queued, status="")
    trusted = trust and same_run
    if not trusted and (is_stale(run, answer) or (known.marks and _lacks(answer, known.marks))):
        return None

    status = answer.status or "unknown"
    new = Observations()
    start, end = unix(answer.start), unix(answer.end)
    if any(step.finished and (unix(step.end) or -inf) > now for step in answer.steps or ()):
        now = max(now, _passed(answer))
    if start is not None and not known.queue_observed and start >= since:
        new.queue_duration = seconds(answer.queued, answer.start)
    ended = status in ENDED
    if ended and not known.end_observed and (now if end is None else end) >= since:
        new.run = FinishedRun(status, seconds(answer.start, answer.end or _moment(now)))
    marks, latest = dict(known.marks), known.latest
    # Nothing in a run ends after it does.
    until = now if end is None or not ended else min(now, end)
    for step in answer.steps or ():
        key = _key(step)
        known_bits, bits = marks.get(key, 0), _bits(step, after=known.sealed)
        if bits & ~known_bits:
            observed = _observe(step, key, bits & ~known_bits, new, now=until, since=since)
            latest = max(latest, observed)
            # At once: an answer that holds a step twice counts it once.
            marks[key] = known_bits | bits
    sealed = known.sealed
    if ended and (last := _last_end(answer)) is not None and last <= now:
        sealed, marks = max(sealed, last), {}

    return Tracked(
        Run(
            queued=queued,
            status=status,
            start=start,
            end=end,
            step_count=int(answer.step_count or 0),
            queue_observed=known.queue_observed or start is not None,
            end_observed=known.end_observed or ended,
            marks=marks,
            sealed=sealed,
            latest=latest,
        ),
        _figures(answer, status),
        new,
    )


def _later(run: Run, answer: Summary) -> float:
    """Seconds by which the run that an answer tells of is later than the known one; 0: it is it."""
    queued, start = unix(answer.queued) or 0.0, unix(answer.start)
    if run.queued is not None:
        return queued - run.queued
    # Known from rows alone: the start is what both tell, and none is queued after it.
    first = run.end if run.start is None else run.start
    if first is not None and queued - first > APART:
        return queued - first
    return 0.0 if same_time(run.start, start) else (start or 0.0) - (run.start or 0.0)


def same_time(one: float | None, other: float | None) -> bool:
    """Whether two answers may mean one moment; they may if only one knows it."""
    return one is None or other is None or abs(one - other) <= APART


def _key(step: Step) -> tuple[str, str]:
    return step.type or "unknown", step.name or ""


def _bits(step: Step, *, after: float = -inf) -> int:
    """What of a step is finished: bit 0 the step, bit n its n-th attempt.

    What ended at or before `after` (Unix time) is left out.
    """
    bits = int(_ended_after(step, after))
    for number, attempt in enumerate(_attempts(step), start=1):
        bits |= _ended_after(attempt, after) << number
    return bits


def _ended_after(thing: Step | Attempt, moment: float) -> bool:
    if thing.outcome == "running":
        return False
    return moment == -inf or (unix(thing.end) or inf) > moment


def _last_end(answer: Detail) -> float | None:
    """When the last step or attempt ended, in Unix time; None when one has no end (yet)."""
    last = -inf
    for step in answer.steps or ():
        for thing in (step, *(step.attempts or ())):
            end = unix(thing.end)
            if end is None or thing.outcome == "running":
                return None
            last = max(last, end)
    return last


def _attempts(step: Step) -> Sequence[Attempt]:
    """A step's attempts by their start: the place among them is the number of each."""
    attempts = step.attempts or ()
    if len(attempts) < 2:
        return attempts
    return sorted(attempts, key=lambda attempt: unix(attempt.start) or inf)


def _lacks(answer: Detail, known: Mark) -> bool:
    """Whether something that was finished before isn't in an answer."""
    seen: Mark = {}
    for step in answer.steps or ():
        key = _key(step)
        seen[key] = seen.get(key, 0) | _bits(step)
    return any(seen.get(key, 0) & bits != bits for key, bits in known.items())


def _observe(
    step: Step,
    key: tuple[str, str],
    unseen: int,
    new: Observations,
    *,
    now: float,
    since: float,
) -> float:
    """Adds to `new` what of a step is finished, wasn't seen, and ended at or after `since`; when
    the last of what wasn't seen ended, in Unix time."""
    (kind, name), last = key, -inf
    for number, attempt in enumerate(_attempts(step), start=1):
        if unseen >> number & 1:
            seconds, end = _span(attempt, now)
            last = max(last, end)
            if end >= since:
                new.attempts.append(FinishedAttempt(name, attempt.outcome, seconds))
    if unseen & 1:
        seconds, end = _span(step, now)
        last = max(last, end)
        if end >= since:
            attempts = len(step.attempts or ()) if step.finished is None else None
            new.steps.append(FinishedStep(name, kind, step.outcome, seconds, attempts))
    return last


def _span(thing: Step | Attempt, now: float) -> tuple[float, float]:
    """Seconds that a finished thing took, and its end in Unix time.

    The end of a sleep or wait may be a plan: one that is still to come is cut at `now`.
    """
    end, until = unix(thing.end), thing.end
    if end is None or (isinstance(thing, Step) and thing.finished and end > now):
        end, until = now, _moment(now)
    return seconds(thing.start, until) or 0.0, end


def _passed(answer: Detail) -> float:
    """The latest moment that an answer shows to have passed, in Unix time.

    This machine's clock may be behind, by seconds or by days: what came after a sleep or wait
    proves that its end is no plan.
    """
    moments = [answer.start, answer.end]
    for step in answer.steps or ():
        moments += [step.start, None if step.finished else step.end]
        for attempt in step.attempts or ():
            moments += [attempt.start, attempt.end]
    return max((unix(moment) or -inf for moment in moments), default=-inf)


def _moment(now: float) -> datetime:
    return datetime.fromtimestamp(now, UTC)


def _figures(answer: Detail, status: str) -> Figures:
    steps = answer.steps or []
    attempts = {"success": 0, "failure": 0, "running": 0}
    for step in steps:
        for attempt in step.attempts or ():
            attempts[attempt.outcome] += 1
    error = answer.error
    failing = _failing_step(steps, error) if error else None
    return Figures(
        status=status,
        version_id=answer.version_id or "",
        trigger=(answer.trigger and answer.trigger.source) or "unknown",
        error_name=_error_name(error, failing) if error else None,
        error_step=failing.name if failing else None,
        step_count=len(steps) if answer.step_count is None else int(answer.step_count),
        steps=dict(Counter((step.type or "unknown", step.outcome) for step in steps)),
        attempts=attempts,
        retries=sum(max(0, len(step.attempts or ()) - 1) for step in steps),
        open_steps=()
        if status in ENDED
        else tuple(
            OpenStep(step.name, step.type or "unknown", len(step.attempts or ()), unix(step.start))
            for step in steps
            if step.name and step.outcome == "running"
        ),
        queued=unix(answer.queued) or 0.0,
        start=unix(answer.start),
        end=unix(answer.end),
        queue_duration=seconds(answer.queued, answer.start),
        run_duration=seconds(answer.start, answer.end) if status in ENDED else None,
    )


def _step_error(step: Step) -> Error | None:
    attempts = _attempts(step)
    return step.error or (attempts[-1].error if attempts else None)


def _failing_step(steps: list[Step], error: Error) -> Step | None:
    """The step whose failure an instance's error comes from, if it comes from one.

    The answer doesn't say. It is the step that failed last, unless another began after it (the
    workflow had caught the failure and went on) or the error is another one (thrown outside a
    step, after a failure was caught).
    """
    ahead = [step for step in steps if step.type not in _AFTERMATH]
    failed = [step for step in ahead if step.outcome == "failure" and step.end]
    if not failed:
        return None
    last = max(failed, key=lambda step: unix(step.end) or 0.0)
    if any((unix(step.start) or 0.0) > (unix(last.end) or 0.0) for step in ahead):
        return None
    cause = _step_error(last)
    if cause is None:
        return last
    same_name = cause.name == error.name and not _is_generic(error)
    # Of a large answer there is only the beginning of each message, and a name may be before it.
    said = (cause.message or "")[:100]
    return last if same_name or said in (error.message or "") else None


def _is_generic(error: Error) -> bool:
    return error.name in (None, "", "Error")


def _error_name(error: Error, failing: Step | None) -> str:
    # The engine may flatten the instance's error to `Error`; the attempt keeps the real name.
    cause = _step_error(failing) if failing else None
    if _is_generic(error) and cause is not None and cause.name:
        return cause.name
    return error.name or "Error"
