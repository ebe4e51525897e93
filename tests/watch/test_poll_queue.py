"""The queue for the budget: the most urgent first, in turns with list pages, and none starves."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import virtual_time
from exporter.clock import Clock
from exporter.cloudflare.budget import Budget
from exporter.instances.urgency import Urgency
from exporter.watch.poll_queue import WEIGHTS, PollQueue, Waiting


class Poll(Waiting, frozen=True):
    make: Callable[[], Awaitable[None]]
    still: Callable[[], bool] = lambda: True

    def wanted(self) -> bool:
        return self.still()

    def poll(self) -> Awaitable[None]:
        return self.make()


def queue(limit: int = 10**6, at_once: int = 1) -> tuple[PollQueue, Clock]:
    loop = asyncio.get_running_loop()
    clock = Clock(wall=loop.time, monotonic=loop.time)
    return PollQueue(Budget(limit, clock=clock), at_once=at_once, clock=clock), clock


async def served(queue_: PollQueue, asked: list[tuple[str, Urgency]]) -> list[str]:
    """The order in which polls that were asked for at once are made."""
    order: list[str] = []

    def poll(name: str) -> Callable[[], Awaitable[None]]:
        async def make() -> None:
            async with queue_.budget.request():
                order.append(name)

        return make

    for number, (name, urgency) in enumerate(asked):
        queue_.put(Poll(float(number), poll(name)), urgency)
    await asyncio.sleep(60)
    return order


def test_the_most_urgent_first_and_within_one_urgency_in_order() -> None:
    async def main() -> list[str]:
        queue_, _ = queue()
        return await served(
            queue_,
            [
                ("live", Urgency.LIVE),
                ("changed", Urgency.CHANGED),
                ("errored", Urgency.ERRORED),
                ("errored later", Urgency.ERRORED),
            ],
        )

    assert virtual_time.run(main()) == ["errored", "errored later", "changed", "live"]


def test_within_one_urgency_the_most_overdue_first() -> None:
    """So the workflow that asks first doesn't get all turns, whatever it asks for."""

    async def main() -> list[str]:
        queue_, _ = queue()
        order: list[str] = []

        async def make(name: str) -> None:
            order.append(name)

        for due, name in ((5, "c"), (3, "a"), (9, "d"), (3, "b")):
            queue_.put(Poll(due, partial(make, name)), Urgency.SPARE)
        await asyncio.sleep(60)
        return order

    assert virtual_time.run(main()) == ["a", "b", "c", "d"]


def order_at(budget: int, *asked: dict[Urgency, int]) -> list[Urgency]:
    """The order in which so many polls and pages of each urgency get their turns, which are asked
    for a minute after the ones before."""

    async def main() -> list[Urgency]:
        queue_, _ = queue(budget, at_once=1000)
        order: list[Urgency] = []

        async def request(urgency: Urgency) -> None:
            async with queue_.budget.request():
                order.append(urgency)
                await asyncio.sleep(0.2)

        async def page() -> None:
            await queue_.turn(Urgency.PAGE)
            await request(Urgency.PAGE)

        async with asyncio.TaskGroup() as pages:
            for counts in asked:
                for urgency in Counter(counts).elements():
                    if urgency is Urgency.PAGE:
                        pages.create_task(page())
                    else:
                        queue_.put(Poll(0.0, partial(request, urgency)), urgency)
                await asyncio.sleep(60)
        await asyncio.sleep(86_400)
        assert len(order) == sum(sum(counts.values()) for counts in asked)
        return order

    return virtual_time.run(main())


