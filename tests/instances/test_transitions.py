"""What responses, rows and time make of an instance: each transition with each thing it depends
on."""

from datetime import timedelta
from math import inf

import pytest
from msgspec.structs import replace

from exporter.cloudflare.errors import RequestFailed
from exporter.cloudflare.models import Detail, Row, Step, Summary
from exporter.instances import lifecycle
from exporter.instances.instance import (
    NOTHING,
    Effects,
    Instance,
    LastPoll,
    Pending,
    PollReason,
    PollRequest,
    Scope,
)
from exporter.instances.run import Observations
from exporter.instances.state_records import LastRow
from exporter.instances.timeline import Entry, unpack
from exporter.instances.urgency import Urgency
from exporter.instances.values import InstanceValues
from tests.instances.polling import (
    FAILURE,
    POLL,
    at,
    begun,
    detail,
    known,
    new,
    polled,
    row,
    simple,
)
from tests.instances.times import QUEUED

LARGE = 2**20
"""Bytes of a response after which progress waits for a minute."""
HOUR = timedelta(hours=1)


def listed(status: str, modified: float = 9, *, polled_at: float | None = None) -> Instance:
    """A discovered instance with a row; `polled_at`: and with a detail response after it."""
    instance = new(Scope.DISCOVERED)
    lifecycle.on_row(instance, at(10), row(status, modified))
    if polled_at is not None:
        polled(instance, polled_at, status)
    return instance


def failed(instance: Instance, seconds: float = 20) -> Instance:
    begun(instance, seconds)
    lifecycle.on_failure(instance, at(seconds), FAILURE)
    return instance


def large(scope: Scope = Scope.CONFIGURED, status: str = "running", steps: int = 0) -> Instance:
    """An instance whose last detail response, of 10 seconds, was large."""
    instance = new(scope)
    begun(instance, 10)
    lifecycle.on_detail(instance, at(10), detail(status, steps), LARGE)
    return instance


def not_found(instance: Instance, *times: float) -> Instance:
    for seconds in times:
        begun(instance, seconds)
        lifecycle.on_not_found(instance, at(seconds))
    return instance


class TestWhatIsAskedFor:
    @pytest.mark.parametrize(
        ("instance", "reason"),
        [(known(Scope.CONFIGURED), PollReason.DUE), (failed(known(Scope.CONFIGURED)), "AGAIN")],
    )
    def test_by_a_round(self, instance: Instance, reason: str) -> None:
        reason = getattr(PollReason, reason, reason)
        assert lifecycle.on_due(instance) == Pending(Urgency.CONFIGURED, PollReason(reason))

    def test_by_a_row_of_an_error_that_is_history(self) -> None:
        instance = known(Scope.DISCOVERED, "errored")
        instance.since = at(10).unix
        lifecycle.on_row(instance, at(20), row("errored", 20))
        assert lifecycle.request_detail(instance) == Pending(Urgency.CHANGED, PollReason.ROW)

    def test_by_a_row_of_another_run_than_the_one_that_is_shown(self) -> None:
        instance = known(Scope.DISCOVERED, "errored")
        restarted = replace(row("queued", 20), started_on=None)
        lifecycle.on_row(instance, at(20), restarted)
        assert instance.status == "errored"
        assert lifecycle.request_detail(instance) == Pending(Urgency.MISSED, PollReason.ROW)

    def test_by_a_row_of_another_run_with_the_same_status(self) -> None:
        instance = known(Scope.DISCOVERED)
        restarted = replace(row("running", 20), started_on=QUEUED + timedelta(seconds=19))
        unclear = lifecycle.on_row(instance, at(20), restarted).needs_detail
        pending = lifecycle.request_detail(instance, unclear=unclear)
        assert pending == Pending(Urgency.MISSED, PollReason.ROW)

    def test_by_the_first_row_of_a_live_one_whose_values_are_not_known(self) -> None:
        instance = new(Scope.DISCOVERED)
        instance.row = LastRow("running")
        pending = lifecycle.request_detail(instance)
        assert pending == Pending(Urgency.CHANGED, PollReason.FIRST)

    @pytest.mark.parametrize(
        ("instance", "pends", "wants_detail"),
        [
            (known(Scope.DISCOVERED), True, True),
            (known(Scope.DISCOVERED, "complete"), True, False),
            (failed(known(Scope.DISCOVERED)), False, True),
            (failed(known(Scope.DISCOVERED, "complete")), False, False),
        ],
        ids=["live", "ended", "live, fails", "ended, fails"],
    )
    def test_by_its_absence_from_lists(
        self, instance: Instance, *, pends: bool, wants_detail: bool
    ) -> None:
        pending = lifecycle.on_missing_from_lists(instance)
        assert pending == (Pending(Urgency.MISSED, PollReason.MISSED) if pends else None)
        assert instance.wants_detail is wants_detail

    @pytest.mark.parametrize(
        ("instance", "status", "pends"),
        [
            (known(Scope.CONFIGURED, "errored"), "running", True),
            (known(Scope.CONFIGURED, "complete"), "errored", True),
            (known(Scope.CONFIGURED, "errored"), "errored", False),
            (known(Scope.CONFIGURED, "errored"), "complete", False),
            (known(Scope.CONFIGURED), "paused", False),
            (failed(known(Scope.CONFIGURED, "errored")), "running", False),
        ],
        ids=["restarted", "errored now", "same", "ended", "live", "fails"],
    )
    def test_by_the_row_of_a_configured_one(
        self, instance: Instance, status: str, *, pends: bool
    ) -> None:
        pending = lifecycle.on_configured_row(instance, status)
        assert pending == (Pending(Urgency.CONFIGURED, PollReason.ROW) if pends else None)


