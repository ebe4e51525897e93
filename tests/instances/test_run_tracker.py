"""Tracking: every finished thing once, whatever order responses come in."""

from collections import Counter
from datetime import datetime, timedelta, timezone
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.cloudflare.models import (
    Attempt,
    Detail,
    Error,
    Retries,
    Step,
    StepConfig,
    Summary,
    Trigger,
)
from exporter.cloudflare.times import unix
from exporter.instances.freshness import Freshness, judge
from exporter.instances.run import (
    FinishedAttempt,
    FinishedRun,
    FinishedStep,
    Observations,
    Run,
    Tracked,
)
from exporter.instances.run_tracker import track
from exporter.instances.values import OpenStep
from tests.instances.histories import ENDINGS, Life, Thing, deliveries, finished, lives
from tests.instances.times import EPOCH, QUEUED, at

NOW = EPOCH + 3600


def response(*steps: Step, status: str = "running", **fields: object) -> Detail:
    given_: dict[str, object] = {"queued": at(0), "start": at(1), "status": status}
    detail = Detail(**{**given_, **fields}, steps=list(steps))  # type: ignore[arg-type]
    detail.step_count = len(steps)
    return detail


def taken(run: Run | None, detail: Detail, *, now: float = NOW, since: float = -inf) -> Tracked:
    tracked = track(run, detail, now=now, since=since)
    assert tracked is not None
    return tracked


def step(name: str = "pay-1", *outcomes: bool | None, start: float = 2) -> Step:
    """A step whose attempts take a second each and follow each other after a second."""
    attempts = [
        Attempt(at(start + 2 * n), None if ok is None else at(start + 2 * n + 1), ok)
        for n, ok in enumerate(outcomes)
    ]
    over = outcomes[-1:] == (True,)
    end = attempts[-1].end if over else None
    return Step("step", name, at(start), end, True if over else None, attempts=attempts)


