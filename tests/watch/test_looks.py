"""The queue of looks: the most urgent first, and nobody starves."""

import asyncio
from collections.abc import Awaitable, Callable

from benchmarks import virtual
from exporter.clock import Clock
from exporter.cloudflare.budget import Budget
from exporter.watch.looks import Looks, Urgency


def queue(limit: int = 10**6, at_once: int = 1) -> tuple[Looks, Clock]:
    loop = asyncio.get_running_loop()
    clock = Clock(wall=loop.time, monotonic=loop.time)
    return Looks(Budget(limit, clock=clock), at_once=at_once, clock=clock), clock


async def served(looks: Looks, asked: list[tuple[str, Urgency]]) -> list[str]:
    """The order in which looks that were asked for at once are made."""
    order: list[str] = []

    def look(name: str) -> Callable[[], Awaitable[None]]:
        async def make() -> None:
            async with looks.budget.call():
                order.append(name)

        return make

    for number, (name, urgency) in enumerate(asked):
        looks.put(look(name), urgency, due=float(number))
    await asyncio.sleep(60)
    return order


def test_the_most_urgent_first_and_within_one_urgency_in_order() -> None:
    async def main() -> list[str]:
        looks, _ = queue()
        return await served(
            looks,
            [
                ("live", Urgency.LIVE),
                ("changed", Urgency.CHANGED),
                ("errored", Urgency.ERRORED),
                ("errored later", Urgency.ERRORED),
            ],
        )

    assert virtual.run(main()) == ["errored", "errored later", "changed", "live"]


def test_every_fifth_turn_is_for_the_one_that_waits_longest() -> None:
    async def main() -> int:
        looks, _ = queue()
        asked = [("ended", Urgency.ENDED)] + [(f"e{n}", Urgency.ERRORED) for n in range(50)]
        return (await served(looks, asked)).index("ended")

    assert virtual.run(main()) == 4


def test_while_lists_are_read_only_what_can_not_wait_is_looked_at() -> None:
    async def main() -> tuple[list[str], list[str]]:
        looks, _ = queue()
        made: list[str] = []

        def put(name: str, urgency: Urgency) -> None:
            async def make() -> None:
                async with looks.budget.call():
                    made.append(name)

            looks.put(make, urgency, due=0.0)

        with looks.sweeping():
            put("live", Urgency.LIVE)
            put("missed", Urgency.MISSED)
            await asyncio.sleep(10)
            during = list(made)
        await asyncio.sleep(10)
        return during, made

    assert virtual.run(main()) == (["missed"], ["missed", "live"])


def test_sweeps_leave_a_share_of_turns_to_the_rest() -> None:
    async def main() -> int:
        looks, _ = queue()
        made: list[int] = []

        def put(n: int) -> None:
            async def make() -> None:
                async with looks.budget.call():
                    made.append(n)

            looks.put(make, Urgency.LIVE, due=0.0)

        for n in range(100):
            put(n)
        with looks.sweeping():
            looks.swept(pages=200)
            await asyncio.sleep(60)
            return len(made)

    assert virtual.run(main()) == 10


def test_what_is_no_longer_wanted_is_given_up_and_takes_no_turn() -> None:
    async def main() -> tuple[list[str], int]:
        looks, _ = queue()
        made: list[str] = []
        wanted = {"a": True, "b": True, "c": True}

        def put(name: str) -> None:
            async def make() -> None:
                async with looks.budget.call():
                    made.append(name)

            looks.put(make, Urgency.LIVE, due=0.0, wanted=lambda: wanted[name])

        with looks.sweeping():
            for name in wanted:
                put(name)
            wanted["a"] = wanted["c"] = False
            await asyncio.sleep(1)
        await asyncio.sleep(10)
        return made, len(looks)

    assert virtual.run(main()) == (["b"], 0)


def test_no_more_than_so_many_at_once() -> None:
    async def main() -> int:
        looks, _ = queue(at_once=3)
        under_way = most = 0

        async def make() -> None:
            nonlocal under_way, most
            async with looks.budget.call():
                under_way += 1
                most = max(most, under_way)
                await asyncio.sleep(1)
                under_way -= 1

        for _ in range(20):
            looks.put(make, Urgency.LIVE, due=0.0)
        await asyncio.sleep(60)
        return most

    assert virtual.run(main()) == 3


def test_stopping_forgets_what_waits_and_gives_up_what_does_not_end() -> None:
    async def main() -> tuple[int, list[str]]:
        looks, clock = queue()
        ends: list[str] = []

        async def endless() -> None:
            try:
                await asyncio.sleep(10**6)
            finally:
                ends.append("given up")

        looks.put(endless, Urgency.LIVE, due=0.0)
        looks.put(endless, Urgency.LIVE, due=0.0)
        await asyncio.sleep(1)
        started = clock.monotonic()
        await looks.stop(grace=3)
        assert clock.monotonic() - started == 3
        return len(looks), ends

    assert virtual.run(main()) == (0, ["given up"])
