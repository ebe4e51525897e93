"""How long an instance is not polled, or its steps are not fetched: after a failure, after a large
response, and once it has ended. Pure. Durations are seconds, moments are of the monotonic clock.
"""

from math import inf

from exporter.clock import Moment
from exporter.instances.instance import Instance
from exporter.statuses import ENDED

_NOT_STOPPED = ENDED - {"terminated"}
_FREE = 256 * 1024
"""Bytes of detail responses that the progress of an instance may cost in each `poll.interval`.
After a response of n times this size, the next one waits for n intervals. So the bytes that a long
run costs grow with its steps, not with the square of its steps."""
_LONGEST = 3600.0


def after_failure(instance: Instance, now: Moment) -> float:
    """The pause after another failure in a row: twice the time since the last one, so that an
    instance that always fails costs almost nothing."""
    last, pause = instance.last_poll, 0.0
    if last.failure is not None and last.request is not None:
        pause = 2 * (now.monotonic - last.request.at)
    return max(min(pause, instance.poll.ended_interval), instance.poll.interval)


def after_detail(instance: Instance, size: int) -> float:
    """How long progress alone is no reason for another detail request, after a response of `size`
    bytes."""
    return min(instance.poll.interval * size / _FREE, _LONGEST) if size > _FREE else 0.0


def due_after(instance: Instance, now: Moment, *, behind: bool = False) -> float:
    """When an instance is polled next, after a response.

    An ended instance changes only by a restart or by steps that outlive its run. Lists show
    restarts; where they don't, it is polled once every `poll.ended_interval`.

    After a response from a database replica that is behind, a configured instance is polled soon. A
    discovered one waits for as long as its row has been unchanged, since the response may stay
    behind for ever.

    Args:
        behind: Whether the response was not taken, as it is older than what is known.
    """
    at, poll = instance.request.at, instance.poll
    if behind or instance.is_behind or ended_behind(instance, now):
        age = 0.0 if instance.configured else now.steady - (instance.row.modified or inf)
        return at + max(min(age, poll.ended_interval), poll.interval)
    if not instance.has_ended:
        return at + poll.interval
    due = at + (inf if lists_show_restarts(instance) else poll.ended_interval)
    if outlived(instance, now):
        due = min(due, max(at + poll.detail_refresh, instance.detail_after))
    return due


def ended_behind(instance: Instance, now: Moment) -> bool:
    """Whether the row of an ended instance changed recently, after everything that responses show:
    it may have been restarted, and have ended with the same status."""
    age = now.steady - (instance.row.modified or -inf)
    return instance.has_ended and instance.row_is_newer and age < instance.poll.detail_refresh


def lists_show_restarts(instance: Instance) -> bool:
    """Whether lists show each restart of an ended instance, even if it soon ends again."""
    return not instance.configured and instance.row.modified is not None


def outlived(instance: Instance, now: Moment) -> bool:
    """Whether steps may have outlived the run: the last detail response came soon after its end,
    and showed steps that were still open. The engine stops these only when it terminates a run."""
    run, values = instance.run, instance.values
    if run is None or run.end is None or run.status not in _NOT_STOPPED:
        return False
    known = (values and values.steps) or {}
    seen = now.steady - now.monotonic + instance.detailed_at
    left_open = any(count for (_, outcome), count in known.items() if outcome == "running")
    return left_open and seen < run.end + instance.poll.ended_interval