class TestOnce:
    @pytest.mark.slow
    @given(lives(), st.data())
    @settings(max_examples=400)
    def test_every_finished_thing_is_observed_once(self, life: Life, data: st.DataObject) -> None:
        """Lost and repeated responses, and ones that are behind, add and lose nothing."""
        responses = life.responses
        run: Run | None = None
        seen: Counter[str] = Counter()
        ends: dict[Thing, str] = {}
        expected: set[Thing] = set()
        fresh = -1
        for index in data.draw(deliveries(len(responses)), label="deliveries"):
            detail = responses[index]
            tracked = track(run, detail, now=NOW)
            if index >= fresh:
                fresh = index
                assert tracked is not None, "a response that is up to date was refused"
                assert tracked.values.status == detail.status
                expected |= finished(detail)
                if detail.status in ENDINGS:
                    ends.setdefault((detail.queued, life.passes_of[index]), detail.status)
            if tracked is None:
                continue
            run, new = tracked.run, tracked.observations
            seen["queue"] += new.queue_duration is not None
            seen["step"] += len(new.steps)
            seen["attempt"] += len(new.attempts)
            for status in ENDINGS:
                seen[status] += new.run is not None and new.run.status == status
        assert +seen == Counter([*(str(kind) for kind, *_ in expected), *ends.values()])

    @given(lives(), st.data())
    def test_nothing_before_since_is_observed(self, life: Life, data: st.DataObject) -> None:
        """What ended before the first poll is history; what ends later counts, from one poll."""
        detail = life.responses[-1]
        since = data.draw(st.datetimes(datetime(2026, 1, 1), datetime(2026, 1, 1, 0, 2)))
        moment = since.replace(tzinfo=QUEUED.tzinfo)
        new = taken(None, detail, since=moment.timestamp()).observations
        ends = [a.end for s in detail.steps or [] for a in s.attempts or [] if a.end]
        assert len(new.attempts) == sum(end >= moment for end in ends)
        assert len(new.steps) == sum(bool(s.end and s.end >= moment) for s in detail.steps or [])
        ended = detail.status in ENDINGS and detail.end is not None and detail.end >= moment
        assert (new.run is not None) == ended

    def test_what_began_before_since_and_has_no_end_is_history(self) -> None:
        naps = [Step("sleep", f"nap-{n}", at(n), finished=True) for n in (2, 5)]
        new = taken(None, response(*naps), since=at(4).timestamp()).observations
        assert [one.name for one in new.steps] == ["nap-5"]

    def test_an_attempt_that_ends_inside_an_open_step_is_observed_before_the_step(self) -> None:
        first = taken(None, response(step("pay-1", False)))
        assert first.observations.attempts == [FinishedAttempt("pay-1", "failure", 1.0)]
        assert first.observations.steps == []
        second = taken(first.run, response(step("pay-1", False, True)))
        assert second.observations.attempts == [FinishedAttempt("pay-1", "success", 1.0)]
        assert second.observations.steps == [FinishedStep("pay-1", "step", "success", 3.0, 2)]

    def test_attempts_are_numbered_by_their_start_whatever_order_they_are_listed_in(self) -> None:
        first = taken(None, response(step("pay-1", False)))
        turned = step("pay-1", False, True)
        assert turned.attempts is not None
        turned.attempts.reverse()
        second = taken(first.run, response(turned))
        assert second.observations.attempts == [FinishedAttempt("pay-1", "success", 1.0)]

    def test_a_step_that_a_response_holds_twice_is_observed_once(self) -> None:
        new = taken(None, response(step("pay-1", True), step("pay-1", True))).observations
        assert (len(new.steps), len(new.attempts)) == (1, 1)

    def test_nor_is_such_a_response_older_than_what_it_has_shown(self) -> None:
        twice = response(step("pay-1", True), step("pay-1"))
        first = taken(None, twice)
        assert first.run.marks
        assert taken(first.run, twice).run == first.run

    def test_a_restart_is_a_new_run(self) -> None:
        ended = response(step("pay-1", True), status="complete", end=at(9))
        first = taken(None, ended)
        again = response(
            step("pay-1", True, start=12),
            status="complete",
            queued=at(10),
            start=at(11),
            end=at(14),
        )
        second = taken(first.run, again).observations
        assert second.run == FinishedRun("complete", 3.0)
        assert second.queue_duration == 1.0
        assert len(second.steps) == len(second.attempts) == 1

    def test_a_run_that_ends_rolls_back_and_ends_again_is_counted_at_its_first_end(self) -> None:
        failed = response(step("pay-1", True), status="errored", end=at(9))
        first = taken(None, failed)
        assert first.observations.run == FinishedRun("errored", 8.0)
        undo = step("pay-1", True, start=10)
        undo.type = "rollback"
        rolling = taken(first.run, response(step("pay-1", True), undo, status="rollingBack"))
        assert [s.type for s in rolling.observations.steps] == ["rollback"]
        over = response(step("pay-1", True), undo, status="errored", end=at(15))
        assert taken(rolling.run, over).observations.run is None

    @pytest.mark.parametrize("status", ["running", "complete"])
    def test_steps_that_could_not_be_read_are_not_taken_for_deleted(self, status: str) -> None:
        first, second = step("first-1", True), step("second-1", True, start=5)
        known = taken(None, response(first)).run
        partly = response(second, status=status, end=at(7) if status == "complete" else None)
        partly.step_count = 2
        tracked = taken(known, partly)
        assert [one.name for one in tracked.observations.steps] == ["second-1"]
        third = step("third-1", True, start=6)
        whole = response(first, second, third, status=status, end=partly.end)
        tracked = taken(tracked.run, whole)
        assert [one.name for one in tracked.observations.steps] == ["third-1"]
        assert tracked.observations.run is None

    @pytest.mark.parametrize("unread", [{0}, {1}, {0, 1}, {0, 2}, {0, 1, 2}])
    @pytest.mark.parametrize("part", ["type", "name", "start"])
    def test_a_step_of_which_a_part_could_not_be_read_is_the_one_with_the_others(
        self, unread: set[int], part: str
    ) -> None:
        run, seen = None, Counter[str]()
        for n in range(3):
            first, beside = step("first-1", True), step("beside-1", True)
            if n in unread:
                setattr(first, part, None)
            others = [step(f"other-{m}", True, start=5 + m) for m in range(n + 1)]
            tracked = taken(run, response(first, beside, *others))
            run = tracked.run
            seen.update(one.name for one in tracked.observations.steps)
        name = "" if part == "name" and 0 in unread else "first-1"
        once = (name, "beside-1", "other-0", "other-1", "other-2")
        assert seen == dict.fromkeys(once, 1)

    @pytest.mark.parametrize("ended", [False, True])
    @pytest.mark.parametrize(
        ("place", "field"),
        [
            *((place, field) for place in (0, 1) for field in ("end", "success", "finished")),
            *(("attempt", field) for field in ("start", "end", "success")),
        ],
    )
    def test_a_field_that_could_not_be_read_once_counts_nothing_twice(
        self, place: int | str, field: str, ended: bool
    ) -> None:
        def whole(*more: Step) -> Detail:
            nap = Step("sleep", "nap-1", at(5), at(8), finished=True)
            status, end = ("complete", at(60)) if ended else ("running", None)
            retried = step("ship-1", False, True if ended else None, start=10)
            return response(step("pay-1", True), nap, retried, *more, status=status, end=end)

        later = step("send-1", True, start=20)
        lacking = whole(later)
        assert lacking.steps is not None
        assert lacking.steps[2].attempts is not None
        part = lacking.steps[2].attempts[0] if place == "attempt" else lacking.steps[int(place)]
        setattr(part, field, None)
        run, seen = None, Counter[str]()
        for detail in (whole(), lacking, whole(later), lacking, whole(later)):
            tracked = track(run, detail, now=NOW)
            if tracked is not None:
                run = tracked.run
                seen.update(one.name for one in tracked.observations.steps)
                seen.update(f"attempt of {one.step}" for one in tracked.observations.attempts)
        once = {"pay-1", "nap-1", "send-1", "attempt of pay-1", "attempt of send-1"}
        attempts = {"attempt of ship-1": 2, "ship-1": 1} if ended else {"attempt of ship-1": 1}
        assert seen == Counter({**dict.fromkeys(once, 1), **attempts})


