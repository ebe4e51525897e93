"""The life of an instance: each state with each event, and what holds whatever happens."""

import ast
from datetime import timedelta
from math import inf
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from exporter.cloudflare.event_queue import KINDS
from exporter.cloudflare.models import Summary
from exporter.instances import lifecycle
from exporter.instances.freshness import Freshness, judge
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
from exporter.instances.urgency import Urgency
from exporter.statuses import ENDED, STATUSES
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

DISCOVERED = [Scope.DISCOVERED, Scope.COUNTED]
EVERY_SCOPE = pytest.mark.parametrize("scope", list(Scope), ids=lambda scope: scope.name.lower())


class TestPend:
    """Idle, pending or in flight."""

    PENDING = Pending(Urgency.CONFIGURED, PollReason.DUE)
    REQUEST = PollRequest(0, "simple", PollReason.DUE)

    @pytest.mark.parametrize(
        ("activity", "urgency", "after"),
        [
            (None, Urgency.LIVE, Pending(Urgency.LIVE, PollReason.ROW)),
            (PENDING, Urgency.ERRORED, Pending(Urgency.ERRORED, PollReason.ROW)),
            (PENDING, Urgency.CONFIGURED, PENDING),
            (PENDING, Urgency.LIVE, PENDING),
            (REQUEST, Urgency.ERRORED, REQUEST),
        ],
        ids=["idle", "more urgent", "as urgent", "less urgent", "in flight"],
    )
    def test_it_waits_once_and_as_urgently_as_anything_asks(
        self, activity: Pending | PollRequest | None, urgency: Urgency, after: Pending | PollRequest
    ) -> None:
        instance = known(Scope.CONFIGURED)
        instance.activity = activity
        pending = lifecycle.pend(instance, urgency, PollReason.ROW)
        assert instance.activity == after
        assert pending == (None if after == activity else after)

    @pytest.mark.parametrize(
        ("status", "urgency"),
        [("errored", Urgency.ERRORED), ("complete", Urgency.CHANGED), ("running", Urgency.LIVE)],
    )
    def test_a_row_asks_by_its_status(self, status: str, urgency: Urgency) -> None:
        instance = known(Scope.DISCOVERED)
        lifecycle.on_row(instance, at(20), row(status, 20))
        assert lifecycle.request_detail(instance) == Pending(urgency, PollReason.ROW)

    @pytest.mark.parametrize(
        ("polled", "listed", "modified", "repeats"),
        [
            ("errored", "errored", 9, True),
            ("errored", "errored", 20, False),
            ("errored", "complete", 9, False),
            ("errored", "running", 20, False),
            ("running", "errored", 9, False),
            ("running", "running", 0, False),  # within a second it may have moved
        ],
    )
    def test_a_row_of_an_end_that_a_poll_has_shown_repeats_it(
        self, polled: str, listed: str, modified: float, *, repeats: bool
    ) -> None:
        instance = known(Scope.DISCOVERED, polled)
        effects = lifecycle.on_row(instance, at(20), row(listed, modified))
        assert effects.repeats is repeats

    def test_a_row_of_an_end_whose_steps_are_still_to_be_polled_does_not_repeat_it(self) -> None:
        instance = known(Scope.DISCOVERED, "errored")
        instance.wants_detail = True
        effects = lifecycle.on_row(instance, at(20), row("errored", 9))
        assert not effects.repeats

    def test_after_a_failure_a_row_waits_for_the_pause(self) -> None:
        instance = known(Scope.DISCOVERED)
        begun(instance, 20)
        lifecycle.on_failure(instance, at(20), FAILURE)
        assert lifecycle.request_detail(instance) is None
        assert instance.wants_detail


