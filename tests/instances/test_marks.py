"""What is remembered of a run, so that nothing is counted twice: a mark for each step while it is
live, and one moment once it has ended."""

from math import inf

import pytest

from exporter.cloudflare.models import Attempt, Detail, Step
from exporter.instances.run import FinishedRun, Observations, Run, Tracked
from exporter.instances.run_tracker import track
from tests.instances.times import EPOCH, QUEUED, at

NOW = EPOCH + 100


def step(name: str, start: float, end: float | None) -> Step:
    done = None if end is None else True
    attempt = Attempt(at(start), at(end), done)
    return Step("step", name, at(start), at(end), done, attempts=[attempt])


def nap(start: float, end: float, *, finished: bool = True) -> Step:
    return Step("sleep", "nap-1", at(start), at(end), finished=finished)


def response(
    status: str, *steps: Step, end: float | None = None, step_count: int | None = None
) -> Detail:
    count = len(steps) if step_count is None else step_count
    return Detail(
        status=status,
        queued=QUEUED,
        start=QUEUED,
        end=at(end),
        steps=list(steps),
        step_count=count,
    )


def taken(run: Run | None, detail: Detail, *, since: float = -inf) -> Tracked:
    tracked = track(run, detail, now=NOW, since=since)
    assert tracked
    return tracked


def names(tracked: Tracked) -> list[str]:
    return [finished.name for finished in tracked.observations.steps]


PAY = step("pay-1", 1, 5)
SHIP = step("ship-1", 6, 8)


class TestOnceItHasEnded:
    @pytest.mark.parametrize(
        ("detail", "sealed"),
        [
            (response("complete", PAY, SHIP, end=9), 8.0),
            (response("complete", SHIP, PAY, end=9), 8.0),
            (response("complete", PAY, nap(6, 60), end=9), 60.0),
            (response("complete", end=9), -inf),
            (response("running", PAY, SHIP), None),
            (response("complete", PAY, step("ship-1", 6, None), end=9), None),
            (response("complete", PAY, nap(6, 8, finished=False), end=9), None),
            (response("complete", PAY, nap(6, 101), end=9), None),
            (response("complete", PAY, end=9, step_count=2), None),
        ],
        ids=[
            "all ended",
            "in any order",
            "at a planned end that has passed",
            "no steps",
            "live",
            "an open step",
            "an open sleep",
            "a planned end to come",
            "a step that could not be read",
        ],
    )
    def test_the_last_end_is_enough(self, detail: Detail, sealed: float | None) -> None:
        run = taken(None, detail).run
        assert bool(run.marks) is (sealed is None)
        assert run.sealed == (-inf if sealed is None else EPOCH + sealed)
        assert taken(run, detail).observations == Observations()

    def test_what_a_restart_runs_again_counts_and_what_it_keeps_does_not(self) -> None:
        run = taken(None, response("errored", PAY, SHIP, end=9)).run
        again = taken(run, response("running", PAY, step("ship-1", 20, 22)))
        assert names(again) == ["ship-1"]
        ended = taken(again.run, response("complete", PAY, step("ship-1", 20, 22), end=30))
        assert ended.observations.run == FinishedRun("complete", 30.0)
        assert names(ended) == []
        assert (ended.run.marks, ended.run.sealed) == ({}, EPOCH + 22)

    def test_what_outlives_the_run_still_counts(self) -> None:
        late = step("late-1", 2, None)
        run = taken(None, response("complete", PAY, late, end=9)).run
        tracked = taken(run, response("complete", PAY, step("late-1", 2, 50), end=9))
        assert names(tracked) == ["late-1"]
        assert tracked.run.sealed == EPOCH + 50

    def test_the_moment_never_goes_back(self) -> None:
        """Its latest step was deleted by a restart that ended before another step began."""
        run = taken(None, response("errored", PAY, SHIP, end=9)).run
        tracked = taken(run, response("terminated", PAY, end=12))
        assert tracked.observations.run == FinishedRun("terminated", 12.0)
        assert tracked.run.sealed == EPOCH + 8


class TestWhileItIsLive:
    def test_what_a_restart_deletes_is_forgotten(self) -> None:
        run = taken(None, response("running", PAY, SHIP)).run
        assert len(run.marks) == 2
        tracked = taken(run, response("running", step("pay-1", 20, 22)))
        assert names(tracked) == ["pay-1"]
        assert len(tracked.run.marks) == 1

    def test_a_step_that_could_not_be_read_is_not_forgotten(self) -> None:
        run = taken(None, response("running", PAY, SHIP)).run
        missing = taken(run, response("running", PAY, step("next-1", 20, None), step_count=3)).run
        assert len(missing.marks) == 2
        assert names(taken(missing, response("running", PAY, SHIP, step("next-1", 20, 21)))) == [
            "next-1"
        ]


class TestSince:
    """What ended before is history."""

    @pytest.mark.parametrize(
        ("since", "queue", "run", "steps"),
        [
            (0, True, True, ["pay-1", "ship-1"]),
            (1, False, True, ["pay-1", "ship-1"]),
            (5, False, True, ["pay-1", "ship-1"]),
            (8, False, True, ["ship-1"]),
            (9, False, True, []),
            (9.1, False, False, []),
        ],
    )
    def test_each_by_its_own_end(
        self, since: float, queue: bool, run: bool, steps: list[str]
    ) -> None:
        tracked = taken(None, response("complete", PAY, SHIP, end=9), since=EPOCH + since)
        assert (tracked.observations.queue_duration is not None) is queue
        assert (tracked.observations.run is not None) is run
        assert names(tracked) == steps
        again = taken(tracked.run, response("complete", PAY, SHIP, end=9))
        assert again.observations == Observations()

    @pytest.mark.parametrize(
        ("known", "steps", "since", "duration"),
        [
            (False, [PAY], 5, 5.0),
            (False, [PAY], 5.1, None),
            (True, [PAY], 99, 100.0),
            (True, [PAY], 101, None),
        ],
        ids=["latest time", "is history", "seen live: now", "before it was watched"],
    )
    def test_a_run_without_an_end_ended_at_its_latest_time_or_since_it_was_live(
        self, known: bool, steps: list[Step], since: float, duration: float | None
    ) -> None:
        run = taken(None, response("running", *steps), since=EPOCH + since).run if known else None
        tracked = taken(run, response("complete", *steps), since=EPOCH + since)
        ended = FinishedRun("complete", duration) if duration is not None else None
        assert tracked.observations.run == ended

    def test_a_run_without_any_time_ends_now(self) -> None:
        tracked = taken(None, Detail(status="complete"), since=NOW)
        assert tracked.observations.run == FinishedRun("complete", None)
        assert taken(None, Detail(status="complete"), since=NOW + 1).observations.run is None
