"""Change detection: which simple responses are worth a detail request."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from exporter.cloudflare.models import Detail, Error, Summary
from exporter.instances.change_detection import Fingerprints, fingerprint

QUEUED = datetime(2026, 1, 1, tzinfo=UTC)


def simple(**fields: object) -> Summary:
    return Summary(**{"queued": QUEUED, "status": "running", "step_count": 1, **fields})  # type: ignore[arg-type]


def full(**fields: object) -> Detail:
    return Detail(**{"queued": QUEUED, "status": "running", "step_count": 1, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "moved",
    [
        {"status": "complete"},
        {"step_count": 2},
        {"queued": datetime(2026, 1, 2, tzinfo=UTC)},
        {"start": QUEUED},
        {"end": QUEUED},
        {"success": True},
        {"version_id": "v2"},
        {"error": Error("Error", "boom")},
    ],
    ids=lambda moved: next(iter(moved)),
)
def test_each_field_that_moves_with_an_instance_is_a_change(moved: dict[str, object]) -> None:
    assert fingerprint(simple(**moved)) != fingerprint(simple())


def test_an_errors_message_is_no_part_of_it() -> None:
    one, other = Error("Error", "at 12:01"), Error("Error", "at 12:02")
    assert fingerprint(simple(error=one)) == fingerprint(simple(error=other))


class TestFingerprints:
    def test_at_first_everything_is_new(self) -> None:
        known = Fingerprints()
        assert not known.seen
        assert not known.knows(simple())

    def test_a_simple_response_that_repeats_the_detail_one_is_known(self) -> None:
        known = Fingerprints()
        known = known.updated(full(), after=None, changed=True)
        assert known.knows(simple())
        assert not known.knows(simple(step_count=2))

    def test_an_upstream_whose_simple_responses_differ_for_good_costs_one_more_detail_response(
        self,
    ) -> None:
        known = Fingerprints()
        bare = simple(version_id=None)
        known = known.updated(full(version_id="v1"), after=None, changed=True)
        assert not known.knows(bare)
        known = known.updated(full(version_id="v1"), after=bare, changed=False)
        assert known.knows(bare)
        assert known.knows(simple(version_id="v1"))

    def test_a_change_between_the_simple_and_the_detail_response_hides_nothing(self) -> None:
        """Running, paused in between, running again: the second `running` is news."""
        known = Fingerprints()
        known = known.updated(full(step_count=0), after=None, changed=True)
        known = known.updated(full(status="paused"), after=simple(), changed=True)
        assert not known.knows(simple())

    def test_news_ends_what_stood_for_the_detail_response(self) -> None:
        known = Fingerprints()
        bare = simple(version_id=None)
        known = known.updated(full(version_id="v1"), after=None, changed=True)
        known = known.updated(full(version_id="v1"), after=bare, changed=False)
        known = known.updated(full(version_id="v1", step_count=2), after=bare, changed=True)
        assert not known.knows(bare)


def test_a_time_that_stands_for_none_is_none() -> None:
    never = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))
    response = simple(end=never)
    response.correct_times(datetime(2026, 1, 1, tzinfo=UTC))
    assert fingerprint(response) == fingerprint(simple())
