"""The life of an instance: when it is polled, with which request, and whether it has series. Pure.

Each function is a transition. Something happened (a row or a response came, a request failed, time
passed), the function brings the `Instance` up to date, and it returns what the caller has to do.
There is no I/O, and the time is handed in. Poller, Discovery, SeriesLimit and Events call these
functions, and nothing else writes an `Instance`. What a response means for a run and its steps,
`run_tracker` and `list_rows` decide.

An instance has one state of each kind:

    scope      CONFIGURED, DISCOVERED (with series) or COUNTED (without)
    activity   None (idle), Pending (waits for its turn) or a PollRequest (under way)
    expiry     none, or the moment at which its series expire

Its series begin to expire only when two polls in a row say that it doesn't exist, or when the
selector no longer takes it.
"""

from math import inf

from msgspec.structs import replace

from exporter.clock import Moment
from exporter.cloudflare.errors import RequestFailed
from exporter.cloudflare.models import Detail, Row, Summary
from exporter.instances import poll_pauses
from exporter.instances.freshness import Freshness, judge
from exporter.instances.instance import (
    NOTHING,
    Effects,
    Instance,
    LastPoll,
    Pending,
    PollReason,
    PollRequest,
    Scope,
)
from exporter.instances.list_rows import as_row, has_times, news_of, take_row
from exporter.instances.run import Run
from exporter.instances.run_tracker import track
from exporter.instances.state_records import InstanceRecord, LastRow
from exporter.instances.timeline import pack
from exporter.instances.urgency import Urgency
from exporter.instances.values import InstanceValues
from exporter.statuses import ENDED, ENDED_WITHOUT_ERROR

_NOT_FOUND = 2
"""How many polls in a row must say that an instance doesn't exist: a single response may come from
a database replica that is behind."""
_OLD = 3600.0
"""Seconds since a run ended or, while live, was queued, after which counting it is backfill."""


def pend(instance: Instance, urgency: Urgency, reason: PollReason) -> Pending | None:
    """Has an instance polled as soon as its turn comes.

    Returns:
        What to put into the queue; it counts for as long as it is the instance's activity. None if
        a poll is already under way, or waits with the same urgency or a higher one.
    """
    known = instance.activity
    if isinstance(known, PollRequest) or (known is not None and known.urgency <= urgency):
        return None
    if instance.last_poll.request is None:
        reason = PollReason.FIRST
    instance.activity = pending = Pending(urgency, reason)
    return pending


def on_due(instance: Instance) -> Pending | None:
    """A round found that it is due."""
    reason = PollReason.DUE if instance.failure is None else PollReason.AGAIN
    return pend(instance, Urgency.CONFIGURED, reason)


def request_detail(instance: Instance, *, unclear: bool = False) -> Pending | None:
    """Its row changed, or only rows have shown it so far: its next request is a detail request.
    After a failed poll, that waits until the pause is over. `unclear`: its row `needs_detail`."""
    status = instance.row.status
    if status == "errored" and instance.is_news:
        urgency = Urgency.ERRORED
    elif unclear or instance.is_behind:
        urgency = Urgency.MISSED  # only a response can show how it is, as after a restart
    elif status not in ENDED and instance.values is not None:
        urgency = Urgency.LIVE  # the row has shown its status, and its steps can wait
    else:
        urgency = Urgency.CHANGED
    return _pend_detail(instance, urgency, PollReason.ROW)


def on_missing_from_lists(instance: Instance) -> Pending | None:
    """A pass found it in no list: it ended, was deleted, or moved between lists as they were
    read."""
    if not instance.has_ended:
        return _pend_detail(instance, Urgency.MISSED, PollReason.MISSED)
    # Its steps are known, unless it was restarted.
    return pend(instance, Urgency.MISSED, PollReason.MISSED) if instance.failure is None else None


def on_event(instance: Instance, kind: str) -> Pending | None:
    """An event announced a change. That is only a hint; a poll shows what is true.

    Args:
        kind: One of `cloudflare.event_queue.KINDS`.
    """
    if kind == "errored":
        urgency = Urgency.ERRORED
    elif instance.configured:
        urgency = Urgency.CONFIGURED
    elif kind in ("completed", "terminated"):
        urgency = Urgency.CHANGED
    elif instance.has_series:
        urgency = Urgency.LIVE
    else:
        return None  # it is live and has no series: the next list pass is soon enough
    return _pend_detail(instance, urgency, PollReason.EVENT)


