"""The rate budget: never more requests than allowed, fewer when others need them."""

import asyncio
from collections import deque
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks import virtual_time
from exporter.clock import Clock
from exporter.cloudflare.budget import Budget
from exporter.cloudflare.replica_budgets import WINDOW

EPOCH = 1_800_000_000.0


def budget(limit: int) -> Budget:
    """A budget in virtual time; call it within the loop."""
    loop = asyncio.get_running_loop()
    clock = Clock(wall=lambda: EPOCH + loop.time(), monotonic=loop.time)
    return Budget(limit, clock=clock)


def headers(
    remaining: int, *, quota: int = 1200, window: int = 300, reset: int = 60
) -> dict[str, str]:
    return {
        "ratelimit": f'"default";r={remaining};t={reset}',
        "ratelimit-policy": f'"burst";q={quota};w={window}',
    }


async def requests(spender: Budget, count: int, *, takes: float = 0.2) -> list[float]:
    """Makes requests as fast as the budget lets; when each began."""
    begun: list[float] = []

    async def one() -> None:
        async with spender.request():
            begun.append(asyncio.get_running_loop().time())
            await asyncio.sleep(takes)

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(one())
    return begun


def most_in_a_window(moments: list[float]) -> int:
    """The most moments within any 5 minutes, as Cloudflare counts them."""
    window: deque[float] = deque()
    most = 0
    for moment in moments:
        window.append(moment)
        while window[0] <= moment - WINDOW:
            window.popleft()
        most = max(most, len(window))
    return most


class TestTheWindow:
    @pytest.mark.slow
    @given(st.integers(1, 100), st.floats(0.01, 30))
    @example(400, 0.01)
    @example(400, 30.0)
    @settings(deadline=None)
    def test_never_holds_more_requests_than_allowed(self, limit: int, takes: float) -> None:
        async def main() -> list[float]:
            return await requests(budget(limit), 3 * limit, takes=takes)

        assert most_in_a_window(virtual_time.run(main())) <= limit

    @pytest.mark.slow
    def test_is_used_almost_whole_after_the_start(self) -> None:
        async def main() -> list[float]:
            return await requests(budget(600), 3000)

        begun = [moment for moment in virtual_time.run(main()) if WINDOW < moment <= 4 * WINDOW]
        assert len(begun) / 3 > 0.95 * 600

    def test_requests_are_spread_evenly(self) -> None:
        """A window spent in a burst would leave minutes without news."""

        async def main() -> list[float]:
            return await requests(budget(600), 2000)

        begun = virtual_time.run(main())
        assert max(later - earlier for earlier, later in pairwise(begun)) < 1.0

    def test_a_quarter_of_the_first_one_is_used_at_once(self) -> None:
        """So that most instances are soon known."""

        async def main() -> list[float]:
            return await requests(budget(600), 200)

        assert sum(moment < 0.1 for moment in virtual_time.run(main())) == 151

    def test_a_few_requests_after_a_pause_come_at_once(self) -> None:
        async def main() -> float:
            spender = budget(600)
            await requests(spender, 1)
            await asyncio.sleep(2 * WINDOW)
            started = asyncio.get_running_loop().time()
            return max(await requests(spender, 10)) - started

        assert virtual_time.run(main()) < 0.1