class TestTurn:
    def test_the_next_comes_an_interval_later_whatever_comes_of_it(self) -> None:
        instance = new()
        begun(instance, 10)
        assert instance.due == 10 + POLL.interval

    @pytest.mark.parametrize(
        ("instance", "seconds", "wants_detail", "request_"),
        [
            (known(Scope.DISCOVERED), 20, True, ("detail", PollReason.DUE)),
            (known(Scope.DISCOVERED), 400, True, ("detail", PollReason.DUE)),
            (known(Scope.DISCOVERED), 400, False, ("detail", PollReason.REFRESH)),
            (new(), 400, True, ("detail", PollReason.FIRST)),
            (large(), 69, True, ("simple", PollReason.DUE)),
            (large(), 71, True, ("detail", PollReason.DUE)),
            (large(status="errored"), 69, True, ("detail", PollReason.DUE)),
        ],
        ids=["wanted", "and due", "due", "first", "can wait", "waited", "ended: can't wait"],
    )
    def test_its_request(
        self, instance: Instance, seconds: float, wants_detail: bool, request_: tuple[str, str]
    ) -> None:
        instance.wants_detail = wants_detail
        kind, reason = request_
        assert begun(instance, seconds) == PollRequest(
            seconds,
            kind,  # type: ignore[arg-type]
            PollReason(reason),
        )

    @pytest.mark.parametrize(
        ("size", "seconds", "kind"),
        [
            (100, 309, "simple"),
            (100, 310, "detail"),
            (10 * LARGE, 609, "simple"),
            (10 * LARGE, 611, "detail"),
        ],
    )
    def test_steps_that_outlive_their_run_are_refreshed(
        self, size: int, seconds: float, kind: str
    ) -> None:
        instance = new()
        begun(instance, 10)
        response = detail("complete", 1)
        response.steps = [Step("step", "pay-1", QUEUED)]
        lifecycle.on_detail(instance, at(10), response, size)
        assert begun(instance, seconds).kind == kind


