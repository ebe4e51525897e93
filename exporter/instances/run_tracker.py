"""Tracks runs: takes what is known of a run and one detail response, and returns what is known now,
the values to show, and what has finished since.

This is the heart of the exporter, and it is pure: it does no I/O, and the time is handed in. It
knows runs, steps and attempts. It does not know when an instance is polled or whether it has
series: `lifecycle` decides that.

Everything that finishes is observed exactly once, when its end is first seen, however often, late
or out of order the responses arrive. That takes identities: a run is identified by the time at
which it was queued, a step by its type, its full name (with the counter that the engine adds) and
its own start, and an attempt by its step and number. So a step that a restart deleted and ran again
is a new step. A list row doesn't have `queued`; `list_rows` decides which run a row belongs to.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import Enum, auto
from math import inf
from sys import intern
from typing import NamedTuple

from msgspec import Struct, field
from msgspec.structs import force_setattr

from exporter.cloudflare.models import AFTERMATH, Attempt, Detail, Step, Summary, seconds, unix
from exporter.instances.step_identity import StepKey, shared, step_keys
from exporter.instances.values import InstanceValues, values_of
from exporter.statuses import BEFORE_END, ENDED, UNDER_WAY

APART = 1.0
"""Seconds by which two times may differ and still mean the same moment: list rows and the responses
for an instance come from different stores."""
_ROW_LATE = 60.0
"""Seconds by which the end in a row may be later than the end in a response."""

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


class Freshness(Enum):
    """What a simple response is, compared with what is known."""

    KNOWN = auto()
    """It shows nothing new."""
    NEWER = auto()
    """It shows something new, or another run that is later."""
    BEHIND = auto()
    """It shows an earlier run: it comes from a database replica that is behind."""
    UNDECIDED = auto()
    """It lacks something that is known. Either it comes from a replica that is behind, or the
    instance was restarted from a step; a detail response shows which."""


def judge(
    run: Run, values: InstanceValues, response: Summary, *, ignore_progress: bool = False
) -> Freshness:
    """Compares a simple response, which has no times of steps, with what is known.

    Args:
        ignore_progress: Whether it is no news that the run continued with another step, or changed
            between running and waiting.
    """
    if later := _later(run, response):
        return Freshness.NEWER if later > 0 else Freshness.BEHIND
    if _lacks(run, response):
        return Freshness.UNDECIDED
    status, steps = response.status or "unknown", response.step_count
    times = (
        (run.queued, response.queued),
        (values.queued, response.queued),
        (run.start, response.start),
        (run.end, response.end),
    )
    trigger = response.trigger and response.trigger.source
    # A response may lack a time, a version or a trigger for good; that is no news.
    news = (
        status != run.status and not (ignore_progress and {status, run.status} <= UNDER_WAY),
        steps is not None and int(steps) != run.step_count and not ignore_progress,
        any(new is not None and unix(new) != known for known, new in times),
        response.version_id not in (None, values.version_id),
        trigger not in (None, values.trigger),
        response.error is not None and values.error_name is None,
    )
    return Freshness.NEWER if any(news) else Freshness.KNOWN


def track(run: Run | None, response: Detail, *, now: float, since: float = -inf) -> Tracked | None:
    """Takes in one detail response.

    Args:
        run: What was known of the instance, None on first sight.
        response: The detail response, steps in any order.
        now: Unix time at which the response arrived.
        since: Unix time; what ended before it is history and not observed.

    Returns:
        What is known now, or None if the response is older than what was known.
    """
    later = 0.0 if run is None else _later(run, response)
    if later < 0:
        return None
    known = run if run is not None and not later else Run(queued=None, status="")
    keys = step_keys(response.steps or (), known.marks)
    steps = [(step, key, _bits(step)) for step, key in zip(response.steps or (), keys, strict=True)]
    finished = dict.fromkeys(keys, 0)
    for _, key, bits in steps:
        finished[key] |= bits  # a response may list a step twice
    newest = unix(response.newest) or -inf
    if _is_older(known, response, finished, newest):
        return None
    # This machine's clock may be behind, by seconds or by days. If the response has a time that is
    # later than the planned end of a sleep or wait, that end has passed.
    now = max(now, newest)

    status = response.status or "unknown"
    start, end = unix(response.start), unix(response.end)
    new = Observations()
    waited = seconds(response.queued, response.start)
    if not known.queue_observed and (start or 0.0) >= since:
        new.queue_duration = waited
    ended = status in ENDED
    end_observed = known.end_observed and not _restarted(known, response)
    # A run without an end that was never seen before may have ended long ago.
    over = end or (now if run is not None or newest == -inf else newest)
    if ended and not end_observed and over >= since:
        # This response may lack the start.
        began = _moment(known.start) if start is None and known.start else response.start
        new.run = FinishedRun(status, seconds(began, response.end or _moment(over)))
    # If some steps could not be read, a missing step doesn't mean that a restart deleted it.
    whole = len(steps) >= (response.step_count or 0)
    listed = set(keys)
    marks = {key: mark for key, mark in known.marks.items() if key in listed or not whole}
    # No step is taken to end after its run.
    until = end if ended and end is not None else now
    for step, key, bits in steps:
        before = _from_mark(marks.get(key, 0))
        unseen = bits & ~before
        if not unseen:
            continue
        # Here, not after the loop: the response may list the step a second time.
        marks[shared(key)] = _as_mark(before | bits)
        if known.sealed > -inf:
            unseen &= _bits(step, after=known.sealed)
        _observe(step, unseen, new, now=until, since=since)
    sealed = known.sealed
    if ended and whole and (last := _last_end(response)) is not None and last <= now:
        sealed, marks = max(sealed, last), {}

    values = values_of(response, status)
    return Tracked(
        Run(
            queued=known.queued if (queued := unix(response.queued)) is None else queued,
            status=status,
            start=start,
            end=end,
            step_count=values.step_count or 0,
            queue_observed=known.queue_observed or waited is not None,
            end_observed=end_observed or ended,
            marks=marks,
            sealed=sealed,
            newest=max(newest, known.newest),
        ),
        values,
        new,
    )


def _is_older(known: Run, response: Detail, finished: dict[StepKey, int], newest: float) -> bool:
    """Whether a detail response of the known run comes from a database replica that is behind.

    It does if it lacks something that is known, unless one of its times is later than every known
    time: then the run was restarted from a step, which deletes known steps and runs them again.
    """
    if known.ended_by_row and response.status in BEFORE_END:
        return newest <= _known_until(known)
    late = APART if newest <= known.newest else _ROW_LATE
    if known.ended_by_row and (unix(response.end) or inf) + late < (known.end or -inf):
        return True
    if newest > known.newest:
        return False
    # A run that rolls back loses its end, and with it perhaps its latest time: it isn't older.
    live = known.status in BEFORE_END
    if newest < known.newest and (live or response.status in ENDED | BEFORE_END):
        return True
    if _lacks(known, response):
        return True
    return any(_from_mark(mark) & ~finished.get(key, 0) for key, mark in known.marks.items())


def _known_until(known: Run) -> float:
    """The Unix time up to which a run is known."""
    if known.ended_by_row and known.end is not None:
        # Only a row has shown this end, and rows come from another store.
        return known.end + APART
    return known.newest


def _lacks(known: Run, response: Summary) -> bool:
    """Whether a response lacks a start, an end or steps that are known of the run."""
    unstarted = known.start is not None and response.start is None
    return unstarted or _lacks_steps_or_end(known, response)


def _lacks_steps_or_end(known: Run, response: Summary) -> bool:
    fewer = response.step_count is not None and int(response.step_count) < known.step_count
    return fewer or (known.status in ENDED and response.status in BEFORE_END)


def _restarted(known: Run, response: Detail) -> bool:
    """Whether a run that had ended was restarted from a step; `response` is newer than its end.

    A rollback moves the end of a run, too. But it deletes no steps, begins only steps of its own
    type, and ends with the status that the run already had.
    """
    ended_otherwise = known.status in ENDED and response.status in ENDED - {known.status}
    if ended_otherwise or _lacks_steps_or_end(known, response):
        return True
    steps, until = response.steps or (), _known_until(known)
    begun = [step for step in steps if (unix(step.start) or -inf) > until]
    if begun or known.end is None:
        return any(step.type not in AFTERMATH for step in begun)
    # The step that ran again may be one that could not be read.
    read = [step for step in steps if step.start is not None or step.type in AFTERMATH]
    return len(read) < (response.step_count or len(steps)) and (unix(response.end) or 0.0) > until


def _later(run: Run, response: Summary) -> float:
    """Seconds by which the run in a response is later than the known one: 0 if it is the same run,
    negative if it is an earlier one."""
    queued, start = unix(response.queued), unix(response.start)
    if run.queued is not None and queued is not None:
        return queued - run.queued
    # Only rows have shown the known run. Both have a start, and no run is queued after its start.
    first = run.end if run.start is None else run.start
    if queued is not None and first is not None and queued - first > APART:
        return queued - first
    return 0.0 if same_time(run.start, start) else (start or 0.0) - (run.start or 0.0)


def same_time(one: float | None, other: float | None) -> bool:
    """Whether two times may mean the same moment. If one isn't known, they may."""
    return one is None or other is None or abs(one - other) <= APART


