"""List rows: what they show of an instance's run, without its steps. Pure, like the tracker.

A row never names the run: `created_on` differs from `queued` by a millisecond or two, and stays
through a restart. It belongs to the known run unless its start or end moved, was removed or came
before that run was queued; then one detail response decides. An ended run that is live again, with
its start as it was, was restarted from a step.
"""

from math import inf

from msgspec.structs import replace

from exporter.cloudflare.models import Row, seconds, unix
from exporter.instances.run_tracker import APART, FinishedRun, Observations, Run, Tracked, same_time
from exporter.instances.state_records import LastRow
from exporter.instances.values import InstanceValues
from exporter.statuses import BEFORE_END, ENDED


def has_times(row: Row) -> bool:
    """Whether a row shows more than the status; the local engine's don't. Nor does one of an ended
    run that lacks the end: it may be history, or the run before a restart."""
    if row.status in ENDED and row.ended_on is None:
        return False
    return any(unix(time) is not None for time in (row.modified_on, row.started_on, row.ended_on))


def news_of(row: Row, last: LastRow) -> LastRow | None:
    """What a row shows that the last one didn't; None where it shows nothing new, or comes from a
    replica that is behind. What it lacks is as it was."""
    created, modified = unix(row.created_on), unix(row.modified_on)
    new = LastRow(
        row.status,
        last.created if created is None else created,
        last.modified if modified is None else modified,
    )
    is_older = (new.modified or inf) < (last.modified or -inf)
    return None if new == last or is_older else new


def take_row(
    run: Run | None, values: InstanceValues | None, row: Row, *, now: float, since: float = -inf
) -> Tracked | None:
    """Takes in one row.

    Args:
        run: What was known of the instance, None on first sight.
        values: What it showed, None on first sight.
        row: The row, with an id, a status and times.
        now: Unix time at which it arrived.
        since: Unix time; what ended before it is history and not observed.

    Returns:
        What is known now, or None when only a detail response shows which run this is.
    """
    status = row.status or "unknown"
    ended = status in ENDED
    start, end = unix(row.started_on), unix(row.ended_on)
    if run is not None:
        moments = [moment for moment in (start, end) if moment is not None]
        earlier = any(moment + APART < (run.queued or -inf) for moment in moments)
        earlier = earlier or (end is not None and end + APART < run.newest)
        other = run.start is not None and start is None
        live_again = run.end_observed and status in BEFORE_END
        end_moved = ended and not same_time(run.end, end)
        if earlier or other or end_moved or not same_time(run.start, start):
            return None
        if live_again:
            run = _restarted(run, unix(row.modified_on))
            if run is None:
                return None
    known = run or Run(queued=None, status="")
    new = Observations()
    # A row shows when the first run was queued; whether a later one was since, polls show.
    created = unix(row.created_on)
    first = known.queued is None and created is not None and created >= since
    waited = seconds(row.created_on, row.started_on) if first else None
    if start is not None and not known.queue_observed and start >= since:
        new.queue_duration = waited
    if ended and not known.end_observed and (now if end is None else end) >= since:
        new.run = FinishedRun(status, seconds(row.started_on, row.ended_on))
    by_row = ended and (known.ended_by_row or known.status not in ENDED)
    now_known = replace(
        known,
        # One that was still queued may have been restarted before it began.
        queued=None if known.start is None and (ended or start is not None) else known.queued,
        status=status,
        start=known.start if start is None else start,
        end=end if ended else None,
        queue_observed=known.queue_observed or waited is not None,
        end_observed=known.end_observed or ended,
        step_count=0 if by_row else known.step_count,
        ended_by_row=by_row,
    )
    return Tracked(now_known, _values(values, row, now_known, waited), new)


def _restarted(run: Run, modified: float | None) -> Run | None:
    """An ended run that was restarted from a step at a Unix time; None where the row that shows it
    live may be older than its end: they come from different stores."""
    if run.start is None or modified is None or modified - APART <= max(run.newest, run.end or 0.0):
        return None
    return replace(run, end=None, end_observed=False, newest=modified - APART)


def _values(
    known: InstanceValues | None, row: Row, run: Run, waited: float | None
) -> InstanceValues:
    ended = run.status in ENDED
    base = known or InstanceValues(
        run.status, row.version_id or "", row.trigger_source or "unknown"
    )
    return replace(
        base,
        status=run.status,
        version_id=row.version_id or base.version_id,
        error_name=None if run.status in BEFORE_END else base.error_name,
        error_step=None if run.status in BEFORE_END else base.error_step,
        open_steps=() if ended else base.open_steps,
        start=base.start if run.start is None else run.start,
        end=run.end,
        queue_duration=waited if base.queue_duration is None else base.queue_duration,
        run_duration=seconds(row.started_on, row.ended_on) if ended else None,
    )
