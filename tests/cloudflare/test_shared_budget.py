"""The real budgets of several replicas, which share one limit by the ledger, in virtual time.

The judge is the simulator's own sliding window, which refuses all requests once it is exceeded.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from benchmarks import virtual_time
from exporter.clock import Clock
from exporter.cloudflare.budget import Budget
from exporter.cloudflare.replica_budgets import WINDOW, allot
from simulator.rate_limit import RateLimit

EPOCH = 1_800_000_000.0
USER = "user@example.com"


class Replica:
    """One replica: its budget, its turns, and requests whenever the budget lets it.

    Attributes:
        demand: Requests in 5 minutes; that many it makes at most.
        sent: When it began each of its requests.
        reaches: Whether it reaches the database.
        loses: Whether the results of its turns get lost on their way back.
    """

    def __init__(self, name: str, cluster: "Cluster", demand: float) -> None:
        self.name, self.cluster, self.demand = name, cluster, demand
        self.budget = Budget(cluster.limit, share=0.0, clock=cluster.clock)
        self.sent: list[float] = []
        self.reaches, self.loses = True, False
        self.tasks = [asyncio.create_task(self._take_turns())]
        self.tasks += [asyncio.create_task(self._poll()) for _ in range(5)]

    async def turn(self, *, leaving: bool = False) -> None:
        use = self.budget.use(self.demand)
        cluster = self.cluster
        await asyncio.sleep(cluster.chance.uniform(0, 0.2))
        if not self.reaches:
            return
        cluster.ledger, allotment = allot(
            cluster.ledger, self.name, use, now=cluster.clock.wall(), leaving=leaving
        )
        await asyncio.sleep(cluster.chance.uniform(0, 0.2))
        if not self.loses:
            self.budget.allot(allotment)

    async def _take_turns(self) -> None:
        while True:
            await self.turn()
            await asyncio.sleep(1)

    async def _poll(self) -> None:
        while True:
            if not self.demand:
                await asyncio.sleep(1)
                continue
            async with self.budget.request():
                self.sent.append(asyncio.get_running_loop().time())
                # It reaches Cloudflare at some moment, whatever becomes of the replica.
                takes = self.cluster.chance.uniform(0.1, self.cluster.slowest)
                arrival = asyncio.create_task(self._arrive(self.cluster.chance.uniform(0, takes)))
                self.cluster.arrivals.add(arrival)
                await asyncio.sleep(takes)
                refused = await arrival
                if refused is not None:
                    self.budget.rate_limited(refused)
                else:
                    self.budget.update({})
            if self.demand:
                await asyncio.sleep(5 * WINDOW / self.demand)

    async def _arrive(self, after: float) -> float | None:
        await asyncio.sleep(after)
        return self.cluster.cloudflare.take(USER)

    def kill(self) -> None:
        for task in self.tasks:
            task.cancel()

    async def leave(self) -> None:
        self.budget.stop()
        for task in self.tasks:
            task.cancel()
        await self.turn(leaving=True)


class Cluster:
    """Replicas, their database, and Cloudflare."""

    def __init__(self, limit: int, *, slowest: float = 0.3, seed: int = 0) -> None:
        loop = asyncio.get_running_loop()
        self.clock = Clock(wall=lambda: EPOCH + loop.time(), monotonic=loop.time)
        self.limit, self.slowest, self.chance = limit, slowest, random.Random(seed)
        self.ledger = b""
        self.cloudflare = RateLimit(self.clock.wall, quota=limit)
        self.arrivals: set[asyncio.Task[float | None]] = set()
        self.live: dict[str, Replica] = {}
        self.all: list[Replica] = []

    def start(self, demand: float = 10_000.0) -> Replica:
        replica = Replica(f"replica-{len(self.all)}", self, demand)
        self.live[replica.name] = replica
        self.all.append(replica)
        return replica

    def kill(self, replica: Replica) -> None:
        self.live.pop(replica.name).kill()

    async def leave(self, replica: Replica) -> None:
        await self.live.pop(replica.name).leave()

    async def happens(self, event: str, which: int, demand: float) -> None:
        """Something happens to one of the replicas."""
        replicas = list(self.live.values())
        if event == "start" or not replicas:
            self.start(demand)
            return
        replica = replicas[which % len(replicas)]
        match event:
            case "leave":
                await self.leave(replica)
            case "kill":
                self.kill(replica)
            case "cut off" | "reconnect":
                replica.reaches = event == "reconnect"
            case "lose":
                replica.loses = not replica.loses
            case _:
                replica.demand = demand

    async def end(self) -> None:
        for replica in self.all:
            replica.kill()
        await asyncio.gather(*self.arrivals)


def run(
    story: Callable[[Cluster], Awaitable[None]], limit: int, *, slowest: float = 0.3, seed: int = 0
) -> Cluster:
    """What a story, in virtual time, has made of a cluster."""

    async def main() -> Cluster:
        cluster = Cluster(limit, slowest=slowest, seed=seed)
        await story(cluster)
        await cluster.end()
        return cluster

    return virtual_time.run(main())


def rate(replica: Replica, since: float, until: float) -> float:
    """Requests in 5 minutes."""
    sent = sum(since <= at < until for at in replica.sent)
    return sent * WINDOW / (until - since)


EVENTS = st.lists(
    st.tuples(
        st.floats(0, 400),
        st.sampled_from(["start", "leave", "kill", "cut off", "reconnect", "lose", "demand"]),
        st.integers(0, 5),
        st.sampled_from([0.0, 10.0, 1000.0]),
    ),
    max_size=12,
)


class TestTheLimit:
    @pytest.mark.slow
    @given(
        limit=st.integers(5, 120), slowest=st.floats(0.2, 20), events=EVENTS, seed=st.integers(0, 9)
    )
    @example(
        # A larger share that is hardly used, of one that never learns that it is smaller now.
        limit=100,
        slowest=1.0,
        events=[
            (0, "demand", 0, 10.0),
            (0, "demand", 1, 10.0),
            (300, "lose", 0, 0.0),
            (10, "start", 0, 1000.0),
            (10, "demand", 0, 1000.0),
        ],
        seed=0,
    )
    @settings(
        # Not `shrink`, which takes minutes of virtual time.
        deadline=None,
        max_examples=40,
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
    )
    def test_holds_whatever_becomes_of_replicas(
        self, limit: int, slowest: float, events: list[tuple[float, str, int, float]], seed: int
    ) -> None:
        async def story(cluster: Cluster) -> None:
            for _ in range(2):
                cluster.start()
            for after, event, which, demand in events:
                await asyncio.sleep(after)
                await cluster.happens(event, which, demand)
            await asyncio.sleep(WINDOW)

        assert run(story, limit, slowest=slowest, seed=seed).cloudflare.refused == 0

    @pytest.mark.slow
    def test_is_used_almost_whole(self) -> None:
        async def story(cluster: Cluster) -> None:
            for _ in range(3):
                cluster.start()
            await asyncio.sleep(4 * WINDOW)

        for replica in run(story, 600).all:
            assert rate(replica, WINDOW, 4 * WINDOW) > 0.95 * 200


class TestChanges:
    @pytest.mark.slow
    def test_a_new_one_gets_its_part_as_the_window_drains_and_nobody_pauses(self) -> None:
        async def story(cluster: Cluster) -> None:
            cluster.start()
            await asyncio.sleep(3 * WINDOW)
            cluster.start()
            await asyncio.sleep(2 * WINDOW)

        began = 3 * WINDOW
        first, second = run(story, 600).all
        assert rate(first, began + 10, began + WINDOW) == pytest.approx(300, rel=0.1)
        assert rate(second, began + 10, began + WINDOW) == pytest.approx(300, rel=0.1)
        for replica in (first, second):
            begun = [at for at in replica.sent if at > began + 5]
            assert max(later - earlier for earlier, later in pairwise(begun)) < 4

    @pytest.mark.slow
    def test_unused_budget_goes_to_who_needs_it_within_seconds(self) -> None:
        async def story(cluster: Cluster) -> None:
            cluster.start()
            idle = cluster.start(demand=0)
            await asyncio.sleep(2 * WINDOW)
            idle.demand = 10_000
            await asyncio.sleep(2 * WINDOW)
            idle.demand = 0
            await asyncio.sleep(2 * WINDOW)

        busy, idle = run(story, 600).all
        assert rate(busy, WINDOW, 2 * WINDOW) > 0.9 * 570
        assert rate(idle, 2 * WINDOW + 20, 3 * WINDOW) > 0.9 * 300
        assert rate(busy, 4 * WINDOW + 20, 5 * WINDOW) > 0.9 * 570

    @pytest.mark.slow
    def test_a_rolling_update_leaves_no_minute_without_requests(self) -> None:
        async def story(cluster: Cluster) -> None:
            for _ in range(3):
                cluster.start()
            await asyncio.sleep(2 * WINDOW)
            for former in list(cluster.live.values()):
                cluster.start()
                await asyncio.sleep(20)
                await cluster.leave(former)
            await asyncio.sleep(WINDOW)

        cluster = run(story, 600)
        for minute in range(int(2 * WINDOW), int(3 * WINDOW), 60):
            total = sum(rate(replica, minute, minute + 60) for replica in cluster.all)
            assert total > 0.75 * 600

    def test_without_the_database_each_sends_half_of_its_share_without_a_pause(self) -> None:
        async def story(cluster: Cluster) -> None:
            for _ in range(3):
                cluster.start()
            await asyncio.sleep(2 * WINDOW)
            for replica in cluster.all:
                replica.reaches = False
            await asyncio.sleep(WINDOW)

        for replica in run(story, 600).all:
            assert rate(replica, 2 * WINDOW, 2 * WINDOW + 30) > 0.9 * 200
            assert rate(replica, 2 * WINDOW + 30, 2 * WINDOW + 90) > 0.8 * 100
            assert rate(replica, 2 * WINDOW + 30, 3 * WINDOW) > 0.7 * 100


class TestRefused:
    @pytest.mark.slow
    def test_a_429_stops_all_and_one_probes(self) -> None:
        async def story(cluster: Cluster) -> None:
            for _ in range(3):
                cluster.start()
            await asyncio.sleep(WINDOW)
            cluster.cloudflare.spend(cluster.limit)  # another tool of the user
            await asyncio.sleep(2 * WINDOW)

        cluster = run(story, 600)
        begun = sorted((at, replica.name) for replica in cluster.all for at in replica.sent)
        after = [(at, name) for at, name in begun if at > WINDOW + 5]
        assert cluster.cloudflare.refused < 600 + 10
        assert after[0][0] >= 2 * WINDOW - 1
        assert {name for at, name in after if at < after[0][0] + 14} == {"replica-0"}
        assert {name for at, name in after if at < after[0][0] + 30} == {
            replica.name for replica in cluster.all
        }