class TestDurations:
    def test_a_planned_end_still_to_come_is_cut_at_the_responses_time(self) -> None:
        nap = Step("sleep", "nap-1", at(10), at(100), finished=True)
        tracked = taken(None, response(nap), now=at(40).timestamp())
        assert tracked.observations.steps == [FinishedStep("nap-1", "sleep", "success", 30.0, None)]

    def test_an_end_that_others_came_after_is_no_plan_even_ahead_of_our_clock(self) -> None:
        nap = Step("sleep", "nap-1", at(10), at(100), finished=True)
        pay = step("pay-1", True, start=100)
        tracked = taken(None, response(nap, pay), now=at(-9999).timestamp())
        assert tracked.observations.steps[0].duration == 90.0

    @pytest.mark.parametrize("kind", ["sleep", "waitForEvent"])
    def test_a_planned_end_makes_no_later_response_old(self, kind: str) -> None:
        """Also of one whose `finished` is missing."""
        open_ = Step(kind, "nap-1", at(2), at(86400))
        run = taken(None, response(open_), now=at(3).timestamp()).run
        ended = response(Step(kind, "nap-1", at(2), at(9), finished=True), status="complete")
        done = taken(run, ended, now=at(10).timestamp())
        assert done.values.status == "complete"
        assert [s.duration for s in done.observations.steps] == [7]

    def test_a_sleep_with_a_planned_end_is_not_finished(self) -> None:
        nap = Step("sleep", "nap-1", at(10), at(100), finished=False)
        assert taken(None, response(nap), now=at(200).timestamp()).observations.steps == []

    def test_the_end_of_a_step_is_a_fact_even_ahead_of_our_clock(self) -> None:
        tracked = taken(None, response(step("pay-1", True, start=2)), now=at(2.5).timestamp())
        assert tracked.observations.steps[0].duration == 1.0

    def test_below_zero_is_zero(self) -> None:
        odd = response(
            Step("step", "a-1", at(9), at(8), True), status="complete", start=at(-5), end=at(-6)
        )
        new = taken(None, odd).observations
        assert new.queue_duration == 0.0
        assert new.run == FinishedRun("complete", 0.0)
        assert new.steps[0].duration == 0.0

    def test_of_an_unknown_type_or_without_a_start(self) -> None:
        steps = [Step(None, "odd-1", at(2), at(3), True), Step("step", "odd-2", None, at(3), True)]
        found = taken(None, response(*steps)).observations.steps
        assert [(s.type, s.duration) for s in found] == [("unknown", 1.0), ("step", 0.0)]

    def test_a_run_terminated_in_the_queue_has_no_duration(self) -> None:
        new = taken(None, response(status="terminated", start=None, end=at(5))).observations
        assert new.run == FinishedRun("terminated", None)
        assert new.queue_duration is None

    def test_the_time_in_the_queue_once_both_of_its_times_are_known(self) -> None:
        first = taken(None, response(queued=None))
        assert first.observations.queue_duration is None
        second = taken(first.run, response())
        assert second.observations.queue_duration == 1.0
        for queued in (None, at(0)):
            later = taken(second.run, response(step("pay-1", True), queued=queued))
            assert later.observations.queue_duration is None
            again = taken(later.run, response(step("pay-1", True), step("ship-1", True, start=4)))
            assert again.observations.queue_duration is None

    def test_a_run_whose_last_response_lacks_its_start(self) -> None:
        known = taken(None, response()).run
        over = response(status="complete", start=None, end=at(9))
        assert taken(known, over).observations.run == FinishedRun("complete", 8.0)

    def test_times_are_exact_to_the_microsecond(self) -> None:
        odd = response(status="complete", start=at(1.000001), end=at(1.000003))
        assert taken(None, odd).values.run_duration == 0.000002

    def test_a_time_without_an_offset_is_utc(self) -> None:
        naive = response(status="complete", start=at(1).replace(tzinfo=None), end=at(2))
        naive.correct_times(at(2))
        assert taken(None, naive).values.run_duration == 1.0

    def test_a_plan_past_the_run_s_end_is_cut_there(self) -> None:
        nap = Step("sleep", "nap-1", at(2), at(500), finished=True)
        done = response(nap, status="complete", end=at(9))
        new = taken(None, done, now=NOW + 1000).observations
        assert [s.duration for s in new.steps] == [7.0]
        new = taken(None, done, now=NOW + 1000, since=at(10).timestamp()).observations
        assert new == Observations()