def _pend_detail(instance: Instance, urgency: Urgency, reason: PollReason) -> Pending | None:
    instance.wants_detail = True
    return pend(instance, urgency, reason) if instance.failure is None else None


def cancel(instance: Instance) -> None:
    """Its poll is no longer wanted, or was cut off."""
    instance.activity = None


def on_turn(instance: Instance, now: Moment) -> PollRequest:
    """Its turn at the budget has come. Returns the first request of the poll."""
    assert isinstance(instance.activity, Pending), "only what waits has a turn"
    reason, at = instance.activity.reason, now.monotonic
    instance.due = at + instance.poll.interval
    outlived = at >= instance.detail_after and poll_pauses.outlived(instance, now)
    due = at - instance.detailed_at >= instance.poll.detail_refresh
    refresh = (instance.live or outlived) and due
    needs_detail = (refresh or instance.wants_detail) and not instance.steps_can_wait(at)
    simple = instance.lacks_detail or (instance.detailed and not needs_detail)
    if refresh and not (simple or instance.wants_detail):
        reason = PollReason.REFRESH
    instance.activity = request = PollRequest(at, "simple" if simple else "detail", reason)
    return request


def on_simple(instance: Instance, now: Moment, response: Summary) -> Effects:
    """A simple response. If it shows news, the poll continues with a detail request."""
    at, run, values = instance.request.at, instance.run, instance.values
    can_wait = instance.steps_can_wait(at)
    if run and values and instance.lacks_detail:
        return _without_steps(instance, now, run, values, response)
    # Without these, a row has come since the request was chosen, and a detail is needed in any
    # case.
    if run and values and instance.detailed:
        freshness = judge(run, values, response, ignore_progress=can_wait)
        if freshness is Freshness.BEHIND or (can_wait and freshness is Freshness.UNDECIDED):
            return _succeeded(instance, now, behind=True)
        if freshness is Freshness.KNOWN:
            progressed = _progress(instance, now, run, values, response)
            return _succeeded(instance, now)._replace(show=progressed)
    instance.activity = PollRequest(at, "detail", PollReason.CHANGED)
    return NOTHING


def _without_steps(
    instance: Instance, now: Moment, run: Run, values: InstanceValues, response: Summary
) -> Effects:
    """Takes news from a simple response as from a list row, since detail responses can't be read.
    The poll continues with another detail request."""
    instance.activity = PollRequest(instance.request.at, "detail", instance.request.reason)
    row = as_row(response)
    if not (row.status and has_times(row)) or judge(run, values, response) is not Freshness.NEWER:
        return NOTHING
    tracked = take_row(run, values, row, now=now.steady, since=instance.since)
    if tracked is None or tracked.run == run:
        return NOTHING
    changed = _take(instance, now, tracked.run, tracked.values)
    instance.wants_detail = True
    return Effects(record=True, show=changed, observations=tracked.observations)


def on_detail(instance: Instance, now: Moment, response: Detail, size: int) -> Effects:
    """A detail response of `size` bytes."""
    instance.detail_after = now.monotonic + poll_pauses.after_detail(instance, size)
    tracked = track(instance.run, response, now=now.steady, since=instance.since)
    if tracked is None:
        return _succeeded(instance, now, behind=True)
    new, first = tracked.observations, instance.run is None
    counts = any((new.run, new.queue_duration, new.steps, new.attempts))
    moment = tracked.run.end if new.run else tracked.run.queued
    old = instance.configured and first and counts and (moment or inf) < now.steady - _OLD
    changed = _take(instance, now, tracked.run, tracked.values)
    if instance.has_series:
        instance.timeline = pack(response, now=now.steady)
    if instance.live:
        instance.expires_at = None
    instance.detailed_at = instance.request.at
    instance.wants_detail = not changed and poll_pauses.ended_behind(instance, now)
    _succeeded(instance, now)
    return Effects(record=True, show=changed, observations=new, backfilled=old)