def _as_mark(bits: int) -> int | bytes:
    return bits if bits < 2**64 else bits.to_bytes(bits.bit_length() // 8 + 1)


def _from_mark(mark: int | bytes) -> int:
    return mark if isinstance(mark, int) else int.from_bytes(mark)


def _bits(step: Step, *, after: float = -inf) -> int:
    """What has finished of a step: bit 0 is the step itself, bit n its n-th attempt.

    What ended at or before `after` (Unix time) is left out. Where the end is missing, the start
    counts.
    """
    bits = 0
    for bit, part in _parts(step):
        if part.outcome == "running":
            continue
        if after == -inf or (unix(part.end) or unix(part.start) or inf) > after:
            bits |= 1 << bit
    return bits


def _parts(step: Step) -> Iterable[tuple[int, Step | Attempt]]:
    """A step and its attempts, each with its bit."""
    return enumerate((step, *step.ordered_attempts))


def _last_end(response: Detail) -> float | None:
    """When the last step or attempt ended, in Unix time; None if any has no end (yet)."""
    last = -inf
    for step in response.steps or ():
        for thing in (step, *(step.attempts or ())):
            end = unix(thing.end)
            if end is None or thing.outcome == "running":
                return None
            last = max(last, end)
    return last


def _observe(step: Step, unseen: int, new: Observations, *, now: float, since: float) -> None:
    """Adds the unseen parts of a step that ended at or after `since` to `new`."""
    name = step.name or ""
    for bit, part in _parts(step):
        duration, end = _span(part, now)
        if not unseen >> bit & 1 or end < since:
            continue
        if bit:
            new.attempts.append(FinishedAttempt(name, part.outcome, duration))
        else:
            attempts = None if step.has_planned_end else len(step.attempts or ())
            kind = step.type or "unknown"
            new.steps.append(FinishedStep(name, kind, part.outcome, duration, attempts))


def _span(thing: Step | Attempt, now: float) -> tuple[float, float]:
    """Seconds that a finished step or attempt took, and its end in Unix time.

    The end of a sleep or wait may only be planned. One that is still to come is taken to be `now`.
    """
    end = unix(thing.end)
    planned = isinstance(thing, Step) and thing.has_planned_end
    if end is not None and not (planned and end > now):
        return seconds(thing.start, thing.end) or 0.0, end
    took = seconds(thing.start, _moment(now)) or 0.0
    # Where the end is missing, the start says whether it is history.
    return took, (unix(thing.start) if end is None else None) or now


def _moment(now: float) -> datetime:
    return datetime.fromtimestamp(now, UTC)