class TestOutcomes:
    def test_a_wait_failed_when_it_has_an_error_or_says_so(self) -> None:
        waits = [
            Step("waitForEvent", "a-1", at(1), at(2), finished=True),
            Step("waitForEvent", "b-1", at(1), at(2), finished=True, error=Error("Timeout")),
            Step("waitForEvent", "c-1", at(1), at(2), finished=True, success=False),
        ]
        outcomes = [s.outcome for s in taken(None, response(*waits)).observations.steps]
        assert outcomes == ["success", "failure", "failure"]

    def test_a_step_with_an_end_but_no_success_is_not_finished(self) -> None:
        odd = response(Step("step", "a-1", at(1), at(2), None))
        assert taken(None, odd).observations.steps == []
        assert taken(None, odd).values.steps == {("step", "running"): 1}

    def test_sleeps_and_waits_have_no_attempts_to_observe(self) -> None:
        nap = Step("sleep", "nap-1", at(1), at(2), finished=True)
        assert taken(None, response(nap)).observations.steps[0].attempts is None


class TestValues:
    def test_of_a_running_instance(self) -> None:
        values = taken(
            None,
            response(
                step("before-1", True),
                step("pay-1", False, False, None),
                Step("sleep", "nap-1", at(5), None, finished=False),
                Step("termination"),
                trigger=Trigger("api"),
                version_id="v1",
            ),
        ).values
        assert values.attempts == {"success": 1, "failure": 2, "running": 1}
        assert values.retries == 2
        assert values.steps == {
            ("step", "success"): 1,
            ("step", "running"): 1,
            ("sleep", "running"): 1,
            ("termination", "running"): 1,
        }
        assert values.open_steps == (
            OpenStep("pay-1", "step", 3, at(2).timestamp()),
            OpenStep("nap-1", "sleep", 0, at(5).timestamp()),
        )
        assert (values.trigger, values.version_id) == ("api", "v1")
        assert (values.queue_duration, values.run_duration) == (1.0, None)

    def test_an_ended_run_has_no_current_step(self) -> None:
        values = taken(None, response(step("pay-1", None), status="terminated", end=at(9))).values
        assert values.open_steps == ()
        assert values.steps == {("step", "running"): 1}

    def test_what_is_missing(self) -> None:
        values = taken(None, Detail(queued=at(0))).values
        assert values.status == "unknown"
        assert values.trigger == "unknown"
        assert values.version_id == ""
        assert values.step_count == 0
        assert values.error_name is None


