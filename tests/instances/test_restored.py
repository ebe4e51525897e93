"""What an instance is after a restart of the exporter, or when it comes back into the
configuration: each field of its record."""

from math import inf

import pytest
from msgspec.structs import replace

from exporter.clock import Moment
from exporter.instances import lifecycle
from exporter.instances.instance import Instance, LastPoll, Scope
from exporter.instances.run import Run
from exporter.instances.state_records import InstanceRecord, LastRow
from exporter.instances.values import InstanceValues
from tests.instances.polling import POLL
from tests.instances.times import EPOCH

NOW = Moment(100.0, EPOCH + 5000, EPOCH + 5000)
"""The machine was started 4,900 s after `EPOCH`, so the monotonic clock is behind by that."""


def ago(seconds: float) -> float:
    """Unix time, as records have it."""
    return NOW.unix - seconds


def record(status: str = "running", **fields: object) -> InstanceRecord:
    """Of a discovered instance with series, whose detail response is 40 s old."""
    ended = status in ("complete", "errored", "terminated")
    run = Run(EPOCH, status, EPOCH + 1, ago(60) if ended else None, newest=ago(60))
    of_it = InstanceRecord(
        since=EPOCH,
        shown=True,
        run=run,
        values=InstanceValues(status, "v1", "api"),
        last_change=ago(50),
        detailed_at=ago(40),
        row=LastRow(status, EPOCH, ago(60)),
    )
    return replace(of_it, **fields)


def restored(
    of_it: InstanceRecord, scope: Scope = Scope.COUNTED, list_pass_at: float | None = None
) -> Instance:
    due = NOW.monotonic if scope is Scope.CONFIGURED else inf
    instance = Instance("a", scope, POLL, since=ago(1), due=due)
    lifecycle.restore(instance, NOW, of_it, list_pass_at=list_pass_at)
    return instance


def test_all_that_was_known_is_known_again() -> None:
    of_it = record(wants_detail=True, not_found=1)
    instance = restored(of_it)
    assert (instance.run, instance.values, instance.row) == (of_it.run, of_it.values, of_it.row)
    assert (instance.since, instance.last_change) == (EPOCH, ago(50))
    assert instance.detailed_at == NOW.monotonic - 40
    assert instance.wants_detail
    assert instance.last_poll == LastPoll(not_found=1)
    assert instance.record(NOW) == of_it


@pytest.mark.parametrize(
    ("scope", "of_it", "after"),
    [
        (Scope.COUNTED, record(), Scope.DISCOVERED),
        (Scope.COUNTED, record(shown=False), Scope.COUNTED),
        (Scope.COUNTED, record(removed_at=ago(5)), Scope.COUNTED),
        (Scope.CONFIGURED, record(), Scope.CONFIGURED),
        (Scope.CONFIGURED, record(removed_at=ago(5)), Scope.CONFIGURED),
    ],
    ids=["with series", "without", "removed", "configured", "configured again"],
)
def test_it_has_series_if_it_had_some(scope: Scope, of_it: InstanceRecord, after: Scope) -> None:
    assert restored(of_it, scope).scope is after


@pytest.mark.parametrize("scope", [Scope.COUNTED, Scope.CONFIGURED])
def test_times_of_a_clock_that_was_ahead_are_as_of_now(scope: Scope) -> None:
    instance = restored(record(detailed_at=ago(-40), last_change=ago(-50)), scope)
    assert (instance.detailed_at, instance.checked_at) == (NOW.monotonic, NOW.monotonic)


@pytest.mark.parametrize(
    ("of_it", "expires"),
    [
        (record(), None),
        (record(expires_at=ago(-20)), 120.0),
        (record(expires_at=ago(20)), 80.0),
        (record(expires_at=ago(-(10**6))), 100 + POLL.forget_after),
        (record(expires_at=ago(20), wants_detail=True), 100 + POLL.forget_after),
        (record(expires_at=ago(-20), removed_at=ago(5)), None),
    ],
    ids=["not", "soon", "past", "by a clock ahead", "steps to be fetched", "removed"],
)
def test_its_series_expire_as_they_would_have(of_it: InstanceRecord, expires: float | None) -> None:
    instance = restored(of_it)
    assert instance.expires_at == expires
    recorded = instance.record(NOW).expires_at
    assert recorded == (None if expires is None else NOW.unix + expires - NOW.monotonic)


@pytest.mark.parametrize(
    ("scope", "list_pass_at", "checked_at"),
    [
        (Scope.COUNTED, None, 60.0),
        (Scope.COUNTED, 90.0, 90.0),
        (Scope.COUNTED, 10.0, 60.0),
        (Scope.CONFIGURED, 90.0, 60.0),
    ],
)
def test_its_status_is_known_as_of_a_poll_or_of_a_list_pass(
    scope: Scope, list_pass_at: float | None, checked_at: float
) -> None:
    assert restored(record(), scope, list_pass_at).checked_at == checked_at


def test_its_status_was_known_when_it_last_changed() -> None:
    assert restored(record(detailed_at=ago(3000))).checked_at == 50.0


ENDED = record("complete")
OPEN = InstanceValues("complete", "v1", "api", steps={("step", "running"): 1})


@pytest.mark.parametrize(
    ("of_it", "due"),
    [
        (record(), 100.0),
        (record("paused"), 100.0),
        (ENDED, inf),
        (replace(ENDED, row=LastRow("complete", EPOCH, ago(50))), 100.0),
        (replace(ENDED, row=LastRow("complete", EPOCH)), 100.0),
        (replace(ENDED, values=OPEN), 100.0),
        (replace(ENDED, wants_detail=True), 100.0),
        (InstanceRecord(since=EPOCH), inf),
        (InstanceRecord(since=EPOCH, wants_detail=True), 100.0),
    ],
    ids=[
        "live",
        "paused",
        "ended",
        "row is newer",
        "rows have no times",
        "open steps",
        "steps to be fetched",
        "unseen",
        "announced",
    ],
)
def test_a_discovered_one_is_polled_unless_lists_would_show_a_change(
    of_it: InstanceRecord, due: float
) -> None:
    assert restored(of_it).due == due


def test_a_configured_one_is_polled() -> None:
    assert restored(ENDED, Scope.CONFIGURED).due == NOW.monotonic
