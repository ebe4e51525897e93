"""Responses of an instance of which rows have shown a run: of the same run, or of which one?"""

import pytest

from exporter.cloudflare.models import Attempt, Detail, Row, Step, Summary
from exporter.instances.freshness import Freshness, judge
from exporter.instances.list_rows import take_row
from exporter.instances.run import FinishedRun, Observations, Run
from exporter.instances.run_tracker import track
from exporter.instances.values import InstanceValues
from tests.instances.times import EPOCH, at

NOW = EPOCH + 3600


def by_row(status: str, start: float | None, end: float | None, run: Run | None = None) -> Run:
    """What a row makes known; the times of responses differ from those of rows by milliseconds."""
    row = Row("a", status, at(0.002), at(start), at(end), at(end or start or 0))
    tracked = take_row(run, None, row, now=NOW)
    assert tracked
    return tracked.run


def response(
    status: str,
    start: float | None = 2,
    end: float | None = None,
    *steps: float,
    queued: float | None = 0,
) -> Detail:
    """A detail response with a step of a second at each of these times."""
    listed = [
        Step(
            "step",
            f"step-{n}",
            at(second),
            at(second + 1),
            True,
            attempts=[Attempt(at(second), at(second + 1), True)],
        )
        for n, second in enumerate(steps, start=1)
    ]
    return Detail(
        status=status,
        queued=at(queued),
        start=at(start),
        end=at(end),
        step_count=len(listed),
        steps=listed,
    )


LIVE = by_row("running", 2, None)
ENDED = by_row("complete", 2, 9)
NEVER_BEGAN = by_row("terminated", None, 5)
WAITING = by_row("queued", None, None)


class TestTheSameRun:
    @pytest.mark.parametrize(
        ("run", "detail", "ending"),
        [
            (LIVE, response("running", 2, None, 3), None),
            (LIVE, response("complete", 2, 9, 3), FinishedRun("complete", 7.0)),
            (LIVE, response("running", 2.9), None),
            (LIVE, response("running", 3, queued=3), None),
            (LIVE, response("running", 2, queued=None), None),
            (ENDED, response("complete", 2, 9.9, 3), None),
            (ENDED, response("complete", 2, 8.1, 3), None),
            (ENDED, response("complete", 2, None, 3), None),
            (WAITING, response("running", 50), None),
            (NEVER_BEGAN, response("terminated", None, 5), None),
            (NEVER_BEGAN, response("terminated", None, 5, queued=5.9), None),
        ],
    )
    def test_counts_its_end_and_its_steps_once(
        self, run: Run, detail: Detail, ending: FinishedRun | None
    ) -> None:
        tracked = track(run, detail, now=NOW)
        assert tracked
        assert tracked.observations.run == ending
        assert len(tracked.observations.steps) == len(detail.steps or ())
        assert not tracked.run.ended_by_row
        again = track(tracked.run, detail, now=NOW)
        assert again
        assert again.observations == Observations()

    def test_a_queue_that_a_row_has_shown_is_not_counted_again(self) -> None:
        tracked = track(LIVE, response("running"), now=NOW)
        assert tracked
        assert tracked.observations.queue_duration is None
        first = track(WAITING, response("running", 50), now=NOW)
        assert first
        assert first.observations.queue_duration == 50.0


