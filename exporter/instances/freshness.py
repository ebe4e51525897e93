"""Whether a response is newer than what is known of a run, older, or about another run. Pure.

A response may come from a database replica that is behind, and a restart from a step takes known
steps and ends back. So what lacks something that is known may be older or newer; times decide. That
of a list row, `list_rows` decides.
"""

from enum import Enum, auto
from math import inf

from exporter.cloudflare.models import AFTERMATH, Detail, Summary
from exporter.cloudflare.times import unix
from exporter.instances.run import APART, Run, from_mark, same_time
from exporter.instances.step_identity import StepKey
from exporter.instances.values import InstanceValues
from exporter.statuses import BEFORE_END, ENDED, UNDER_WAY, UNKNOWN

_ROW_LATE = 60.0
"""Seconds by which the end in a row may be later than the end in a response."""


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
    if later := later_by(run, response):
        return Freshness.NEWER if later > 0 else Freshness.BEHIND
    if _lacks(run, response):
        return Freshness.UNDECIDED
    status, steps = response.status or UNKNOWN, response.step_count
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


def later_by(run: Run, response: Summary) -> float:
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


def is_older(known: Run, response: Detail, finished: dict[StepKey, int], newest: float) -> bool:
    """Whether a detail response of the known run comes from a database replica that is behind.

    It does if it lacks something that is known, unless one of its times is later than every known
    time: then the run was restarted from a step, which deletes known steps and runs them again.

    Args:
        finished: What has finished of each step by the response, as bits (see `Marks`).
        newest: The response's latest time, in Unix time.
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
    return any(from_mark(mark) & ~finished.get(key, 0) for key, mark in known.marks.items())


def _known_until(known: Run) -> float:
    """The Unix time up to which a run is known."""
    if known.ended_by_row and known.end is not None:
        # Only a row has shown this end, and rows come from another store.
        return known.end + APART
    return known.newest


def _lacks(known: Run, response: Summary) -> bool:
    """Whether a response lacks a status, a start, an end or steps that are known of the run."""
    no_status = not response.status and known.status not in ("", UNKNOWN)
    unstarted = known.start is not None and response.start is None
    return no_status or unstarted or _lacks_steps_or_end(known, response)


def _lacks_steps_or_end(known: Run, response: Summary) -> bool:
    fewer = response.step_count is not None and int(response.step_count) < known.step_count
    return fewer or (known.status in ENDED and response.status in BEFORE_END)


def was_restarted(known: Run, response: Detail) -> bool:
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