def failing(name: str, error: Error, start: float = 2) -> Step:
    attempt = Attempt(at(start), at(start + 1), False, error)
    return Step("step", name, at(start), at(start + 1), False, attempts=[attempt])


class TestRetryLimit:
    """`config.retries.limit` of a plain step that is open."""

    @pytest.mark.parametrize(
        ("config", "limit"),
        [
            (StepConfig(Retries(3)), 3),
            (StepConfig(Retries(0)), 0),
            (StepConfig(Retries(None)), inf),
            (StepConfig(Retries()), None),
            (StepConfig(), None),
            (None, None),
        ],
    )
    def test_as_reported(self, config: StepConfig | None, limit: float | None) -> None:
        charge = step("charge-1", False, None)
        charge.config = config
        (open_step,) = taken(None, response(charge)).values.open_steps
        assert open_step.retry_limit == limit

    def test_a_rollback_has_none(self) -> None:
        undo = step("charge-1", None)
        undo.type, undo.config = "rollback", StepConfig(Retries(3))
        (open_step,) = taken(None, response(undo)).values.open_steps
        assert open_step.retry_limit is None


class TestErrors:
    """Which step an instance failed at; the API doesn't say."""

    def error_of(self, error: Error, *steps: Step) -> tuple[str | None, str | None]:
        values = taken(None, response(*steps, status="errored", error=error, end=at(20))).values
        return values.error_name, values.error_step

    def test_the_step_that_failed_last(self) -> None:
        boom = Error("Error", "boom")
        assert self.error_of(boom, failing("pay-1", boom)) == ("Error", "pay-1")

    def test_the_real_name_where_the_engine_flattened_it(self) -> None:
        flat = Error("Error", "WorkflowTimeoutError: timed out")
        cause = Error("WorkflowTimeoutError", "timed out")
        assert self.error_of(flat, failing("pay-1", cause)) == ("WorkflowTimeoutError", "pay-1")

    def test_of_a_long_message_the_beginning_is_enough(self) -> None:
        """A large response has only the beginning of each, with the name before the instance's."""
        cause = Error("TypeError", "x" * 200)
        flat = Error("Error", "TypeError: " + "x" * 189)
        assert self.error_of(flat, failing("pay-1", cause)) == ("TypeError", "pay-1")
        other = Error("Error", "RangeError: " + "y" * 188)
        assert self.error_of(other, failing("pay-1", cause)) == ("Error", None)

    def test_a_fatal_error_has_another_message_than_its_attempt(self) -> None:
        fatal = Error("WorkflowFatalError", "a step threw")
        cause = Error("WorkflowFatalError", "card declined")
        assert self.error_of(fatal, failing("pay-1", cause)) == ("WorkflowFatalError", "pay-1")

    def test_thrown_outside_a_step(self) -> None:
        error = Error("Error", "outside")
        assert self.error_of(error, step("pay-1", True)) == ("Error", None)

    def test_thrown_outside_a_step_after_a_failure_was_caught(self) -> None:
        error = Error("Error", "outside")
        caught = failing("pay-1", Error("RangeError", "ignored"))
        assert self.error_of(error, caught) == ("Error", None)
        assert self.error_of(error, failing("pay-1", error), step("after-1", True, start=9)) == (
            "Error",
            None,
        )

    def test_a_rollback_after_the_failure_doesnt_hide_it(self) -> None:
        boom = Error("Error", "boom")
        undo = step("pay-1", True, start=9)
        undo.type = "rollback"
        assert self.error_of(boom, failing("pay-1", boom), undo) == ("Error", "pay-1")

    def test_of_two_that_failed_side_by_side_the_later(self) -> None:
        boom = Error("Error", "boom")
        steps = failing("a-1", boom, start=2), failing("b-1", boom, start=2.5)
        assert self.error_of(boom, *steps) == ("Error", "b-1")

    def test_of_two_that_failed_side_by_side_the_one_with_that_error(self) -> None:
        steps = failing("a-1", Error("Error", "boom")), failing("b-1", Error("Error", "bang"))
        assert self.error_of(Error("Error", "boom"), *steps) == ("Error", "a-1")

    def test_what_failed_after_the_run_s_end_is_not_the_cause(self) -> None:
        boom = Error("Error", "boom")
        outlived = failing("b-1", boom, start=3)
        outlived.end = at(21)
        assert self.error_of(boom, failing("a-1", boom, start=4), outlived) == ("Error", "a-1")

    def test_thrown_outside_a_step_with_the_name_of_a_caught_failure(self) -> None:
        error, caught = Error("TypeError", "outside"), Error("TypeError", "ignored")
        assert self.error_of(error, failing("pay-1", caught)) == ("TypeError", None)

    def test_a_wait_that_timed_out(self) -> None:
        wait = Step("waitForEvent", "ok-1", at(2), at(3), finished=True, error=Error("Timeout", ""))
        assert self.error_of(Error("Error", "Timeout: late"), wait) == ("Timeout", "ok-1")
        assert self.error_of(Error("Error", "outside"), wait) == ("Error", None)

    def test_a_failed_step_without_an_error_of_its_own(self) -> None:
        bare = Step("step", "a-1", at(2), at(3), False)
        assert self.error_of(Error(None, None), bare) == ("Error", "a-1")