def _succeeded(instance: Instance, now: Moment, *, behind: bool = False) -> Effects:
    """A poll succeeded. With `behind`, its response came from a database replica that is behind."""
    instance.due = poll_pauses.due_after(instance, now, behind=behind)
    found = instance.last_poll.not_found > 0
    instance.last_poll, instance.activity = LastPoll(instance.request), None
    if not behind:
        instance.checked_at = now.monotonic
    if instance.configured:
        instance.expires_at = None
    return Effects(record=found)


def on_not_found(instance: Instance, now: Moment) -> Effects:
    """The API says that it doesn't exist. After the second time in a row, its series expire."""
    count = instance.last_poll.not_found + 1
    instance.last_poll, instance.activity = LastPoll(instance.request, not_found=count), None
    if count >= _NOT_FOUND:
        if not instance.configured:
            instance.due = inf
        if instance.expires_at is None and (instance.values is not None or not instance.configured):
            instance.expires_at = now.monotonic + instance.poll.forget_after
    return Effects(record=True)


def on_failure(instance: Instance, now: Moment, failure: RequestFailed) -> Effects:
    """A request failed. Nothing that is known changes."""
    request = instance.request
    if request.kind == "detail":
        instance.detail_after = now.monotonic + poll_pauses.after_detail(instance, failure.size)
    pause = poll_pauses.after_failure(instance, now)
    # Half an interval more, since a round also polls what falls due within half an interval.
    instance.due = max(now.monotonic + pause, instance.detail_after + instance.poll.interval / 2)
    instance.activity, instance.last_poll = None, LastPoll(request, failure.without_frames())
    return NOTHING


def on_workflow_readable(instance: Instance, now: Moment) -> None:
    """Its workflow can be read again. If it failed together with all others, that was probably for
    the same reason, so its pause ends."""
    if instance.failure is not None:
        instance.due = min(instance.due, max(now.monotonic, instance.detail_after))


def _progress(
    instance: Instance, now: Moment, run: Run, values: InstanceValues, response: Summary
) -> bool:
    """Takes status and step count from a simple response that shows no other news, while the steps
    have to wait. Returns whether they have changed.

    This isn't recorded: each time, that would write thousands of steps.
    """
    steps = run.step_count if response.step_count is None else int(response.step_count)
    status = response.status or run.status
    if (run.status, run.step_count) == (status, steps):
        return False
    values = replace(values, status=status, step_count=steps)
    _take(instance, now, replace(run, status=status, step_count=steps), values)
    instance.wants_detail = True
    return True


def _take(instance: Instance, now: Moment, run: Run, values: InstanceValues) -> bool:
    """Takes what a row or a response showed. Returns whether any value changed."""
    changed = values != instance.values
    if changed:
        instance.last_change = now.unix
    instance.run, instance.values = run, values
    return changed


def on_row(instance: Instance, now: Moment, row: Row) -> Effects:
    """A list row of a discovered instance. One that shows nothing new, or is out of date, has no
    effects.

    Args:
        row: It has an id and a status.
    """
    # Of one that ended without an error, and whose steps are known, nothing is left to see.
    matters = instance.wants_detail or instance.status not in ENDED_WITHOUT_ERROR
    if instance.last_poll.not_found and matters:
        # It exists, whatever polls say.
        if instance.live:
            if instance.expires_at is not None and instance.expires_at <= now.monotonic:
                instance.last_poll, instance.row = LastPoll(), LastRow()  # it came back
            instance.expires_at = None
        instance.due = min(instance.due, now.monotonic + instance.poll.ended_interval)
    instance.checked_at = now.monotonic
    before, new = instance.row, news_of(row, instance.row)
    if new is None:
        return NOTHING
    instance.row = new
    tracked = None
    if has_times(row):
        tracked = take_row(instance.run, instance.values, row, now=now.steady, since=instance.since)
    if tracked is None:
        instance.expires_at = None  # what it shows may not be counted yet
        unclear = before.status is not None or instance.run is not None
        return Effects(record=True, needs_detail=unclear)
    # An event may have had it polled before this row came.
    known = instance.has_ended and not instance.wants_detail and not instance.row_is_newer
    repeats = known and instance.status == row.status
    if instance.has_ended and tracked.run.status not in ENDED:
        instance.detailed_at = -inf  # it was restarted, so the known steps are no longer its steps
    changed = _take(instance, now, tracked.run, tracked.values)
    return Effects(record=True, show=changed, observations=tracked.observations, repeats=repeats)