class TestSimpleResponse:
    def test_after_a_row_of_a_restart_its_steps_are_fetched(self) -> None:
        """The row came while the request was under way."""
        instance = known(Scope.DISCOVERED, "errored")
        begun(instance, 20)
        lifecycle.on_row(instance, at(21), row("running", 20))
        lifecycle.on_simple(instance, at(22), simple("running"))
        assert instance.request.kind == "detail"

    def test_one_of_which_only_a_status_is_known_has_its_steps_fetched(self) -> None:
        instance = new()
        instance.activity = PollRequest(20, "simple", PollReason.DUE)
        lifecycle.on_simple(instance, at(20), simple())
        assert instance.activity == PollRequest(20, "detail", PollReason.CHANGED)

    def test_while_steps_can_wait_one_that_lacks_some_is_behind(self) -> None:
        instance = large(Scope.CONFIGURED, steps=3)
        begun(instance, 20)
        assert lifecycle.on_simple(instance, at(21), simple(steps=2)) == NOTHING
        assert (instance.activity, instance.checked_at) == (None, 10)
        assert instance.values
        assert instance.values.step_count == 3

    def test_otherwise_a_detail_response_decides(self) -> None:
        instance = new()
        polled(instance, 10, steps=3)
        begun(instance, 20)
        lifecycle.on_simple(instance, at(21), simple(steps=2))
        assert instance.request.kind == "detail"

    @pytest.mark.parametrize(
        ("response", "progress"),
        [
            (simple(), None),
            (simple(steps=1), ("running", 1)),
            (simple("waiting"), ("waiting", 0)),
            (Summary(queued=QUEUED, start=QUEUED, status="waiting"), ("waiting", 0)),
        ],
    )
    def test_progress_is_shown_while_its_steps_can_wait(
        self, response: Summary, progress: tuple[str, int] | None
    ) -> None:
        instance = large()
        begun(instance, 20)
        shown = lifecycle.on_simple(instance, at(21), response) == Effects(show=True)
        assert shown is (progress is not None)
        assert instance.values
        assert (instance.values.status, instance.values.step_count) == (progress or ("running", 0))
        assert instance.wants_detail is shown
        assert instance.last_change == at(21 if shown else 10).unix

    def test_what_is_known_shows_nothing(self) -> None:
        instance = known(Scope.CONFIGURED)
        begun(instance, 20)
        assert lifecycle.on_simple(instance, at(21), simple()) == NOTHING
        assert not instance.wants_detail
        assert (instance.checked_at, instance.last_change) == (21, at(10).unix)


class TestDetailResponse:
    @pytest.mark.parametrize("scope", list(Scope))
    def test_its_steps_are_for_the_page_of_what_has_series(self, scope: Scope) -> None:
        instance = new(scope)
        begun(instance, 10)
        response = detail(steps=1)
        response.steps = [Step("step", "pay-1", QUEUED)]
        lifecycle.on_detail(instance, at(11), response, 100)
        if scope is Scope.COUNTED:
            assert instance.timeline is None
        else:
            assert instance.timeline
            start = QUEUED.timestamp()
            entry = Entry("pay-1", "step", "running", start, None, 0, 0, None)
            assert unpack(instance.timeline).entries == (entry,)
        assert (instance.detailed_at, instance.checked_at) == (10, 11)

    @pytest.mark.parametrize(
        ("scope", "status", "expires"),
        [
            (Scope.DISCOVERED, "running", None),
            (Scope.DISCOVERED, "complete", 5000),
            (Scope.CONFIGURED, "complete", None),
        ],
    )
    def test_what_is_live_does_not_expire(
        self, scope: Scope, status: str, expires: float | None
    ) -> None:
        instance = new(scope)
        instance.expires_at = 5000
        polled(instance, 20, status)
        assert instance.expires_at == expires

    @pytest.mark.parametrize(
        ("scope", "status", "seconds", "backfilled"),
        [
            (Scope.CONFIGURED, "errored", 9 + 3601, True),
            (Scope.CONFIGURED, "errored", 9 + 3600, False),
            (Scope.CONFIGURED, "running", 9 + 3601, False),
            (Scope.COUNTED, "errored", 9 + 3601, False),
        ],
    )
    def test_counting_the_old_end_of_a_configured_one_on_first_sight_is_backfill(
        self, scope: Scope, status: str, seconds: float, *, backfilled: bool
    ) -> None:
        assert polled(new(scope), seconds, status).backfilled is backfilled

    def test_counting_the_old_end_of_one_that_was_seen_live_or_is_history_is_none(self) -> None:
        assert not polled(known(Scope.CONFIGURED), 5000, "errored").backfilled
        history = new()
        history.since = at(10).unix
        assert not polled(history, 5000, "errored").backfilled

    def test_the_same_again_is_recorded_and_changes_nothing(self) -> None:
        instance = known(Scope.CONFIGURED)
        effects = polled(instance, 400)
        assert effects == Effects(record=True, observations=effects.observations)
        assert instance.last_change == at(10).unix

    @pytest.mark.parametrize(
        ("modified", "seconds", "wants_detail"),
        [(20, 40, True), (20, 400, False), (9, 40, False)],
        ids=["newer row", "long ago", "same"],
    )
    def test_the_same_after_a_newer_row_of_an_end_may_be_behind(
        self, modified: float, seconds: float, *, wants_detail: bool
    ) -> None:
        instance = known(Scope.DISCOVERED, "errored")
        lifecycle.on_row(instance, at(20), row("errored", modified))
        polled(instance, seconds, "errored")
        assert instance.wants_detail is wants_detail

    def test_another_after_a_newer_row_is_what_was_waited_for(self) -> None:
        instance = listed("errored", 20)
        polled(instance, 40, "errored")
        assert not instance.wants_detail

    def test_one_that_is_behind_changes_nothing(self) -> None:
        instance = known(Scope.DISCOVERED, "complete")
        before = instance.run, instance.values, instance.detailed_at, instance.checked_at
        begun(instance, 1000)
        instance.activity = PollRequest(1000, "detail", PollReason.DUE)
        late = detail()
        late.queued = QUEUED - HOUR
        assert lifecycle.on_detail(instance, at(1000), late, LARGE) == NOTHING
        after = instance.run, instance.values, instance.detailed_at, instance.checked_at
        assert after == before
        assert instance.last_poll.request == PollRequest(1000, "detail", PollReason.DUE)
        assert instance.due == 1000 + POLL.interval
        assert instance.detail_after == 1060


