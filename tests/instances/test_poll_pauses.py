"""When an instance is polled next, and its steps are fetched: each reason with its bounds."""

from math import inf

import pytest

from exporter.cloudflare.errors import RequestFailed
from exporter.instances import poll_pauses
from exporter.instances.instance import Instance, LastPoll, PollReason, PollRequest, Scope
from exporter.instances.run import Run
from exporter.instances.state_records import LastRow
from exporter.instances.values import InstanceValues
from tests.instances.polling import POLL, at
from tests.instances.times import EPOCH

AT = 1000.0
"""When the request under way was made. On the monotonic clock, `EPOCH` is 0."""
MIB = 2**20


NOW = at(AT + 1)


def instance(
    status: str = "running",
    *,
    scope: Scope = Scope.DISCOVERED,
    end: float | None = None,
    row: LastRow | None = None,
    **fields: object,
) -> Instance:
    """One that was queued at 0 and whose detail response, of 900 s, showed it until 890 s.

    Args:
        end: When its run ended, in seconds.
        row: Its last row; None: as its run is.
    """
    ended_at = None if end is None else EPOCH + end
    run = Run(EPOCH, status, EPOCH + 1, ended_at, newest=EPOCH + 890)
    made = Instance("a", scope, POLL, since=-inf, detailed_at=900.0)
    made.run, made.values = run, InstanceValues(status, "v1", "api")
    made.row = row or LastRow(status, EPOCH, EPOCH + 890)
    made.activity = PollRequest(AT, "simple", PollReason.DUE)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def listed(status: str, modified: float | None) -> LastRow:
    return LastRow(status, EPOCH, None if modified is None else EPOCH + modified)


class TestAfterAFailure:
    FAILURE = RequestFailed("http_5xx", "HTTP 500")

    @pytest.mark.parametrize(
        ("since_the_last", "pause"), [(0, 15), (7, 15), (8, 16), (200, 400), (400, 600)]
    )
    def test_it_is_twice_the_time_since_the_last(self, since_the_last: float, pause: float) -> None:
        last = LastPoll(PollRequest(NOW.monotonic - since_the_last, "simple", PollReason.DUE))
        first = instance(last_poll=last)
        assert poll_pauses.after_failure(first, NOW) == POLL.interval
        again = instance(last_poll=LastPoll(last.request, self.FAILURE))
        assert poll_pauses.after_failure(again, NOW) == pause


@pytest.mark.parametrize(
    ("size", "pause"),
    [(0, 0), (MIB / 4, 0), (MIB / 4 + 1, 15), (MIB, 60), (60 * MIB, 3600), (100 * MIB, 3600)],
)
def test_progress_alone_waits_as_long_as_the_last_response_was_large(
    size: int, pause: float
) -> None:
    assert poll_pauses.after_detail(instance(), int(size)) == pytest.approx(pause, abs=0.001)


