"""What an instance's page says of how its values became known."""

from math import inf
from pathlib import Path

import msgspec
from msgspec.structs import replace

from exporter.instances.instance import PollReason
from exporter.web.page.formatting import dashboard_href
from exporter.web.page.view import STUCK_AFTER, Explanation
from simulator import (
    Attempt,
    Error,
    Hang,
    Script,
    Sleep,
    Step,
    Wait,
    error,
    parallel,
    retried,
    steps,
)
from tests.waiting import until
from tests.watching import Watching, watching

ROOT = Path(__file__).parents[3]
INTERVAL = 15.0
WAITING = Script((Wait("approval"),))
DISCOVER = [{"name": "orders", "discover": {}}]


def explain(w: Watching, instance_id: str = "a") -> Explanation:
    known = w.app.view.explain("acc", "orders", instance_id)
    assert known is not None
    return known


def last_request(w: Watching) -> tuple[str, str] | None:
    """The kind of the last request for the instance, and its reason; None: there was none."""
    request = explain(w).instance.last_poll.request
    return (request.kind, request.reason) if request else None


class TestListed:
    async def test_a_first_poll_then_one_an_interval(self) -> None:
        async with watching(["a"]) as w:
            w.orders.create("a", WAITING)
            assert last_request(w) is None
            await w.round()
            assert last_request(w) == ("detail", PollReason.FIRST)
            await w.round(after=INTERVAL)
            assert last_request(w) == ("simple", PollReason.DUE)
            assert explain(w).row.due == w.clock() + INTERVAL

    async def test_a_change_brings_a_detail_request(self) -> None:
        async with watching(["a"]) as w:
            w.orders.create("a", Script((Sleep("nap", 20), Wait("approval"))))
            await w.round(after=1)
            await w.round(after=60)
            assert last_request(w) == ("detail", PollReason.CHANGED)
            assert explain(w).row.changed == w.clock()

    async def test_a_refresh_shows_retries(self) -> None:
        async with watching(["a"], poll={"detail_refresh": "1m"}) as w:
            w.orders.create("a", Script((retried("pay", failures=50, duration=1, backoff=9),)))
            await w.round(after=2)
            due = explain(w).next_detail
            assert due == w.clock() + 60
            await w.round(after=60)
            assert last_request(w) == ("detail", PollReason.REFRESH)
            values = explain(w).instance.values
            assert values is not None
            assert values.retries == 6

    async def test_a_failure_and_the_poll_after_it(self) -> None:
        async with watching(["a"]) as w:
            w.orders.create("a", WAITING)
            await w.round()
            fault = w.simulator.faults.add(error(403))
            await w.round(after=INTERVAL)
            known = explain(w)
            failure = known.instance.failure
            assert failure is not None
            assert (failure.reason, known.row.attention) == ("unauthorized", "failing")
            assert "permissions" in failure.advice
            w.simulator.faults.remove(fault)
            await w.round(after=INTERVAL)
            assert last_request(w) == ("simple", PollReason.AGAIN)
            assert explain(w).instance.failure is None

    async def test_one_that_does_not_exist(self) -> None:
        async with watching(["a"]) as w:
            assert explain(w).row.status == "not seen"
            await w.round()
            assert explain(w).row.status == "not found"

    async def test_first_sight_is_its_first_change(self) -> None:
        async with watching(["a"]) as w:
            w.orders.create("a", WAITING)
            await w.round()
            assert explain(w).row.changed == w.clock()


class TestDiscovered:
    async def test_its_row_moved(self) -> None:
        async with watching(workflows=DISCOVER) as w:
            w.orders.create("a", Script((*steps("one", duration=20), Wait("approval"))))
            await w.cycle(after=1)
            assert last_request(w) == ("detail", PollReason.FIRST)
            await w.cycle(after=60)
            assert last_request(w) == ("detail", PollReason.ROW)

    async def test_it_is_missing_from_the_lists(self) -> None:
        async with watching(workflows=DISCOVER) as w:
            instance = w.orders.create("a", WAITING)
            await w.cycle(after=1)
            instance.delete()
            await w.cycle(after=60)
            assert last_request(w) == ("detail", PollReason.MISSED)

    async def test_its_next_poll_is_the_next_list_pass(self) -> None:
        async with watching(workflows=DISCOVER) as w:
            w.orders.create("a", WAITING)
            await w.cycle(after=1)
            assert explain(w).row.due == w.clock() + INTERVAL

    async def test_when_its_series_expire(self) -> None:
        async with watching(
            workflows=[{"name": "orders", "discover": {"statuses": ["running", "waiting"]}}]
        ) as w:
            w.orders.create("a", Script(steps("one", duration=20)))
            await w.cycle(after=1)
            assert explain(w).expires_at is None
            await w.cycle(after=60)
            assert explain(w).expires_at == w.clock() + 3600

    async def test_one_that_has_ended_is_polled_if_a_list_pass_shows_a_restart(self) -> None:
        async with watching(
            workflows=[{"name": "orders", "discover": {"statuses": ["complete"]}}]
        ) as w:
            w.orders.create("a", Script(steps("one", duration=20)))
            await w.cycle(after=60)
            assert explain(w).instance.due == inf
            assert explain(w).row.due == w.clock() + INTERVAL