class TestNotFound:
    @pytest.mark.parametrize(
        ("scope", "due"), [(Scope.CONFIGURED, 40 + POLL.interval), (Scope.DISCOVERED, inf)]
    )
    def test_only_a_configured_one_is_polled_again(self, scope: Scope, due: float) -> None:
        instance = not_found(known(scope), 20)
        assert instance.due == 20 + POLL.interval
        assert not_found(instance, 40).due == due

    def test_later_ones_do_not_put_its_expiry_off(self) -> None:
        instance = not_found(known(Scope.CONFIGURED), 20, 40, 60)
        assert instance.expires_at == 40 + POLL.forget_after
        assert instance.last_poll.not_found == 3

    def test_a_response_takes_it_back(self) -> None:
        instance = not_found(known(Scope.CONFIGURED), 20, 40)
        begun(instance, 60)
        assert lifecycle.on_simple(instance, at(60), simple()) == Effects(record=True)
        assert (instance.last_poll.not_found, instance.expires_at) == (0, None)


class TestFailure:
    @pytest.mark.parametrize(
        ("kind", "detail_after", "due"),
        [("detail", 80, 80 + POLL.interval / 2), ("simple", -inf, 20 + POLL.interval)],
    )
    def test_a_large_response_pauses_the_steps(
        self, kind: str, detail_after: float, due: float
    ) -> None:
        instance = new()
        instance.activity = PollRequest(20, kind, PollReason.DUE)  # type: ignore[arg-type]
        failure = RequestFailed("invalid_answer", "too large")
        failure.size = LARGE
        assert lifecycle.on_failure(instance, at(20), failure) == NOTHING
        assert (instance.detail_after, instance.due) == (detail_after, due)
        assert instance.failure
        assert instance.activity is None

    @pytest.mark.parametrize(
        ("instance", "due"),
        [
            (failed(failed(failed(known(Scope.CONFIGURED)), 40), 80), 100),
            (failed(known(Scope.CONFIGURED), 90), 100),
            (failed(failed(failed(large()), 40), 61), 100),
            (known(Scope.CONFIGURED), 10 + POLL.interval),
            (not_found(known(Scope.DISCOVERED), 20, 40), inf),
        ],
        ids=["long pause", "due soon", "large", "succeeded", "not found"],
    )
    def test_the_pause_ends_once_the_workflow_can_be_read(
        self, instance: Instance, due: float
    ) -> None:
        lifecycle.on_workflow_readable(instance, at(100))
        assert instance.due == due

    def test_the_pause_after_a_large_response_lasts(self) -> None:
        instance = failed(large(), 20)
        instance.due, instance.detail_after = 500, 200
        lifecycle.on_workflow_readable(instance, at(100))
        assert instance.due == 200
        instance.due = 150
        lifecycle.on_workflow_readable(instance, at(100))
        assert instance.due == 150