class TestTurns:
    """At a budget of 60 requests in 5 minutes."""

    @pytest.mark.parametrize("urgency", [Urgency.ERRORED, Urgency.MISSED, Urgency.CONFIGURED])
    def test_an_urgent_poll_does_not_wait_for_a_list_pass(self, urgency: Urgency) -> None:
        order = order_at(60, {Urgency.PAGE: 100, urgency: 1})
        assert order.index(urgency) <= 2

    def test_a_storm_of_errors_leaves_every_fifth_turn_to_list_pages(self) -> None:
        order = order_at(60, {Urgency.ERRORED: 100, Urgency.PAGE: 20})
        assert order[:100].count(Urgency.PAGE) == 20

    def test_configured_instances_and_list_pages_take_turns(self) -> None:
        order = order_at(60, {Urgency.CONFIGURED: 50, Urgency.PAGE: 50})
        assert 24 <= order[:50].count(Urgency.PAGE) <= 26

    def test_what_can_wait_gets_a_fiftieth_of_the_turns_of_list_pages(self) -> None:
        order = order_at(60, {Urgency.LIVE: 50, Urgency.PAGE: 500})
        assert 8 <= order[:500].count(Urgency.LIVE) <= 12

    def test_what_begins_to_wait_while_list_pages_do_makes_up_for_no_turns(self) -> None:
        order = order_at(600, {Urgency.PAGE: 700}, {}, {}, {}, {Urgency.LIVE: 20})
        first = order.index(Urgency.LIVE)
        assert order[first : first + 100].count(Urgency.LIVE) <= 3

    def test_what_can_wait_gets_its_turns_though_more_of_it_comes_all_the_time(self) -> None:
        order = order_at(60, {Urgency.PAGE: 300}, *[{Urgency.LIVE: 1}] * 20)
        assert 4 <= order[:250].count(Urgency.LIVE) <= 6

    def test_without_list_pages_what_can_wait_has_all_turns(self) -> None:
        assert order_at(60, {Urgency.LIVE: 5}) == [Urgency.LIVE] * 5

    @given(
        st.fixed_dictionaries({urgency: st.integers(0, 30) for urgency in Urgency}),
    )
    @settings(deadline=None, max_examples=30)
    def test_none_starves(self, asked: dict[Urgency, int]) -> None:
        """Each of `n` gets its turn within `n` times the weights of all over its own."""
        order = order_at(600, asked)
        total = sum(WEIGHTS.values())
        for urgency, count in asked.items():
            if count:
                last = len(order) - order[::-1].index(urgency)
                assert last <= count * total / WEIGHTS[urgency] + len(Urgency)


def test_polls_that_hang_do_not_hold_up_list_pages() -> None:
    async def main() -> bool:
        queue_, _ = queue(at_once=3)
        for _ in range(10):
            queue_.put(Poll(0.0, partial(asyncio.sleep, 10**6)), Urgency.ERRORED)
        await asyncio.sleep(1)
        async with asyncio.timeout(60):
            await queue_.turn(Urgency.PAGE)
        await asyncio.sleep(1)
        under_way = queue_.under_way
        await queue_.stop(grace=0)
        return under_way == 3

    assert virtual_time.run(main())


def test_a_page_that_nobody_waits_for_any_more_takes_no_turn() -> None:
    async def main() -> int:
        queue_, _ = queue(60)
        queue_.budget.rate_limited(60)
        waiting = asyncio.create_task(queue_.turn(Urgency.PAGE))
        await asyncio.sleep(1)
        waiting.cancel()
        await asyncio.sleep(120)
        return len(queue_)

    assert virtual_time.run(main()) == 0


def test_a_page_continues_when_its_queue_is_replaced() -> None:
    async def main() -> float:
        queue_, clock = queue(60)
        queue_.budget.rate_limited(60)
        waiting = asyncio.create_task(queue_.turn(Urgency.PAGE))
        await asyncio.sleep(1)
        await queue_.stop(grace=3)
        await waiting
        return clock.monotonic()

    assert virtual_time.run(main()) == 1


def test_what_is_no_longer_wanted_is_given_up_and_takes_no_turn() -> None:
    async def main() -> tuple[int, int, list[str]]:
        queue_, _ = queue()
        made: list[str] = []
        wanted = set[str]()

        def put(name: str, urgency: Urgency) -> None:
            async def make() -> None:
                async with queue_.budget.request():
                    made.append(name)

            wanted.add(name)
            queue_.put(Poll(0.0, make, lambda: name in wanted), urgency)

        queue_.budget.rate_limited(60)
        for n in range(20):
            put(f"live {n}", Urgency.LIVE)
        wanted.clear()
        put("live", Urgency.LIVE)
        waiting = len(queue_)
        for n in range(100):
            put(f"page {n}", Urgency.PAGE)
        for n in range(20):
            put(f"changed {n}", Urgency.CHANGED)
        wanted -= {f"changed {n}" for n in range(19)}
        await asyncio.sleep(120)
        return waiting, len(queue_), [name for name in made[:60] if not name.startswith("page")]

    assert virtual_time.run(main()) == (1, 0, ["changed 19", "live"])


