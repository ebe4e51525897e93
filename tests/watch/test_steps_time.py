"""`steps_data_timestamp_seconds` is the age of the steps of live instances."""

from simulator import Script, Wait, error, steps
from tests.watching import Watching, watching

NAME = "cloudflare_workflow_steps_data_timestamp_seconds"
STATUSES = "cloudflare_workflow_data_timestamp_seconds"
INTERVAL = 15.0
DISCOVERED = [{"name": "orders", "discover": {}}]
WAITING = Script((Wait("approval"),))


def shown(w: Watching) -> tuple[float | None, float | None]:
    """As of when the steps are known, and the statuses."""
    return w.value(NAME), w.value(STATUSES)


async def test_it_is_the_time_of_the_last_detail_response() -> None:
    async with watching(["a"], poll={"detail_refresh": "1m"}) as w:
        w.orders.create("a", WAITING)
        await w.round(after=INTERVAL)
        known = w.clock()
        for _ in range(3):
            await w.round(after=INTERVAL)
            assert shown(w) == (known, w.clock())
        await w.round(after=INTERVAL)
        assert shown(w) == (w.clock(), w.clock())


async def test_where_steps_were_never_fetched_it_is_when_the_instance_was_created() -> None:
    async with watching(workflows=DISCOVERED) as w:
        created = w.clock()
        w.orders.create("a", WAITING, at=created)
        w.simulator.faults.add(error(500), kind="detail")
        await w.cycle(after=3600)
        assert shown(w) == (created - 0.001, w.clock())


async def test_one_of_few_counts_and_one_of_hundreds_does_not() -> None:
    async with watching(workflows=DISCOVERED) as w:
        w.simulator.faults.add(error(500), kind="detail", instance="old")
        w.orders.create("old", WAITING)
        created = w.clock() - 0.001
        await w.cycle(after=INTERVAL)
        assert shown(w) == (created, w.clock())
        for n in range(99):
            w.orders.create(f"i-{n}", WAITING)
        await w.cycle(after=INTERVAL)
        known = w.clock()
        assert shown(w) == (known, known)


async def test_ended_ones_and_those_without_series_do_not_count() -> None:
    async with watching(workflows=[{"name": "orders", "discover": {"min_age": "1h"}}]) as w:
        w.simulator.faults.add(error(500), kind="detail")
        w.orders.create("young", WAITING)
        w.orders.create("ended", Script(steps("done")))
        await w.cycle(after=INTERVAL)
        assert shown(w) == (w.clock(), w.clock())


async def test_one_that_was_deleted_does_not_count() -> None:
    async with watching(["a", "deleted"], poll={"detail_refresh": "1m"}) as w:
        for name in ("a", "deleted"):
            w.orders.create(name, WAITING)
        await w.round(after=INTERVAL)
        w.orders.instances["deleted"].delete()
        for _ in range(7):
            await w.round(after=INTERVAL)
        known = w.clock()
        await w.round(after=INTERVAL)
        assert w.status("deleted") == "waiting"
        assert known - 60 < (w.value(NAME) or 0)


async def test_it_is_never_later_than_that_of_statuses() -> None:
    async with watching(workflows=DISCOVERED) as w:
        await w.cycle(after=INTERVAL)
        known = w.clock()
        w.simulator.faults.add(error(500), kind="list")
        await w.cycle(after=INTERVAL)
        assert shown(w) == (known, known)
