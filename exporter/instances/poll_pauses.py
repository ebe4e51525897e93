"""For how long an instance isn't polled, or not for its steps: after a failure, after a large
response, and once it has ended. Pure: all in seconds, moments of the monotonic clock.
"""

from math import inf

from exporter.clock import Moment
from exporter.instances.instance import Instance
from exporter.statuses import ENDED

_NOT_STOPPED = ENDED - {"terminated"}
_FREE = 256 * 1024
"""Bytes of detail responses, a `poll.interval`, that an instance's progress may cost. After a
larger one the next has to wait as many intervals as it is larger: so what a long run costs grows
with its steps, not with their square."""
_LONGEST = 3600.0


def after_failure(instance: Instance, *, now: Moment) -> float:
    """The pause after one more failure: twice as long as the one before, so that what fails for
    ever costs next to nothing."""
    last, pause = instance.last_poll, 0.0
    if last.failure is not None and last.request is not None:
        pause = 2 * (now.monotonic - last.request.at)
    return max(min(pause, instance.poll.ended_interval), instance.poll.interval)


def after_detail(instance: Instance, size: int) -> float:
    """How long progress alone is no reason for another detail response, after one of `size`
    bytes."""
    return min(instance.poll.interval * size / _FREE, _LONGEST) if size > _FREE else 0.0


def due_after(instance: Instance, *, now: Moment) -> float:
    """When an instance is polled next after a response that was taken. An ended one moves only by a
    restart, which lists show, or a poll once in a while, and by steps that outlive the run."""
    if instance.is_behind or ended_behind(instance, now=now):
        # The response is of a replica that is behind.
        return due_once_caught_up(instance, now=now)
    at, poll = instance.request.at, instance.poll
    if not instance.has_ended:
        return at + poll.interval
    due = at + (inf if lists_show_restarts(instance) else poll.ended_interval)
    if outlived(instance, now=now):
        due = min(due, max(at + poll.detail_refresh, instance.detail_after))
    return due


def ended_behind(instance: Instance, *, now: Moment) -> bool:
    """Whether the row of an ended instance changed after all that responses show, not long ago: it
    may have been restarted, and have ended as before."""
    age = now.steady - (instance.row.modified or -inf)
    return instance.has_ended and instance.row_is_newer and age < instance.poll.detail_refresh


def due_once_caught_up(instance: Instance, *, now: Moment) -> float:
    """When an instance is polled again after a response of a replica that is behind: a configured
    one soon, a discovered one after as long as its row has been as it is, which may be for ever."""
    age = 0.0 if instance.configured else now.steady - (instance.row.modified or inf)
    poll = instance.poll
    return instance.request.at + max(min(age, poll.ended_interval), poll.interval)


def lists_show_restarts(instance: Instance) -> bool:
    """Whether lists show a restart of an instance that has ended, however soon it ends again."""
    return not instance.configured and instance.row.modified is not None


def outlived(instance: Instance, *, now: Moment) -> bool:
    """Whether steps may outlive the run: the last detail response showed some that were open beside
    the one that ended it, and came soon after. The engine stops them only where it terminates."""
    run, values = instance.run, instance.values
    if run is None or run.end is None or run.status not in _NOT_STOPPED:
        return False
    known = (values and values.steps) or {}
    seen = now.steady - now.monotonic + instance.detailed_at
    left_open = any(count for (_, outcome), count in known.items() if outcome == "running")
    return left_open and seen < run.end + instance.poll.ended_interval