def test_what_is_given_up_as_its_turn_comes_is_not_made() -> None:
    async def main() -> list[str]:
        queue_, _ = queue()
        made: list[str] = []

        async def make() -> None:
            made.append("a")

        # Given up right after it was chosen, as by a workflow that is detached then.
        queue_.put(Poll(0.0, make, lambda: not queue_.under_way), Urgency.LIVE)
        await asyncio.sleep(60)
        return made

    assert virtual_time.run(main()) == []


def test_no_more_than_so_many_at_once() -> None:
    async def main() -> int:
        queue_, _ = queue(at_once=3)
        under_way = most = 0

        async def make() -> None:
            nonlocal under_way, most
            async with queue_.budget.request():
                under_way += 1
                most = max(most, under_way)
                await asyncio.sleep(1)
                under_way -= 1

        for _ in range(20):
            queue_.put(Poll(0.0, make), Urgency.LIVE)
        await asyncio.sleep(60)
        return most

    assert virtual_time.run(main()) == 3


def test_progress_was_when_a_poll_ended_or_nothing_waited() -> None:
    """After ten minutes without any, `/-/healthy` fails."""

    async def main() -> list[float]:
        queue_, _ = queue()
        queue_.budget.rate_limited(50)
        progress: list[float] = []
        for pause in (10, 10, 100, 140, 740):
            await asyncio.sleep(pause)
            queue_.put(Poll(0.0, partial(asyncio.sleep, 100)), Urgency.LIVE)
            progress.append(queue_.progress_at)
        return progress

    assert virtual_time.run(main()) == [10, 10, 10, 250, 1000]


def test_lag_is_of_the_most_overdue_poll_that_can_not_wait() -> None:
    async def main() -> list[float]:
        queue_, _ = queue()
        queue_.budget.rate_limited(600)
        await asyncio.sleep(100)
        lags = [queue_.lag]
        for due, urgency in (
            (20.0, Urgency.LIVE),
            (70.0, Urgency.ERRORED),
            (40.0, Urgency.CONFIGURED),
            (90.0, Urgency.MISSED),
        ):
            queue_.put(Poll(due, partial(asyncio.sleep, 0)), urgency)
            lags.append(queue_.lag)
        return lags

    assert virtual_time.run(main()) == [0, 0, 30, 60, 60]


def test_neither_urgent_polls_nor_list_pages_are_details_that_wait() -> None:
    async def main() -> list[bool]:
        queue_, _ = queue()
        queue_.budget.rate_limited(600)
        wait: list[bool] = []
        for urgency in (Urgency.CONFIGURED, Urgency.PAGE, Urgency.CHANGED):
            queue_.put(Poll(0.0, partial(asyncio.sleep, 0)), urgency)
            wait.append(queue_.details_wait)
        return wait

    assert virtual_time.run(main()) == [False, False, True]


def test_stopping_forgets_what_waits_and_gives_up_what_does_not_end() -> None:
    async def main() -> tuple[int, list[str]]:
        queue_, clock = queue()
        ends: list[str] = []

        async def endless() -> None:
            try:
                await asyncio.sleep(10**6)
            finally:
                ends.append("given up")

        queue_.put(Poll(0.0, endless), Urgency.LIVE)
        queue_.put(Poll(0.0, endless), Urgency.LIVE)
        await asyncio.sleep(1)
        started = clock.monotonic()
        await queue_.stop(grace=3)
        assert clock.monotonic() - started == 3
        return len(queue_), ends

    assert virtual_time.run(main()) == (0, ["given up"])