class TestNews:
    """Which simple responses are worth a detail request."""

    def judged(self, *, ignore_progress: bool = False, **fields: Any) -> Freshness:
        full: dict[str, Any] = {"queued": at(0), "status": "running", "step_count": 1}
        run, values, _ = taken(None, Detail(**full, version_id="v1"))
        simple = Summary(**{**full, "version_id": "v1", **fields})
        simple.correct_times(at(3600))
        return judge(run, values, simple, ignore_progress=ignore_progress)

    def test_a_response_that_repeats_what_is_known_is_none(self) -> None:
        assert self.judged() is Freshness.KNOWN

    @pytest.mark.parametrize(
        "moved",
        [
            {"status": "complete"},
            {"status": "waiting"},
            {"step_count": 2},
            {"queued": at(1)},
            {"start": at(1)},
            {"end": at(1)},
            {"version_id": "v2"},
            {"error": Error("Error", "boom")},
        ],
        ids=lambda moved: next(iter(moved)),
    )
    def test_each_field_that_moves_with_an_instance_is_one(self, moved: dict[str, Any]) -> None:
        assert self.judged(**moved) is Freshness.NEWER

    @pytest.mark.parametrize("field", ["queued", "start", "version_id", "trigger", "error"])
    def test_a_field_that_a_detail_response_lacked_is_one(self, field: str) -> None:
        full: dict[str, Any] = {
            "queued": at(0),
            "status": "running",
            "start": at(0),
            "step_count": 0,
            "trigger": Trigger("api"),
            "version_id": "v1",
            "error": Error("Error", "boom"),
        }
        known = taken(None, Detail(**full)).run
        run, values, _ = taken(known, Detail(**{**full, field: None, "end": at(1)}))
        assert judge(run, values, Summary(**full, end=at(1))) is Freshness.NEWER

    def test_what_simple_responses_lack_for_good_is_none(self) -> None:
        assert self.judged(version_id=None, step_count=None) is Freshness.KNOWN

    def test_a_time_that_stands_for_none_is_none(self) -> None:
        never = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))
        assert self.judged(end=never) is Freshness.KNOWN

    @pytest.mark.parametrize(
        ("moved", "freshness"),
        [
            ({"step_count": 2}, Freshness.KNOWN),
            ({"status": "waiting", "step_count": 2}, Freshness.KNOWN),
            ({"status": "paused"}, Freshness.NEWER),
            ({"status": "complete", "end": at(2)}, Freshness.NEWER),
        ],
    )
    def test_progress_is_none_where_it_has_to_wait(
        self, moved: dict[str, Any], freshness: Freshness
    ) -> None:
        assert self.judged(ignore_progress=True, **moved) is freshness


