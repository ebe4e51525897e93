"""List rows: what a row shows of an instance's run: its status and times, but not its steps. Pure,
like the tracker.

A row doesn't say which run it is about: its `created_on` differs from `queued` by a millisecond or
two, and stays the same through restarts. It is taken to be about the known run, unless its start or
end has moved, is missing now, or came before that run was queued. Then a detail response has to
decide. A run that had ended and is live again, with the same start, was restarted from a step.
"""

from math import inf

from msgspec.structs import replace

from exporter.cloudflare.models import Row, Summary
from exporter.cloudflare.times import latest, seconds, unix
from exporter.instances.run import APART, FinishedRun, Observations, Run, Tracked, same_time
from exporter.instances.state_records import LastRow
from exporter.instances.values import InstanceValues
from exporter.statuses import BEFORE_END, ENDED, UNKNOWN


def has_times(row: Row) -> bool:
    """Whether a row has the times that show a run. The local engine's rows have none. A row of an
    ended run without its end doesn't count: it may be history, or the run before a restart."""
    if row.status in ENDED and row.ended_on is None:
        return False
    return any(unix(time) is not None for time in (row.modified_on, row.started_on, row.ended_on))


def as_row(response: Summary) -> Row:
    """What a response without steps says, as a row that was modified at its latest time."""
    return Row(
        status=response.status,
        created_on=response.queued,
        started_on=response.start,
        ended_on=response.end,
        modified_on=latest((response.queued, response.start, response.end)),
        version_id=response.version_id,
        trigger_source=response.trigger.source if response.trigger else None,
    )


def news_of(row: Row, last: LastRow) -> LastRow | None:
    """What to remember of a row in place of the last one; None if it shows nothing new, or comes
    from a database replica that is behind. What the row lacks is taken from the last one."""
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
        values: The values that were known of it, None on first sight.
        row: The row, with an id, a status and times.
        now: Unix time at which it arrived.
        since: Unix time; what ended before it is history and not observed.

    Returns:
        What is known now, or None if only a detail response can show which run the row is about.
    """
    status = row.status or UNKNOWN
    ended = status in ENDED
    start, end = unix(row.started_on), unix(row.ended_on)
    if run is not None:
        moments = [moment for moment in (start, end) if moment is not None]
        earlier = any(moment + APART < (run.queued or -inf) for moment in moments)
        earlier = earlier or (end is not None and end + APART < run.newest)
        start_moved = (run.start is not None and start is None) or not same_time(run.start, start)
        end_moved = ended and not same_time(run.end, end)
        if earlier or start_moved or end_moved:
            return None
        if run.end_observed and status in BEFORE_END:
            run = _restarted(run, unix(row.modified_on))
            if run is None:
                return None
    known = run or Run(queued=None, status="")
    new = Observations()
    # `created_on` tells when the first run was queued, and nothing about the runs after a restart.
    created, last_queued = unix(row.created_on), (values and values.queued) or -inf
    not_before = max(since, last_queued - APART)
    may_be_first = known.queued is None and created is not None and created >= not_before
    waited = seconds(row.created_on, row.started_on) if may_be_first else None
    if not known.queue_observed:
        new.queue_duration = waited
    if ended and not known.end_observed and (now if end is None else end) >= since:
        new.run = FinishedRun(status, seconds(row.started_on, row.ended_on))
    ended_by_row = ended and (known.ended_by_row or known.status not in ENDED)
    now_known = replace(
        known,
        # If the known run was still queued, this may be another one, after a restart.
        queued=None if known.start is None and (ended or start is not None) else known.queued,
        status=status,
        start=start,
        end=end if ended else None,
        queue_observed=known.queue_observed or waited is not None,
        end_observed=known.end_observed or ended,
        step_count=0 if ended_by_row else known.step_count,
        ended_by_row=ended_by_row,
    )
    return Tracked(now_known, _values(values, row, now_known, waited), new)


def _restarted(run: Run, modified: float | None) -> Run | None:
    """An ended run after a restart from a step, shown by a row that was modified at a Unix time.

    None if that row may be older than the end of the run: the two come from different stores.
    """
    if run.start is None or modified is None or modified - APART <= max(run.newest, run.end or 0.0):
        return None
    return replace(run, end=None, end_observed=False, newest=modified - APART)


def _values(
    known: InstanceValues | None, row: Row, run: Run, waited: float | None
) -> InstanceValues:
    ended = run.status in ENDED
    base = known or InstanceValues(run.status, "", row.trigger_source or "unknown")
    return replace(
        base,
        status=run.status,
        version_id=row.version_id or base.version_id,
        error_name=None if run.status in BEFORE_END else base.error_name,
        error_step=None if run.status in BEFORE_END else base.error_step,
        open_steps=() if ended else base.open_steps,
        start=run.start,
        end=run.end,
        queue_duration=waited if base.queue_duration is None else base.queue_duration,
        run_duration=seconds(row.started_on, row.ended_on) if ended else None,
    )