class TestDue:
    """After a response that was taken."""

    @pytest.mark.parametrize(
        ("polled", "due"),
        [
            (instance(), AT + POLL.interval),
            (instance("paused"), AT + POLL.interval),
            (instance("errored", end=890), inf),
            (instance("errored", end=890, row=listed("errored", None)), AT + POLL.ended_interval),
            (instance("errored", end=890, scope=Scope.CONFIGURED), AT + POLL.ended_interval),
        ],
        ids=["live", "paused", "lists show a restart", "rows have no times", "configured"],
    )
    def test_by_what_it_is(self, polled: Instance, due: float) -> None:
        assert poll_pauses.due_after(polled, NOW) == due

    @pytest.mark.parametrize(
        ("polled", "pause"),
        [
            (instance(row=listed("errored", 1000)), POLL.interval),
            (instance(row=listed("errored", 901)), 100),
            (instance(row=listed("errored", 892)), 109),
            (instance("errored", end=890, row=listed("errored", 901)), 100),
        ],
        ids=["just now", "a while ago", "longer ago", "ended, maybe once more"],
    )
    def test_as_long_after_a_newer_row_as_that_is_old(self, polled: Instance, pause: float) -> None:
        assert poll_pauses.due_after(polled, NOW) == AT + pause

    @pytest.mark.parametrize(
        "polled",
        [
            instance(row=listed("running", 901)),
            instance(row=listed("errored", 891)),
            instance(scope=Scope.CONFIGURED, row=listed("errored", 1000)),
        ],
        ids=["same status", "not newer", "configured"],
    )
    def test_other_rows_change_nothing(self, polled: Instance) -> None:
        assert poll_pauses.due_after(polled, NOW) == AT + POLL.interval

    def test_an_old_row_of_an_end_changes_nothing(self) -> None:
        later = at(901 + POLL.detail_refresh)
        polled = instance("errored", end=890, row=listed("errored", 901))
        assert poll_pauses.due_after(polled, later) == inf

    @pytest.mark.parametrize(
        ("age", "scope", "pause"),
        [
            (0, Scope.DISCOVERED, POLL.interval),
            (100, Scope.DISCOVERED, 100),
            (10**5, Scope.DISCOVERED, POLL.ended_interval),
            (None, Scope.DISCOVERED, POLL.interval),
            (100, Scope.CONFIGURED, POLL.interval),
        ],
    )
    def test_after_a_response_that_is_behind(
        self, age: float | None, scope: Scope, pause: float
    ) -> None:
        row = listed("errored", None if age is None else NOW.monotonic - age)
        due = poll_pauses.due_after(instance(row=row, scope=scope), NOW, behind=True)
        assert due == AT + pause


OPEN = {("step", "running"): 1, ("step", "success"): 2}


class TestOutlived:
    """Steps that were open when their run ended."""

    @pytest.mark.parametrize(
        ("polled", "outlived"),
        [
            (instance("errored", end=890), True),
            (instance("complete", end=890), True),
            (instance("complete", end=301), True),
            (instance("complete", end=300), False),
            (instance("terminated", end=890), False),
            (instance("errored"), False),
            (instance(end=890), False),
        ],
        ids=["errored", "complete", "seen soon", "seen late", "stopped", "no end", "live"],
    )
    def test_of_which_runs(self, polled: Instance, *, outlived: bool) -> None:
        assert not poll_pauses.outlived(polled, NOW)
        polled.values = InstanceValues(polled.status or "", "v1", "api", steps=OPEN)
        assert poll_pauses.outlived(polled, NOW) is outlived

    @pytest.mark.parametrize("steps", [None, {}, {("step", "running"): 0, ("step", "success"): 2}])
    def test_none_were_open(self, steps: dict[tuple[str, str], int] | None) -> None:
        polled = instance("errored", end=890)
        polled.values = InstanceValues("errored", "v1", "api", steps=steps)
        assert not poll_pauses.outlived(polled, NOW)

    @pytest.mark.parametrize("nothing", ["run", "values"])
    def test_nothing_is_known(self, nothing: str) -> None:
        polled = instance("errored", end=890)
        setattr(polled, nothing, None)
        assert not poll_pauses.outlived(polled, NOW)

    @pytest.mark.parametrize(
        ("scope", "detail_after", "due"),
        [
            (Scope.DISCOVERED, 0, AT + POLL.detail_refresh),
            (Scope.DISCOVERED, AT + 5000, AT + 5000),
            (Scope.CONFIGURED, AT + 5000, AT + POLL.ended_interval),
        ],
        ids=["small", "large", "polled before"],
    )
    def test_are_followed(self, scope: Scope, detail_after: float, due: float) -> None:
        polled = instance("errored", end=890, scope=scope, detail_after=detail_after)
        polled.values = InstanceValues("errored", "v1", "api", steps=OPEN)
        assert poll_pauses.due_after(polled, NOW) == due