class TestNextRequest:
    @EVERY_SCOPE
    def test_detail_on_first_sight(self, scope: Scope) -> None:
        assert begun(new(scope), 10) == PollRequest(10, "detail", PollReason.FIRST)

    @EVERY_SCOPE
    def test_simple_afterwards(self, scope: Scope) -> None:
        assert begun(known(scope), 25) == PollRequest(25, "simple", PollReason.DUE)

    @pytest.mark.parametrize(
        ("status", "kind"), [("running", "detail"), ("complete", "simple"), ("errored", "simple")]
    )
    def test_a_refresh_of_what_is_live(self, status: str, kind: str) -> None:
        request = begun(known(Scope.CONFIGURED, status), 10 + POLL.detail_refresh)
        assert request.kind == kind

    @pytest.mark.parametrize(
        ("response", "follows"),
        [
            (simple(), None),
            (simple(steps=1), PollReason.CHANGED),
            (simple("complete"), PollReason.CHANGED),
            (Summary(queued=QUEUED - timedelta(hours=1), status="complete"), None),
            (Summary(queued=QUEUED + timedelta(hours=1), status="queued"), PollReason.CHANGED),
        ],
        ids=["same", "step", "end", "an earlier run", "a later run"],
    )
    def test_a_simple_response_that_shows_news_is_followed_by_a_detail_request(
        self, response: Summary, follows: PollReason | None
    ) -> None:
        instance = known(Scope.CONFIGURED)
        begun(instance, 25)
        assert lifecycle.on_simple(instance, at(25), response) == NOTHING
        assert instance.activity == (follows and PollRequest(25, "detail", follows))

    def test_progress_after_a_large_response_is_shown_and_its_steps_wait(self) -> None:
        instance = new()
        begun(instance, 10)
        lifecycle.on_detail(instance, at(10), detail(), 10**7)
        assert begun(instance, 25).kind == "simple"
        effects = lifecycle.on_simple(instance, at(25), simple(steps=3))
        assert effects == Effects(show=True)
        assert instance.values is not None
        assert (instance.values.step_count, instance.wants_detail) == (3, True)

    @pytest.mark.parametrize(
        ("scope", "status", "due"),
        [
            (Scope.CONFIGURED, "running", 10 + POLL.interval),
            (Scope.CONFIGURED, "complete", 10 + POLL.ended_interval),
            (Scope.DISCOVERED, "running", 10 + POLL.interval),
            (Scope.DISCOVERED, "complete", inf),
            (Scope.COUNTED, "errored", inf),
        ],
    )
    def test_the_next_poll(self, scope: Scope, status: str, due: float) -> None:
        instance = new(scope)
        if scope is not Scope.CONFIGURED:
            lifecycle.on_row(instance, at(10), row(status, 9))
        polled(instance, 10, status)
        assert instance.due == due

    @pytest.mark.parametrize("scope", DISCOVERED)
    def test_an_ended_one_whose_rows_have_no_times_is_polled_again(self, scope: Scope) -> None:
        assert known(scope, "complete").due == 10 + POLL.ended_interval


def test_pauses_double_after_each_failure() -> None:
    instance, seconds, pauses = known(Scope.CONFIGURED), 20.0, []
    for _ in range(8):
        begun(instance, seconds)
        lifecycle.on_failure(instance, at(seconds), FAILURE)
        pauses.append(instance.due - seconds)
        seconds = instance.due
    assert pauses == [15, 30, 60, 120, 240, 480, 600, 600]


@pytest.mark.parametrize(("status", "taken"), [("terminated", True), (None, False)])
def test_without_details_a_simple_response_is_taken_if_it_has_a_status(
    status: str | None, *, taken: bool
) -> None:
    instance = known(Scope.CONFIGURED)
    instance.wants_detail = True
    assert begun(instance, 20).kind == "detail"
    lifecycle.on_failure(instance, at(20), FAILURE)
    assert begun(instance, 40).kind == "simple"
    before = instance.run
    over = Summary(queued=QUEUED, start=QUEUED, end=QUEUED + timedelta(seconds=30), status=status)
    observations = lifecycle.on_simple(instance, at(40), over).observations
    assert (observations is not None and observations.run is not None) is taken
    assert (instance.run != before) is taken
    assert instance.request.kind == "detail"