class TestFreshness:
    """Responses of a replica that is behind, and restarts from a step."""

    def known(self) -> Run:
        return taken(None, response(step("a-1", True), status="complete", end=at(9))).run

    def judged(self, simple: Summary) -> Freshness:
        run, values, _ = taken(None, response(step("a-1", True), status="complete", end=at(9)))
        return judge(run, values, simple)

    def test_a_response_of_an_earlier_run_is_behind(self) -> None:
        earlier = response(queued=at(-60))
        assert self.judged(earlier) is Freshness.BEHIND
        assert track(self.known(), earlier, now=NOW) is None

    def test_a_simple_response_that_lacks_something_known_leaves_it_open(self) -> None:
        for lacks in (
            response(status="complete"),
            response(step("a-1", True), start=None),
            response(step("a-1", True)),
        ):
            assert self.judged(lacks) is Freshness.UNDECIDED

    def test_a_detail_response_that_lacks_something_and_has_no_later_time_is_behind(self) -> None:
        assert track(self.known(), response(status="complete", end=at(9)), now=NOW) is None
        assert track(self.known(), response(step("a-1", True)), now=NOW) is None

    def test_live_again_with_a_later_step_is_a_restart(self) -> None:
        again = response(step("a-1", True), step("b-1", None, start=10))
        assert taken(self.known(), again).values.status == "running"

    def test_rolling_back_after_an_end_is_news(self) -> None:
        rolling = response(step("a-1", True), status="rollingBack")
        assert self.judged(rolling) is Freshness.NEWER
        first = taken(self.known(), rolling)
        assert first.values.status == "rollingBack"
        assert taken(first.run, rolling).values.status == "rollingBack"

    def test_rolling_back_before_a_step_that_runs_is_stale(self) -> None:
        failed = response(step("a-1", False), status="errored", end=at(4))
        again = response(step("a-1", None, start=20))
        run = taken(taken(None, failed).run, again).run
        rolling = response(step("a-1", False), status="rollingBack")
        assert track(run, rolling, now=NOW) is None

    def test_a_status_of_tomorrow_after_an_end_is_news(self) -> None:
        archived = response(step("a-1", True), status="archived")
        assert self.judged(archived) is Freshness.NEWER
        assert taken(self.known(), archived).values.status == "archived"

    def test_a_later_run_is_news(self) -> None:
        assert self.judged(response(queued=at(60))) is Freshness.NEWER

    def test_a_finished_attempt_that_is_open_again_is_stale(self) -> None:
        """Same status, as many steps: only the steps show that the response is older."""
        run = taken(None, response(step("a-1", False))).run
        assert track(run, response(step("a-1", None)), now=NOW) is None

    def test_a_step_that_is_open_again_as_its_last_attempt_has_ended_is_stale(self) -> None:
        """As many steps, with the same times: only its outcome is missing."""
        over = step("a-1", True)
        run = taken(None, response(over)).run
        opened = Step(over.type, over.name, over.start, attempts=over.attempts)
        assert track(run, response(opened), now=NOW) is None

    def test_a_response_without_the_attempt_that_runs_now_is_stale(self) -> None:
        run = taken(None, response(step("a-1", False, None))).run
        assert track(run, response(step("a-1", False)), now=NOW) is None