class TestAnotherRun:
    @pytest.mark.parametrize(
        ("run", "detail"),
        [
            (ENDED, response("complete", 21, 29, queued=20)),
            (ENDED, response("complete", None, 29, queued=20)),
            (ENDED, response("complete", 21, 29, queued=None)),
            (NEVER_BEGAN, response("complete", 21, 29, queued=20)),
            (NEVER_BEGAN, response("terminated", None, 29, queued=20)),
            (NEVER_BEGAN, response("complete", None, 29, queued=6.1)),
            (LIVE, response("complete", 3.1, 9, queued=None)),
            (LIVE, response("complete", 4, 9, queued=3.1)),
        ],
    )
    def test_a_later_one_counts(self, run: Run, detail: Detail) -> None:
        tracked = track(run, detail, now=NOW)
        assert tracked
        assert tracked.observations.run
        assert tracked.run.queued == (None if detail.queued is None else detail.queued.timestamp())

    @pytest.mark.parametrize(
        ("row_start", "detail", "ending"),
        [
            (2.5, response("complete", 2.5, 9.9, queued=2.4), None),
            (2.5, response("complete", 2.5, 10.1, queued=2.4), FinishedRun("complete", 7.6)),
            (2.5, response("complete", 3.6, 9, queued=2.4), FinishedRun("complete", 5.4)),
            (None, response("complete", 2.5, 9, queued=2.4), FinishedRun("complete", 6.5)),
        ],
        ids=["the end of its row", "another end", "another start", "no row has shown an end"],
    )
    def test_one_that_began_as_the_first_had_started_has_an_end_of_its_own_unless_a_row_showed_it(
        self, row_start: float | None, detail: Detail, ending: FinishedRun | None
    ) -> None:
        """A row that has shown its end was taken to be about the first."""
        first = track(None, response("running"), now=NOW)
        assert first
        run = first.run if row_start is None else by_row("complete", row_start, 9, first.run)
        tracked = track(run, detail, now=NOW)
        assert tracked
        assert tracked.observations.run == ending
        assert tracked.run.end_observed

    @pytest.mark.parametrize(
        "detail",
        [
            response("complete", 2, 9),
            response("complete", 2, 9, queued=None),
            response("running", 48.9, queued=45),
        ],
    )
    def test_an_earlier_one_is_out_of_date(self, detail: Detail) -> None:
        assert track(by_row("running", 50, None), detail, now=NOW) is None

    @pytest.mark.parametrize(
        ("summary", "freshness"),
        [
            (Summary(status="complete", queued=at(20), start=at(21), end=at(29)), Freshness.NEWER),
            (Summary(status="complete", queued=at(-20), start=at(-9)), Freshness.BEHIND),
            (Summary(status="complete", queued=at(0), start=at(2), end=at(9)), Freshness.NEWER),
            (Summary(status="running", queued=at(0), start=at(2)), Freshness.UNDECIDED),
            (Summary(status="complete", queued=at(0), end=at(9)), Freshness.UNDECIDED),
        ],
        ids=[
            "later",
            "earlier",
            "when it was queued is new",
            "from before its end, or restarted",
            "no start",
        ],
    )
    def test_a_simple_response_is_compared_alike(
        self, summary: Summary, freshness: Freshness
    ) -> None:
        assert judge(ENDED, InstanceValues("complete", "", ""), summary) is freshness


class TestFromBeforeTheEnd:
    """Or of a run that was restarted from a step: it depends on its latest time."""

    @pytest.mark.parametrize(
        ("latest", "restarted"), [(7, False), (8.9, False), (9.1, True), (30, True)]
    )
    def test_what_is_live_was_restarted_if_it_shows_something_later(
        self, latest: float, *, restarted: bool
    ) -> None:
        tracked = track(ENDED, response("running", 2, None, 3, latest), now=NOW)
        assert (tracked is not None) is restarted
        if tracked:
            assert not tracked.observations.run
            assert not tracked.run.end_observed or tracked.run.status == "complete"
            ended = track(tracked.run, response("errored", 2, 60, 3, latest), now=NOW)
            assert ended
            assert ended.observations.run == FinishedRun("errored", 58.0)

    @pytest.mark.parametrize(("row_end", "taken"), [(9, True), (9.1, False)])
    def test_an_end_that_is_not_new_is_as_late_as_in_its_row(
        self, row_end: float, *, taken: bool
    ) -> None:
        """Otherwise it is that of the run before a restart."""
        known = track(None, response("running", 2, None, 3, 7), now=NOW)
        assert known
        ended = by_row("complete", 2, row_end, known.run)
        assert (track(ended, response("complete", 2, 8, 3, 7), now=NOW) is not None) is taken

    @pytest.mark.parametrize(("row_end", "taken"), [(68, True), (69, False)])
    def test_an_end_that_is_new_may_be_earlier_than_in_its_row_by_a_minute(
        self, row_end: float, *, taken: bool
    ) -> None:
        ended = by_row("complete", 2, row_end)
        assert (track(ended, response("complete", 2, 8, 3), now=NOW) is not None) is taken

    @pytest.mark.parametrize("late", [0.5, 30])
    def test_another_ending_after_that_of_a_row_counts_too(self, late: float) -> None:
        detail = response("errored", 2, 9 + late, 3, 8 + late)
        tracked = track(ENDED, detail, now=NOW)
        assert tracked
        assert tracked.observations.run == FinishedRun("errored", 7 + late)