def on_configured_row(instance: Instance, status: str) -> Pending | None:
    """A list row shows the status of a configured instance. That matters where an ended one is live
    or errored now: everything else, the instance's own polls show soon enough."""
    matters = status not in ENDED_WITHOUT_ERROR and status != instance.status
    restarted = instance.has_ended and matters and instance.failure is None
    return pend(instance, Urgency.CONFIGURED, PollReason.ROW) if restarted else None


def on_selected(instance: Instance, now: Moment, *, selected: bool, placed: bool) -> Effects:
    """It was decided whether a discovered instance is selected.

    Args:
        selected: Whether the selector takes it.
        placed: Whether it gets series now.
    """
    if instance.last_poll.not_found:
        return NOTHING
    before = instance.scope, instance.expires_at
    if placed:
        instance.scope = Scope.DISCOVERED
        if instance.row_is_newer:
            instance.detailed_at = -inf  # its steps were not followed while it had no series
    if instance.status not in ENDED or (selected and instance.has_series):
        instance.expires_at = None
    elif instance.expires_at is None:
        instance.expires_at = now.monotonic + instance.poll.forget_after
    return Effects(record=(instance.scope, instance.expires_at) != before, show=placed)


def on_series_given_up(instance: Instance, now: Moment) -> Effects:
    """Its series made room for those of another one. From now on it is only counted."""
    instance.scope = Scope.COUNTED
    if instance.has_ended and instance.expires_at is None:
        instance.expires_at = now.monotonic + instance.poll.forget_after
    return Effects(record=True, hide=True)


def on_tick(instance: Instance, now: Moment, *, settled: float) -> Effects:
    """Time passed, and its series may expire; not while a request for it is under way.

    Args:
        settled: What expired before this moment (monotonic clock) is in no list as news any more.
    """
    expires = inf if instance.expires_at is None else instance.expires_at
    if expires > now.monotonic or isinstance(instance.activity, PollRequest):
        return NOTHING
    hide = instance.values is not None and instance.has_series
    if not instance.configured:
        skipped = instance.wants_detail and instance.has_ended and instance.is_news
        instance.scope, instance.wants_detail = Scope.COUNTED, False
        if skipped:
            instance.due = inf  # a detail response would have its steps counted after all
        remove = expires <= settled
        record = hide or skipped or remove
        return Effects(record=record, hide=hide, remove=remove, skipped=skipped)
    instance.values, instance.timeline, instance.expires_at = None, None, None
    instance.detailed_at, instance.row = -inf, LastRow()
    return Effects(record=True, hide=hide)


def restore(
    instance: Instance, now: Moment, record: InstanceRecord, *, list_pass_at: float | None
) -> None:
    """Takes what was recorded of an instance before the exporter restarted, or before the instance
    was removed.

    Args:
        list_pass_at: When the last list pass began (monotonic clock).
    """
    offset, removed = now.unix - now.monotonic, record.removed_at is not None
    if record.shown and not instance.configured and not removed:
        instance.scope = Scope.DISCOVERED
    instance.since, instance.last_change = record.since, record.last_change
    instance.run, instance.values, instance.row = record.run, record.values, record.row
    instance.detailed_at = min(now.monotonic, record.detailed_at - offset)
    instance.wants_detail = record.wants_detail
    instance.last_poll = LastPoll(not_found=record.not_found)
    if record.expires_at is not None and not removed:
        # The record may be old, or made by another clock. Where steps are still to be fetched, they
        # get the whole time again.
        expires = inf if record.wants_detail else record.expires_at - offset
        instance.expires_at = min(expires, now.monotonic + instance.poll.forget_after)
    instance.checked_at = min(now.monotonic, max(record.detailed_at, record.last_change) - offset)
    if not instance.configured and list_pass_at is not None:
        instance.checked_at = max(list_pass_at, instance.checked_at)
    outlived = poll_pauses.outlived(instance, now)
    unlisted = instance.has_ended and not poll_pauses.lists_show_restarts(instance)
    if instance.live or instance.row_is_newer or instance.wants_detail or outlived or unlisted:
        instance.due = now.monotonic  # maybe no list will ever show that it has to be polled