class TestRestartFromAStep:
    """`queued` and `start` stay; the end is removed; the step and later ones run again."""

    def errored(self) -> Detail:
        failed = failing("pay-1", Error("Error", "no"), 4)
        return response(step("a-1", True), failed, status="errored", end=at(6))

    def known(self) -> Run:
        return taken(None, self.errored()).run

    def test_what_ran_again_counts_again_and_the_rest_does_not(self) -> None:
        running = taken(self.known(), response(step("a-1", True), step("pay-1", None, start=20)))
        assert running.values.status == "running"
        assert running.values.error_name is None
        assert running.observations == Observations()
        done = response(
            step("a-1", True), step("pay-1", True, start=20), status="complete", end=at(30)
        )
        new = taken(running.run, done).observations
        assert new.run == FinishedRun("complete", 29.0)
        assert [s.name for s in new.steps] == ["pay-1"]
        assert new.attempts == [FinishedAttempt("pay-1", "success", 1.0)]
        assert new.queue_duration is None

    def test_ended_again_between_two_responses_the_later_end_counts(self) -> None:
        again = failing("pay-1", Error("Error", "no"), 20)
        failed = response(step("a-1", True), again, status="errored", end=at(22))
        new = taken(self.known(), failed).observations
        assert new.run == FinishedRun("errored", 21.0)
        assert [(s.name, s.outcome) for s in new.steps] == [("pay-1", "failure")]

    @pytest.mark.parametrize("unread", ["step", "start"])
    def test_ended_again_though_the_step_could_not_be_read(self, unread: str) -> None:
        again = failing("pay-1", Error("Error", "no"), 20)
        failed = response(step("a-1", True), again, status="errored", end=at(22))
        known, same = self.known(), self.errored()
        for detail in (same, failed):
            assert detail.steps is not None
            if unread == "step":
                detail.steps.pop()
            else:
                detail.steps[-1].start = None
        assert taken(known, same).observations.run is None, "the end that is known"
        second = taken(known, failed)
        assert second.observations.run == FinishedRun("errored", 21.0)
        assert taken(second.run, failed).observations.run is None

    def test_terminated_before_the_step_ran_again_counts_as_an_end(self) -> None:
        stopped = response(step("a-1", True), status="terminated", end=at(25))
        assert taken(self.known(), stopped).observations.run == FinishedRun("terminated", 24.0)

    def test_stale_responses_in_between_change_nothing(self) -> None:
        run = taken(self.known(), response(step("a-1", True), step("pay-1", None, start=20))).run
        assert track(run, self.errored(), now=NOW) is None
        assert track(run, response(step("a-1", True)), now=NOW) is None

    def test_of_a_run_that_continues(self) -> None:
        """What had finished of the deleted step was observed; what finishes now counts, too."""
        run = taken(None, response(step("a-1", True), step("pay-1", False, None, start=4))).run
        again = taken(run, response(step("a-1", True, start=20)))
        assert [s.name for s in again.observations.steps] == ["a-1"]
        new = taken(
            again.run, response(step("a-1", True, start=20), step("pay-1", False, start=24))
        ).observations
        assert new.attempts == [FinishedAttempt("pay-1", "failure", 1.0)]

    def test_a_queued_time_that_is_not_known_yet_keeps_the_run(self) -> None:
        later = response(step("a-1", True), step("b-1", None, start=9), queued=None)
        assert taken(self.known(), later).run.queued == at(0).timestamp()


def test_tracking_changes_nothing_it_was_given() -> None:
    """Pure: the same run and response give the same result again."""
    run = taken(None, response(step("a-1", True))).run
    before = Run(**{name: getattr(run, name) for name in run.__struct_fields__})
    detail = response(step("a-1", True), step("b-1", True, start=5))
    assert taken(run, detail) == taken(run, detail)
    assert run == before
    assert unix(detail.queued) == run.queued
