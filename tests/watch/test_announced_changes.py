"""Whether what is known of an instance shows the change that an event announced."""

from math import inf

import pytest

from exporter.cloudflare.event_queue import Event
from exporter.instances.instance import Instance, Scope
from exporter.instances.run import Run
from exporter.instances.state_records import LastRow
from exporter.instances.values import InstanceValues, OpenStep
from exporter.watch.events import shows
from tests.instances.polling import POLL
from tests.instances.times import EPOCH

STEP = OpenStep("pay-1", "step", attempts=2, start=EPOCH, retry_limit=5.0)
SLEEP = OpenStep("nap-1", "sleep", attempts=0, start=EPOCH)


def known(status: str, moved: float, *open_steps: OpenStep) -> Instance:
    """An instance whose last known time is in seconds since `EPOCH`."""
    instance = Instance("a", Scope.DISCOVERED, POLL, since=EPOCH)
    instance.run = Run(EPOCH, status, newest=EPOCH + moved)
    instance.values = InstanceValues(status, "v1", "api", open_steps=open_steps)
    return instance


def event(kind: str, at: float) -> Event:
    """An event at a second since `EPOCH`."""
    return Event(kind, "acc", "orders", "a", EPOCH + at)


@pytest.mark.parametrize(
    ("kind", "instance", "shown"),
    [
        ("completed", known("complete", 100), True),
        ("completed", known("complete", 98), False),  # the end before a restart
        ("completed", known("running", 100), False),
        ("completed", known("running", 102), True),  # restarted since
        ("completed", known("running", 100, STEP), False),
        ("errored", known("errored", 100), True),
        ("errored", known("errored", 98), False),
        ("errored", known("running", 100, STEP), True),  # only an attempt failed
        ("errored", known("running", 100, SLEEP), False),
        ("errored", known("running", 98, STEP), False),
        ("errored", known("complete", 100), False),
        ("terminated", known("terminated", 100), True),
        ("terminated", known("running", 100), False),
        ("paused", known("paused", 50), True),  # responses have no time of a pause
        ("paused", known("waitingForPause", 50), True),
        ("paused", known("running", 50), False),
        ("paused", known("running", 102), True),
        ("queued", known("queued", 50), True),
        ("queued", known("running", 50), True),
        ("queued", known("complete", 50), False),  # to be restarted
        ("queued", known("complete", 100), True),
        ("started", known("running", 50), True),
        ("started", known("queued", 50), False),
        ("started", known("paused", 50), False),  # to be resumed
        ("started", known("complete", 50), False),
        ("started", known("complete", 100), True),
    ],
)
def test_a_change_is_shown_by_a_status_that_is_as_new(
    kind: str, instance: Instance, shown: bool
) -> None:
    assert shows(instance, event(kind, 100)) is shown


def test_a_row_may_show_a_change_that_no_response_has_shown_yet() -> None:
    instance = known("running", 50)
    instance.row = LastRow("running", EPOCH, EPOCH + 102)
    assert shows(instance, event("errored", 100))


def test_an_event_without_a_time_is_shown_by_any_that_is_known() -> None:
    assert shows(known("running", 50), event("errored", -inf))


@pytest.mark.parametrize("at", [100, -inf])
def test_nothing_is_shown_of_one_that_is_unknown(at: float) -> None:
    assert not shows(Instance("a", Scope.CONFIGURED, POLL, since=EPOCH), event("queued", at))
