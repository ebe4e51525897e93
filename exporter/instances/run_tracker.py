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
Whether a response is older than what is known, `freshness` decides.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from math import inf

from exporter.cloudflare.models import Attempt, Detail, Step
from exporter.cloudflare.times import latest, seconds, unix
from exporter.instances.freshness import is_older, later_by, was_restarted
from exporter.instances.run import (
    FinishedAttempt,
    FinishedRun,
    FinishedStep,
    Observations,
    Run,
    Tracked,
    as_mark,
    from_mark,
    same_time,
)
from exporter.instances.step_identity import shared, step_keys
from exporter.instances.values import values_of
from exporter.statuses import ENDED, UNKNOWN


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
    later = 0.0 if run is None else later_by(run, response)
    if later < 0:
        return None
    known = run if run is not None and not later else Run(queued=None, status="")
    keys = step_keys(response.steps or (), known.marks)
    steps = [(step, key, _bits(step)) for step, key in zip(response.steps or (), keys, strict=True)]
    finished = dict.fromkeys(keys, 0)
    for _, key, bits in steps:
        finished[key] |= bits  # a response may list a step twice
    newest = unix(response.newest) or -inf
    if is_older(known, response, finished, newest):
        return None
    # This machine's clock may be behind, by seconds or by days. If the response has a time that is
    # later than the planned end of a sleep or wait, that end has passed.
    now = max(now, newest)

    end_observed = _end_was_observed(run, known, response)
    # Of a run that was restarted from a step, the known status is that of its former end.
    kept = known.status if end_observed or known.status not in ENDED else UNKNOWN
    status = response.status or kept or UNKNOWN
    start, end = unix(response.start), unix(response.end)
    new = Observations()
    waited = seconds(response.queued, response.start)
    if not known.queue_observed and (start or 0.0) >= since:
        new.queue_duration = waited
    ended = status in ENDED
    # A run without an end that was never seen before may have ended long ago.
    ended_at = end or (now if run is not None or newest == -inf else newest)
    if ended and not end_observed and ended_at >= since:
        # This response may lack the start.
        began = _moment(known.start) if start is None and known.start else response.start
        new.run = FinishedRun(status, seconds(began, response.end or _moment(ended_at)))
    # If some steps could not be read, a missing step doesn't mean that a restart deleted it.
    whole = len(steps) >= (response.step_count or 0)
    listed = set(keys)
    marks = {key: mark for key, mark in known.marks.items() if key in listed or not whole}
    # No step is taken to end after its run.
    until = end if ended and end is not None else now
    for step, key, bits in steps:
        before = from_mark(marks.get(key, 0))
        unseen = bits & ~before
        if not unseen:
            continue
        # Here, not after the loop: the response may list the step a second time.
        marks[shared(key)] = as_mark(before | bits)
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


def _end_was_observed(run: Run | None, known: Run, response: Detail) -> bool:
    """Whether the end that a response may show was observed before.

    Args:
        run: What was known of the instance.
        known: What was known of the run that the response is about.
    """
    if run is None or run is known:
        return known.end_observed and not was_restarted(known, response)
    # If both runs began at about the same time, a row that has shown this end was taken to be about
    # the run before.
    of_row = run.ended_by_row and same_time(run.start, unix(response.start))
    return of_row and response.status in ENDED and same_time(run.end, unix(response.end))


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
    parts = [part for step in response.steps or () for part in (step, *(step.attempts or ()))]
    if any(part.end is None or part.outcome == "running" for part in parts):
        return None
    return unix(latest(part.end for part in parts)) or -inf


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
