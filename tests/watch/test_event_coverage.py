"""The share of changes that events announced."""

import pytest

from exporter.cloudflare.event_queue import Event
from exporter.watch.event_coverage import EventCoverage, kind_of


def announced(coverage: EventCoverage, instance: str, at: float) -> None:
    coverage.announced(Event("errored", "acc", "orders", instance, at), at)


class TestTheRatio:
    def test_is_none_before_there_were_changes(self) -> None:
        coverage = EventCoverage()
        announced(coverage, "a", 0)
        assert coverage.ratio(100) is None

    def test_counts_an_event_that_comes_before_the_row_or_a_little_after(self) -> None:
        coverage = EventCoverage()
        announced(coverage, "early", 0)
        for name in ("early", "late", "never"):
            coverage.found("orders", name, "errored", 10)
        announced(coverage, "late", 39)
        assert coverage.ratio(39) is None
        assert coverage.ratio(40) == pytest.approx(2 / 3)

    def test_counts_an_event_for_one_change_only(self) -> None:
        coverage = EventCoverage()
        announced(coverage, "a", 0)
        coverage.found("orders", "a", "errored", 1)
        coverage.found("orders", "a", "errored", 2)
        assert coverage.ratio(60) == 0.5

    def test_is_of_the_last_hour(self) -> None:
        coverage = EventCoverage()
        coverage.found("orders", "a", "errored", 0)
        assert coverage.ratio(60) == 0
        announced(coverage, "b", 3000)
        coverage.found("orders", "b", "errored", 3000)
        assert coverage.ratio(3100) == 0.5
        assert coverage.ratio(3700) == 1
        assert coverage.ratio(7000) is None

    def test_takes_no_event_of_long_ago(self) -> None:
        coverage = EventCoverage()
        announced(coverage, "a", 0)
        announced(coverage, "b", 901)
        coverage.found("orders", "a", "errored", 902)
        assert coverage.ratio(1000) == 0

    def test_remembers_so_many_events_at_most(self) -> None:
        coverage = EventCoverage()
        for number in range(100_500):
            announced(coverage, str(number), number / 1000)
        assert len(coverage._announced) == 100_000


class TestEventsAreTrusted:
    @pytest.mark.parametrize(
        ("changes", "missed", "good"),
        [(99, 0, False), (100, 0, True), (100, 1, True), (100, 2, False), (1000, 10, True)],
    )
    def test_at_99_percent_of_100_changes(self, changes: int, missed: int, *, good: bool) -> None:
        coverage = EventCoverage()
        for number in range(changes):
            if number >= missed:
                announced(coverage, str(number), 0)
            coverage.found("orders", str(number), "errored", 1)
        assert coverage.is_good(60) is good


@pytest.mark.parametrize(
    ("before", "status", "kind"),
    [
        (None, "queued", "queued"),
        ("complete", "queued", "queued"),
        ("waiting", "queued", None),
        ("queued", "running", "started"),
        (None, "waiting", "started"),
        ("paused", "running", "started"),
        ("waiting", "running", None),
        ("running", "waiting", None),
        ("running", "waitingForPause", None),
        ("errored", "rollingBack", None),
        (None, "complete", "completed"),
        ("running", "errored", "errored"),
        ("running", "terminated", "terminated"),
        ("running", "brandNew", None),
    ],
)
def test_what_an_event_announces(before: str | None, status: str, kind: str | None) -> None:
    assert kind_of(before, status) == kind