def without_details() -> Instance:
    """An instance that waits in its fifth step, and whose next detail response can't be read."""
    instance = new()
    polled(instance, 10, "waiting", steps=5)
    begun(instance, 20)
    lifecycle.on_simple(instance, at(20), simple("paused", steps=5))
    lifecycle.on_failure(instance, at(20), FAILURE)
    return instance


def test_without_details_no_simple_response_that_is_behind_is_taken() -> None:
    instance = without_details()
    assert begun(instance, 40).kind == "simple"
    assert lifecycle.on_simple(instance, at(40), simple("running", steps=4)) == NOTHING
    assert instance.status == "waiting"


def test_the_steps_of_a_run_that_ended_without_details_are_still_fetched() -> None:
    instance = without_details()
    begun(instance, 40)
    lifecycle.on_simple(instance, at(40), simple("complete", steps=5))
    for seconds in (40, 100):
        lifecycle.on_failure(instance, at(seconds), FAILURE)
        request = begun(instance, seconds + 60)
    assert (instance.status, request.kind) == ("complete", "detail")


class TestNotFound:
    @pytest.mark.parametrize(
        ("instance", "expires"),
        [
            (known(Scope.CONFIGURED), True),
            (known(Scope.DISCOVERED), True),
            (known(Scope.COUNTED), True),
            (new(), False),
            (new(Scope.COUNTED), True),
        ],
        ids=["configured", "discovered", "counted", "configured unseen", "counted unseen"],
    )
    def test_twice_in_a_row_starts_the_expiry_of_what_is_known(
        self, instance: Instance, expires: bool
    ) -> None:
        for seconds in (20, 40):
            assert instance.expires_at is None
            begun(instance, seconds)
            effects = lifecycle.on_not_found(instance, now=at(seconds))
            assert effects == Effects(record=True)
        assert instance.expires_at == (40 + POLL.forget_after if expires else None)

    @EVERY_SCOPE
    def test_a_success_or_a_failure_between_begins_the_count_again(self, scope: Scope) -> None:
        instance = known(scope)
        for seconds in (20, 60, 100):
            begun(instance, seconds)
            lifecycle.on_not_found(instance, now=at(seconds))
            begun(instance, seconds + 20)
            if seconds == 60:
                now = at(seconds + 20)
                lifecycle.on_failure(instance, now, FAILURE)
            else:
                lifecycle.on_simple(instance, at(seconds + 20), simple())
        assert instance.expires_at is None


class TestExpiry:
    @pytest.mark.parametrize(
        ("scope", "expiry"),
        [
            (Scope.CONFIGURED, Effects(record=True, hide=True, remove=False, skipped=False)),
            (Scope.DISCOVERED, Effects(record=True, hide=True, remove=True, skipped=False)),
            (Scope.COUNTED, Effects(record=True, hide=False, remove=True, skipped=False)),
        ],
    )
    def test_what_expires(self, scope: Scope, expiry: Effects) -> None:
        instance = known(scope)
        for seconds in (20, 40):
            begun(instance, seconds)
            lifecycle.on_not_found(instance, now=at(seconds))
        assert lifecycle.on_tick(instance, at(39 + POLL.forget_after), settled=inf) is NOTHING
        assert lifecycle.on_tick(instance, at(40 + POLL.forget_after), settled=inf) == expiry

    def test_an_ended_one_whose_steps_were_never_fetched_is_skipped(self) -> None:
        instance = new(Scope.COUNTED)
        lifecycle.on_row(instance, at(10), row("complete", 9))
        lifecycle.on_selected(instance, selected=False, placed=False, now=at(10))
        lifecycle.request_detail(instance)
        expiry = lifecycle.on_tick(instance, at(10 + POLL.forget_after), settled=inf)
        assert expiry == Effects(record=True, hide=False, remove=True, skipped=True)

    @pytest.mark.parametrize("scope", DISCOVERED)
    def test_it_is_known_until_no_list_shows_news_of_it(self, scope: Scope) -> None:
        instance, shown = known(scope, "complete"), scope is Scope.DISCOVERED
        instance.wants_detail, instance.expires_at = True, 20.0
        first = Effects(record=True, hide=shown, skipped=True)
        assert lifecycle.on_tick(instance, at(20), settled=19) == first
        assert instance.due == inf
        assert lifecycle.on_tick(instance, at(40), settled=19) == NOTHING
        removed = Effects(record=True, remove=True)
        assert lifecycle.on_tick(instance, at(60), settled=20) == removed

    def test_a_poll_in_flight_comes_first(self) -> None:
        instance = known(Scope.DISCOVERED)
        for seconds in (20, 40):
            begun(instance, seconds)
            lifecycle.on_not_found(instance, now=at(seconds))
        begun(instance, 10**6)
        assert lifecycle.on_tick(instance, at(10**6), settled=inf) is NOTHING