class TestOthers:
    def test_what_other_tools_spend_and_the_reserve_are_left_to_them(self) -> None:
        async def main() -> float:
            spender = budget(600)
            async with spender.request():
                spender.update(headers(remaining=1200 - 1 - 500))
            return spender.allowed

        assert virtual_time.run(main()) == 1200 * 0.8 - 500

    def test_a_few_requests_show_when_they_stop_that_spend_all_but_the_reserve(self) -> None:
        """Only responses show it. Without any, there would be no request ever again."""

        async def main() -> tuple[float, float]:
            large, small = budget(600), budget(20)
            for spender in (large, small):
                async with spender.request():
                    spender.update(headers(remaining=100))
            return large.allowed, small.allowed

        assert virtual_time.run(main()) == (600 / 50, 1)

    def test_our_own_requests_are_not_taken_for_theirs(self) -> None:
        async def main() -> float:
            spender = budget(600)
            for made in range(1, 40):
                async with spender.request():
                    spender.update(headers(remaining=1200 - made))
            return spender.allowed

        assert virtual_time.run(main()) == 600

    def test_a_policy_with_another_window_is_put_in_terms_of_ours(self) -> None:
        async def main() -> tuple[float, int | None]:
            spender = budget(600)
            async with spender.request():
                spender.update(headers(remaining=40 - 1, quota=40, window=60))
            return spender.allowed, spender.quota

        assert virtual_time.run(main()) == (200 * 0.8, 200)

    def test_they_are_remembered_for_two_windows(self) -> None:
        async def main() -> tuple[float, float]:
            spender = budget(600)
            async with spender.request():
                spender.update(headers(remaining=600))
            await asyncio.sleep(2 * WINDOW + 1)
            before = spender.allowed
            async with spender.request():
                spender.update(headers(remaining=1199))
            return before, spender.allowed

        assert virtual_time.run(main()) == (1200 * 0.8 - 599, 600)

    @pytest.mark.parametrize("reset", [70, 0])
    def test_a_quota_that_others_have_used_up_stops_all_requests_until_it_is_reset(
        self, reset: int
    ) -> None:
        async def main() -> float:
            spender = budget(600)
            async with spender.request():
                spender.update(headers(remaining=3, reset=reset))
            return spender.blocked

        assert virtual_time.run(main()) == reset

    @pytest.mark.parametrize("said", [{}, {"ratelimit": "nonsense"}, {"ratelimit": '"x";r=5'}])
    def test_nothing_follows_from_headers_that_say_nothing(self, said: dict[str, str]) -> None:
        async def main() -> tuple[float, int | None]:
            spender = budget(600)
            async with spender.request():
                spender.update(said)
            return spender.allowed, spender.quota

        assert virtual_time.run(main()) == (600, None)


class TestRefused:
    @pytest.mark.parametrize(("retry_after", "wait"), [(None, 300.0), (42.0, 42.0)])
    def test_all_requests_stop_then_one_tries(self, retry_after: float | None, wait: float) -> None:
        async def main() -> list[float]:
            spender = budget(600)
            await asyncio.sleep(1000)
            async with spender.request():
                spender.rate_limited(retry_after)
            begun: list[float] = []

            async def probe() -> None:
                async with spender.request():
                    begun.append(asyncio.get_running_loop().time() - 1000)
                    await asyncio.sleep(5)
                    spender.update({})

            await asyncio.gather(*(probe() for _ in range(3)))
            return begun

        first, second, third = virtual_time.run(main())
        assert first == pytest.approx(wait, abs=0.01)
        assert second == pytest.approx(wait + 5, abs=0.01)
        assert third == pytest.approx(second, abs=1)

    def test_a_second_refusal_stops_them_again(self) -> None:
        async def main() -> float:
            spender = budget(600)
            for _ in range(2):
                async with spender.request():
                    spender.rate_limited(10.0)
            return spender.blocked

        assert virtual_time.run(main()) == pytest.approx(10.0, abs=0.01)


def test_polls_give_way_to_requests_that_wait() -> None:
    """`ready` returns only when nobody waits in `request`: lists go before polls, also those that
    come later."""

    async def main() -> list[str]:
        spender = budget(8)
        order: list[str] = []

        async def listing() -> None:
            async with spender.request():
                order.append("list")

        async def looking() -> None:
            await spender.ready()
            order.append("poll")

        while not spender.wait():
            async with spender.request():
                pass
        poll = asyncio.create_task(looking())
        await asyncio.sleep(1)
        await asyncio.gather(poll, *(listing() for _ in range(4)))
        return order

    assert virtual_time.run(main()) == ["list"] * 4 + ["poll"]


async def test_a_request_that_ended_a_window_ago_is_no_longer_in_use() -> None:
    """Also where the moment rounds to just within the window."""
    now = [1e-20]
    spender = Budget(600, clock=Clock(wall=lambda: now[0], monotonic=lambda: now[0]))
    async with spender.request():
        pass
    assert sum(spender.use(0.0).spent) == 1
    now[0] = WINDOW
    assert sum(spender.use(0.0).spent) == 0