class TestRow:
    def test_of_a_first_sight(self) -> None:
        instance = new(Scope.DISCOVERED)
        effects = lifecycle.on_row(instance, at(20), row("complete", 9))
        assert effects == Effects(record=True, show=True, observations=effects.observations)
        assert effects.observations not in (None, Observations())
        assert instance.row == LastRow("complete", at(0).unix, at(9).unix)
        assert instance.values
        assert instance.values.status == "complete"
        assert (instance.checked_at, instance.last_change) == (20, at(20).unix)

    def test_that_shows_nothing_new_shows_that_it_is_there(self) -> None:
        instance = listed("running")
        assert lifecycle.on_row(instance, at(30), row("running", 9)) == NOTHING
        assert (instance.checked_at, instance.last_change) == (30, at(10).unix)

    @pytest.mark.parametrize(
        ("instance", "needs_detail"),
        [(new(Scope.DISCOVERED), False), (known(Scope.DISCOVERED), True)],
        ids=["first sight", "known by a poll"],
    )
    def test_without_times_tells_no_run(self, instance: Instance, *, needs_detail: bool) -> None:
        values = instance.values
        effects = lifecycle.on_row(instance, at(20), Row(id="a", status="complete"))
        assert effects == Effects(record=True, needs_detail=needs_detail)
        assert instance.values is values
        again = lifecycle.on_row(instance, at(30), Row(id="a", status="running"))
        assert again == Effects(record=True, needs_detail=True)

    @pytest.mark.parametrize(
        ("before", "after", "detailed"),
        [
            ("errored", "running", False),
            ("errored", "errored", True),
            ("running", "running", True),
            ("running", "errored", True),
        ],
    )
    def test_of_a_restart_makes_its_steps_unknown(
        self, before: str, after: str, *, detailed: bool
    ) -> None:
        instance = known(Scope.DISCOVERED, before)
        lifecycle.on_row(instance, at(40), row(after, 30))
        assert instance.detailed is detailed

    def test_of_an_end_whose_steps_are_not_known_does_not_repeat_it(self) -> None:
        instance = listed("errored")
        assert not lifecycle.on_row(instance, at(20), row("errored", 9.5)).repeats

    @pytest.mark.parametrize(
        ("status", "seconds", "due", "count", "expires"),
        [
            ("running", 50, 50 + POLL.ended_interval, 2, None),
            ("running", 40 + POLL.forget_after, 40 + POLL.forget_after + 600, 0, None),
            ("complete", 50, inf, 2, 40 + POLL.forget_after),
        ],
        ids=["live", "expired", "ended"],
    )
    def test_of_a_live_one_that_polls_do_not_find_shows_that_it_is_there(
        self, status: str, seconds: float, due: float, count: int, expires: float | None
    ) -> None:
        instance = not_found(listed(status, polled_at=10), 20, 40)
        lifecycle.on_row(instance, at(seconds), row(status, 9))
        assert (instance.due, instance.last_poll.not_found) == (due, count)
        assert instance.expires_at == expires

    def test_of_an_ended_one_that_polls_did_not_find_has_its_steps_fetched_later(self) -> None:
        instance = listed("errored")
        lifecycle.request_detail(instance)
        not_found(instance, 20, 40)
        lifecycle.on_row(instance, at(50), row("errored", 9))
        assert instance.due == 50 + POLL.ended_interval
        assert instance.expires_at == 40 + POLL.forget_after

    def test_of_one_that_polls_find_changes_nothing(self) -> None:
        instance = listed("running", polled_at=10)
        instance.expires_at = 50
        lifecycle.on_row(instance, at(40), row("running", 9))
        assert (instance.due, instance.expires_at) == (10 + POLL.interval, 50)
        instance = not_found(listed("running", polled_at=10), 20)
        lifecycle.on_row(instance, at(30), row("running", 9))
        assert (instance.due, instance.expires_at) == (20 + POLL.interval, None)