class TestSelected:
    @pytest.mark.parametrize("scope", DISCOVERED)
    @pytest.mark.parametrize(
        ("status", "selected", "placed", "expires"),
        [
            ("running", True, True, False),
            ("running", False, False, False),
            ("running", True, False, False),
            ("complete", False, False, True),
            ("errored", True, True, False),
        ],
    )
    def test_only_what_ended_and_falls_out_of_the_selector_expires(
        self, scope: Scope, status: str, selected: bool, placed: bool, expires: bool
    ) -> None:
        instance = known(scope, status)
        lifecycle.on_selected(instance, selected=selected, placed=placed, now=at(20))
        assert instance.has_series is (placed or scope is Scope.DISCOVERED)
        assert instance.expires_at == (20 + POLL.forget_after if expires else None)


class TestAnEvent:
    @pytest.mark.parametrize(
        ("kind", "scope", "urgency"),
        [
            ("errored", Scope.CONFIGURED, Urgency.ERRORED),
            ("errored", Scope.COUNTED, Urgency.ERRORED),
            ("paused", Scope.CONFIGURED, Urgency.CONFIGURED),
            ("completed", Scope.COUNTED, Urgency.CHANGED),
            ("terminated", Scope.DISCOVERED, Urgency.CHANGED),
            ("started", Scope.DISCOVERED, Urgency.LIVE),
            ("started", Scope.COUNTED, None),
        ],
    )
    def test_makes_its_instance_due(self, kind: str, scope: Scope, urgency: Urgency | None) -> None:
        instance = new(scope)
        pending = lifecycle.on_event(instance, kind)
        assert (pending and pending.urgency) == urgency
        assert instance.wants_detail == (urgency is not None)

    def test_waits_for_the_pause_of_an_instance_that_fails(self) -> None:
        instance = new()
        instance.last_poll = LastPoll(failure=FAILURE)
        assert lifecycle.on_event(instance, "errored") is None
        assert instance.wants_detail


