"""An instance, and polls of it, with responses and rows as they come one after another."""

from datetime import timedelta
from math import inf

from exporter.clock import Moment
from exporter.cloudflare.errors import RequestFailed
from exporter.cloudflare.models import Detail, Row, Summary
from exporter.config.settings import Poll
from exporter.instances import lifecycle
from exporter.instances.instance import Effects, Instance, PollRequest, Scope
from exporter.statuses import ENDED
from tests.instances.times import EPOCH, QUEUED

POLL = Poll()
FAILURE = RequestFailed("http_5xx", "HTTP 500")


def at(seconds: float) -> Moment:
    """The moment `seconds` after the instance was queued, which is 0 on the monotonic clock."""
    return Moment(seconds, EPOCH + seconds, EPOCH + seconds)


def detail(status: str = "running", steps: int = 0) -> Detail:
    end = QUEUED + timedelta(seconds=9) if status in ENDED else None
    return Detail(queued=QUEUED, start=QUEUED, end=end, status=status, step_count=steps)


def simple(status: str = "running", steps: int = 0) -> Summary:
    known = detail(status, steps)
    return Summary(
        queued=known.queued,
        start=known.start,
        end=known.end,
        status=status,
        step_count=steps,
    )


def row(status: str, modified: float) -> Row:
    end = QUEUED + timedelta(seconds=9) if status in ENDED else None
    moved = QUEUED + timedelta(seconds=modified)
    return Row(
        id="a", status=status, created_on=QUEUED, started_on=QUEUED, ended_on=end, modified_on=moved
    )


def new(scope: Scope = Scope.CONFIGURED) -> Instance:
    return Instance("a", scope, POLL, since=-inf, due=0.0)


def begun(instance: Instance, seconds: float) -> PollRequest:
    """Its poll, begun."""
    lifecycle.on_due(instance)
    return lifecycle.on_turn(instance, at(seconds))


def polled(instance: Instance, seconds: float, status: str = "running", steps: int = 0) -> Effects:
    """What the detail request of a poll brought."""
    begun(instance, seconds)
    return lifecycle.on_detail(instance, at(seconds), detail(status, steps), 100)


def known(scope: Scope, status: str = "running") -> Instance:
    """An instance with a detail response of 10 seconds."""
    instance = new(scope)
    polled(instance, 10, status)
    return instance