class TestSelected:
    def test_what_was_not_found_keeps_its_expiry(self) -> None:
        instance = not_found(known(Scope.DISCOVERED), 20)
        assert lifecycle.on_selected(instance, at(30), selected=True, placed=True) == NOTHING

    @pytest.mark.parametrize(
        ("scope", "expires_at", "placed", "record"),
        [
            (Scope.DISCOVERED, None, False, False),
            (Scope.DISCOVERED, 50, False, True),
            (Scope.COUNTED, None, True, True),
            (Scope.COUNTED, None, False, False),
        ],
    )
    def test_what_changes_is_recorded(
        self, scope: Scope, expires_at: float | None, *, placed: bool, record: bool
    ) -> None:
        instance = known(scope)
        instance.expires_at = expires_at
        effects = lifecycle.on_selected(instance, at(30), selected=True, placed=placed)
        assert effects == Effects(record=record, show=placed)

    @pytest.mark.parametrize(("modified", "detailed"), [(20, False), (0, True)])
    def test_its_steps_were_not_followed_while_it_had_no_series(
        self, modified: float, *, detailed: bool
    ) -> None:
        instance = known(Scope.COUNTED)
        lifecycle.on_row(instance, at(20), row("running", modified))
        lifecycle.on_selected(instance, at(30), selected=True, placed=False)
        assert instance.detailed
        lifecycle.on_selected(instance, at(30), selected=True, placed=True)
        assert instance.detailed is detailed

    @pytest.mark.parametrize(
        ("scope", "before", "expires"),
        [
            (Scope.DISCOVERED, 50, None),
            (Scope.COUNTED, None, 30 + POLL.forget_after),
            (Scope.COUNTED, 50, 50),
        ],
        ids=["has series", "without a place", "expires already"],
    )
    def test_what_ended_and_has_no_series_expires(
        self, scope: Scope, before: float | None, expires: float | None
    ) -> None:
        instance = known(scope, "complete")
        instance.expires_at = before
        lifecycle.on_selected(instance, at(30), selected=True, placed=False)
        assert instance.expires_at == expires

    @pytest.mark.parametrize(
        ("status", "before", "expires"),
        [
            ("complete", None, 30 + POLL.forget_after),
            ("complete", 50, 50),
            ("running", None, None),
        ],
    )
    def test_what_gives_its_place_up_is_only_counted(
        self, status: str, before: float | None, expires: float | None
    ) -> None:
        instance = known(Scope.DISCOVERED, status)
        instance.expires_at = before
        effects = lifecycle.on_series_given_up(instance, at(30))
        assert effects == Effects(record=True, hide=True)
        assert (instance.scope, instance.expires_at) == (Scope.COUNTED, expires)


class TestTime:
    @pytest.mark.parametrize(
        ("status", "since", "skipped"),
        [("complete", -inf, True), ("complete", 100, False), ("running", -inf, False)],
        ids=["ended", "history", "live"],
    )
    def test_skipped_are_ends_that_are_news(
        self, status: str, since: float, *, skipped: bool
    ) -> None:
        instance = listed(status)
        instance.since, instance.expires_at = at(since).unix, 20
        instance.wants_detail = True
        effects = lifecycle.on_tick(instance, at(30), settled=-inf)
        assert effects == Effects(record=True, hide=True, skipped=skipped)
        assert (instance.scope, instance.wants_detail) == (Scope.COUNTED, False)

    def test_what_has_no_series_and_nothing_to_fetch_is_as_it_was(self) -> None:
        instance = known(Scope.COUNTED, "complete")
        instance.expires_at = 20
        assert lifecycle.on_tick(instance, at(30), settled=-inf) == NOTHING

    def test_a_configured_one_is_as_on_first_sight_but_for_what_was_counted(self) -> None:
        instance = known(Scope.CONFIGURED, "complete")
        run, instance.row, instance.expires_at = instance.run, LastRow("complete"), 20
        assert instance.timeline
        effects = lifecycle.on_tick(instance, at(30), settled=inf)
        assert effects == Effects(record=True, hide=True)
        again = new()
        again.run = run
        for field in ("run", "values", "timeline", "expires_at", "row", "detailed_at"):
            assert getattr(instance, field) == getattr(again, field)

    def test_what_was_never_shown_is_not_hidden(self) -> None:
        instance = new(Scope.DISCOVERED)
        instance.expires_at = 20
        effects = lifecycle.on_tick(instance, at(30), settled=inf)
        assert effects == Effects(record=True, remove=True)


def test_a_poll_that_is_cut_off_leaves_it_idle() -> None:
    instance = known(Scope.CONFIGURED)
    begun(instance, 20)
    lifecycle.cancel(instance)
    assert instance.activity is None
    assert instance.last_poll == LastPoll(PollRequest(10, "detail", PollReason.FIRST))


def test_its_values_may_be_those_of_a_response_without_steps() -> None:
    instance = new()
    begun(instance, 10)
    lifecycle.on_detail(instance, at(10), Detail(queued=QUEUED, status="queued"), 100)
    assert instance.values == InstanceValues(
        "queued",
        "",
        "unknown",
        step_count=0,
        steps={},
        attempts={"success": 0, "failure": 0, "running": 0},
        retries=0,
        queued=QUEUED.timestamp(),
    )
