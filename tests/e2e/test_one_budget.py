"""Replicas on PostgreSQL share one budget; the simulator's own sliding window is the judge."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from benchmarks.api_budget import EPOCH
from benchmarks.churn_memory import virtual_clock
from benchmarks.replicas import ages, refused, replica, upstream, with_database
from exporter.state.backend import Location
from simulator import Simulator
from tests.postgres import PostgresServer

pytestmark = [pytest.mark.postgres, pytest.mark.slow(30)]

DAY = 86_400.0
WORKFLOWS, LIVE, REQUESTS = 6, 1000, 300


def test_three_replicas_are_as_fresh_as_one_and_together_keep_to_the_limit(
    postgres: PostgresServer,
) -> None:
    # In less time, chance alone makes a difference of the size that is allowed.
    alone, three = ages(postgres, LIVE, WORKFLOWS, minutes=16, requests=REQUESTS)
    assert three.p50 <= 1.15 * alone.p50
    assert three.p99 <= 1.15 * alone.p99
    assert three.refused == 0


def test_they_keep_to_the_limit_while_they_come_and_go(postgres: PostgresServer) -> None:
    async def main(location: Location) -> Simulator:
        clock = virtual_clock()
        simulator = upstream(LIVE, WORKFLOWS, clock, DAY)
        former = AsyncExitStack()
        await former.enter_async_context(replica("first", simulator, clock, location, REQUESTS))
        for turn in range(3):
            await asyncio.sleep(100)
            running = AsyncExitStack()
            for name in "ab":
                await running.enter_async_context(
                    replica(f"{name}-{turn}", simulator, clock, location, REQUESTS)
                )
            await asyncio.sleep(20)
            await former.aclose()
            former = running
        await former.aclose()
        return simulator

    simulator = with_database(postgres, main)
    assert simulator.requests.total > REQUESTS
    assert refused(simulator, REQUESTS) == 0


def test_a_429_stops_all_of_them(postgres: PostgresServer) -> None:
    async def main(location: Location) -> Simulator:
        clock = virtual_clock()
        simulator = upstream(LIVE, WORKFLOWS, clock, DAY)
        async with AsyncExitStack() as running:
            for name in "abc":
                await running.enter_async_context(
                    replica(name, simulator, clock, location, REQUESTS)
                )
            await asyncio.sleep(100)
            simulator.limit.spend(1200)  # another tool of the user
            await asyncio.sleep(350)
        return simulator

    simulator = with_database(postgres, main)
    sent = [request.time - EPOCH for request in simulator.requests.latest]
    assert not [at for at in sent if 105 < at < 399]
    assert [at for at in sent if at > 420]
    assert simulator.limit.refused < 1200