class Life(RuleBasedStateMachine):
    """Whatever happens to an instance, in whatever order."""

    @initialize(scope=st.sampled_from(Scope))
    def begin(self, scope: Scope) -> None:
        self.scope, self.instance, self.now = scope, new(scope), at(10)

    @rule(seconds=st.floats(0, 400))
    def time_passes(self, seconds: float) -> None:
        self.now = at(self.now.monotonic + seconds)

    def _polls(self) -> PollRequest:
        """The first request of a poll: a detail request only on first sight, where a row changed or
        lists lack it, and where it has not been refreshed."""
        instance, at_ = self.instance, self.now.monotonic
        overdue = at_ - instance.detailed_at >= POLL.detail_refresh
        may = not instance.detailed or instance.wants_detail or (instance.live and overdue)
        request = begun(instance, at_)
        assert request.kind == "simple" or may
        return request

    @rule(status=st.sampled_from(STATUSES), steps=st.integers(0, 3), late=st.booleans())
    def poll(self, status: str, steps: int, late: bool) -> None:
        full, short = detail(status, steps), simple(status, steps)
        if late:  # of an earlier run
            full.queued = short.queued = QUEUED - timedelta(hours=1)
        request, i = self._polls(), self.instance
        if request.kind == "simple":
            assert i.run
            assert i.values
            freshness, lacks = judge(i.run, i.values, short), i.lacks_detail
            lifecycle.on_simple(i, self.now, short)
            # Where it leaves open which of the two is newer, a detail response decides.
            news = freshness in (Freshness.NEWER, Freshness.UNDECIDED)
            assert (i.activity is not None) == (news or lacks)
            if i.activity is None:
                return
            assert i.request.kind == "detail"
        lifecycle.on_detail(i, self.now, full, 100)

    @rule()
    def fail(self) -> None:
        before = self._known()
        self._polls()
        lifecycle.on_failure(self.instance, self.now, FAILURE)
        assert self._known() == before, "a failed request changes nothing that is known"
        assert self.instance.due >= self.now.monotonic + POLL.interval

    def _known(self) -> tuple[object, ...]:
        i = self.instance
        return i.scope, i.run, i.values, i.row, i.detailed, i.expires_at

    @rule()
    def not_found(self) -> None:
        i, before, count = (
            self.instance,
            self.instance.expires_at,
            self.instance.last_poll.not_found,
        )
        self._polls()
        lifecycle.on_not_found(i, now=self.now)
        assert i.expires_at == before or count >= 1, "one response may be out of date"

    @precondition(lambda self: not self.instance.configured)
    @rule(status=st.sampled_from(STATUSES))
    def listed(self, status: str) -> None:
        before, moved = self.instance.expires_at, row(status, self.now.monotonic - 1)
        lifecycle.on_row(self.instance, self.now, moved)
        assert self.instance.expires_at in (None, before)

    @precondition(lambda self: not self.instance.configured)
    @rule()
    def missing_from_lists(self) -> None:
        before = self._known()
        lifecycle.on_missing_from_lists(self.instance)
        lifecycle.cancel(self.instance)
        assert self._known() == before
        assert self.instance.wants_detail or self.instance.has_ended

    @rule(kind=st.sampled_from(KINDS))
    def event(self, kind: str) -> None:
        before = self._known()
        lifecycle.on_event(self.instance, kind)
        lifecycle.cancel(self.instance)
        assert self._known() == before, "an event is only a hint"

    @precondition(lambda self: not self.instance.configured)
    @rule(selected=st.booleans(), room=st.booleans())
    def choose(self, selected: bool, room: bool) -> None:
        i, before = self.instance, self.instance.expires_at
        placed = selected and room and not i.has_series and not i.last_poll.not_found
        lifecycle.on_selected(i, selected=selected, placed=placed, now=self.now)
        if i.expires_at != before and i.expires_at is not None:
            assert (i.run.status if i.run else i.row.status) in ENDED

    @precondition(lambda self: self.instance.scope is Scope.DISCOVERED)
    @rule()
    def give_way(self) -> None:
        before = self.instance.expires_at
        lifecycle.on_series_given_up(self.instance, now=self.now)
        assert self.instance.expires_at == before or not self.instance.live

    @rule()
    def tick(self) -> None:
        due = self.instance.expires_at
        expiry = lifecycle.on_tick(self.instance, self.now, settled=inf)
        assert (expiry is not NOTHING) == (due is not None and due <= self.now.monotonic)
        if expiry.remove:
            self.instance = new(self.scope)

    @invariant()
    def is_in_a_legal_state(self) -> None:
        i = self.instance
        assert i.activity is None, "each poll has ended"
        assert i.configured is (self.scope is Scope.CONFIGURED)
        assert i.failure is None or i.last_poll.not_found == 0
        assert i.values is not None or not i.detailed
        assert i.values is None or i.run is not None
        assert i.has_series or i.timeline is None or i.values is not None


TestLife = pytest.mark.slow(Life.TestCase)


def test_it_alone_writes_an_instance() -> None:
    assert len(Instance.__struct_fields__) <= 20
    writers = set()
    for path in Path(lifecycle.__file__).parents[1].rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.ctx, ast.Store)
                and node.attr in Instance.__struct_fields__
                and ast.unparse(node.value) in ("instance", "control", "known", "i")
            ):
                writers.add(path.name)
    assert writers == {"lifecycle.py"}