class TestRow:
    async def test_of_several_open_steps_the_one_with_the_most_attempts(self) -> None:
        async with watching(["a"]) as w:
            pay = retried("pay", failures=9, duration=1, backoff=9)
            w.orders.create("a", Script((parallel(Wait("approval"), pay, Sleep("nap", 900)),)))
            await w.round(after=25)
            row = explain(w).row
            assert (row.step, row.more_steps, row.attempts) == ("pay-1", 2, 3)
            assert (row.attention, row.running, row.error) == ("retrying", 25, "")

    async def test_of_an_errored_run_the_step_that_failed(self) -> None:
        async with watching(["a"]) as w:
            declined = Error("Declined", "no money")
            pay = Step("pay", (Attempt(5.0, declined),))
            w.orders.create("a", Script((*steps("load", duration=3), pay), throws=declined))
            await w.round(after=60)
            row = explain(w).row
            assert (row.status, row.error, row.step) == ("errored", "Declined", "pay-1")
            assert (row.more_steps, row.attempts, row.running) == (0, None, 8)

    async def test_of_one_that_was_never_read_that_its_polls_fail(self) -> None:
        async with watching(["a"]) as w:
            assert explain(w).row.attention == ""
            w.simulator.access.revoke("secret")
            await w.round()
            row = explain(w).row
            assert (row.status, row.attention) == ("not seen", "failing")


class TestSteps:
    async def test_names_outcomes_durations_and_attempts(self) -> None:
        async with watching(["a"]) as w:
            pay = retried("pay", failures=2, duration=1, backoff=3)
            w.orders.create("a", Script((*steps("load", duration=4), pay, Wait("approval"))))
            await w.round(after=60)
            timeline = explain(w).timeline
            assert timeline is not None
            shown = [(e.name, e.outcome, e.attempts, e.failures) for e in timeline.entries]
            assert shown == [
                ("load-1", "success", 1, 0),
                ("pay-1", "success", 3, 2),
                ("approval-1", "running", 0, 0),
            ]
            assert timeline.entries[0].seconds == 4

    async def test_none_before_a_detail_response(self) -> None:
        async with watching(workflows=DISCOVER) as w:
            w.orders.create("a", WAITING)
            w.simulator.faults.add(Hang(), kind="detail")
            w.clock.advance(1)
            await w.app.accounts[0].list_passes()
            await until(lambda: w.simulator.requests.in_flight)
            assert explain(w).timeline is None
            assert explain(w).waits == "in progress"
            w.simulator.faults.release()


class TestStuck:
    async def test_as_the_alert_has_it(self) -> None:
        """The same patience by default, and a sleep or wait isn't stuck."""
        parameters = msgspec.yaml.decode((ROOT / "alerts" / "parameters.yaml").read_text())
        assert parameters["stuckAfterSeconds"]["default"] == STUCK_AFTER
        async with watching(["a", "b"]) as w:
            w.orders.create("a", Script(steps("one", duration=10**6)))
            w.orders.create("b", Script((Sleep("nap", 10**6),)))
            await w.round(after=1)
            await w.round(after=STUCK_AFTER)
            assert explain(w).row.attention == ""
            w.clock.advance(1)
            assert explain(w).row.attention == "stuck"
            assert explain(w, "b").row.attention == ""


class TestDashboard:
    async def test_the_instance_in_cloudflares_dashboard(self) -> None:
        async with watching(["a"]) as w:
            assert dashboard_href(explain(w)) == (
                "https://dash.cloudflare.com/acc/workers/workflows/orders/instance/a"
            )

    async def test_an_odd_name_stays_in_its_place(self) -> None:
        async with watching(["a"]) as w:
            known = explain(w)
            odd = known._replace(row=replace(known.row, id="../x?y#z/é"))
            assert dashboard_href(odd).endswith("/orders/instance/..%2Fx%3Fy%23z%2F%C3%A9")
