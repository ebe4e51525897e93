"""What watching costs, counted at the socket: a running exporter with its scheduler, in real time.

What is fetched when, with a clock in hand, is in tests/watch/test_poller.py.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from exporter.app import App
from exporter.config.settings import Settings
from exporter.web.server import listen
from simulator import Hang, Script, Simulator, Wait, serve, steps
from tests.waiting import until

pytestmark = pytest.mark.slow

INSTANCES = [f"order-{n}" for n in range(5)]


def simulated(*workflows: str) -> Simulator:
    """Five instances in each workflow, at rest."""
    simulator = Simulator()
    simulator.access.token("secret")
    for workflow in workflows:
        for name in INSTANCES:
            simulator.world.account("acc").workflow(workflow).create(
                name, Script((*steps("pay", duration=0), Wait("approval")))
            )
    return simulator


@asynccontextmanager
async def running(simulator: Simulator, interval: str = "300ms") -> AsyncIterator[App]:
    """An exporter that watches all instances, and has polled each once or more."""
    async with serve(simulator) as served:
        settings = Settings(
            api={"url": served.url + "/accounts/{account_id}", "requests_per_5m": 1_000_000},
            accounts=[
                {
                    "name": "acc",
                    "account_id": "acc",
                    "api_token": "secret",
                    "workflows": [
                        {"name": name, "instances": INSTANCES}
                        for name in simulator.world.account("acc").workflows
                    ],
                }
            ],
            poll={"interval": interval, "detail_refresh": "1h"},
        )
        app, stop = App(settings), asyncio.Event()
        with listen("127.0.0.1", 0) as listener:
            task = asyncio.create_task(app.run(listener, stop))
            await until(lambda: not app.health.unready())
            yield app
            stop.set()
            simulator.faults.clear()
            await task


def polls(simulator: Simulator, instance: str, workflow: str = "orders") -> int:
    return len(simulator.requests.of("simple", instance, workflow))


async def test_an_instance_at_rest_costs_one_simple_request_a_round_and_one_detail_request() -> (
    None
):
    for interval in ("300ms", "1s", "4s"):  # on a busy machine polls outlast short rounds
        simulator, began = simulated("orders"), time.monotonic()
        async with running(simulator, interval):
            await until(lambda: all(polls(simulator, name) >= 5 for name in INSTANCES))  # noqa: B023
        counts = [polls(simulator, name) for name in INSTANCES]
        if max(counts) - min(counts) <= 1:
            break
    lists = 1 + (time.monotonic() - began) // 30
    assert simulator.requests.by_kind["detail"] == len(INSTANCES)
    assert max(counts) - min(counts) <= 1, "the exporter stopped in mid-round at most"
    assert simulator.requests.by_kind["simple"] == sum(counts)
    # Beside the polls: how many instances there are of which workflow, and their limits.
    assert 1 <= simulator.requests.by_kind["workflows"] <= lists
    assert simulator.requests.by_kind["versions"] == 1
    others = simulator.requests.by_kind["workflows"] + 1
    assert simulator.requests.total == len(INSTANCES) + sum(counts) + others
    assert simulator.requests.most_in_flight_of_one == 1


async def test_one_that_hangs_holds_up_nobody_and_is_never_polled_twice_at_once() -> None:
    simulator = simulated("orders")
    async with running(simulator) as app:
        simulator.faults.add(Hang(), instance="order-3")
        await until(lambda: simulator.requests.in_flight)
        simulator.requests.clear()
        await until(lambda: min(polls(simulator, n) for n in INSTANCES if n != "order-3") >= 4)
        assert polls(simulator, "order-3") <= 1
        assert app.health.unhealthy() == []
    assert simulator.requests.most_in_flight_of_one == 1


async def test_a_workflow_that_hangs_has_one_round_outstanding_and_the_other_continues() -> None:
    simulator = simulated("orders", "billing")
    async with running(simulator):
        simulator.faults.add(Hang(), workflow="billing")
        await until(lambda: simulator.requests.in_flight.total() >= len(INSTANCES))
        simulator.requests.clear()
        await until(lambda: min(polls(simulator, name) for name in INSTANCES) >= 4)
        assert sum(polls(simulator, name, "billing") for name in INSTANCES) <= len(INSTANCES)
    assert simulator.requests.most_in_flight_of_one == 1


async def test_a_workflow_that_hung_is_polled_again_once_it_responds() -> None:
    simulator = simulated("orders")
    async with running(simulator) as app:
        simulator.faults.add(Hang())
        await until(lambda: simulator.requests.in_flight.total() == len(INSTANCES))
        simulator.faults.clear()
        simulator.requests.clear()
        await until(lambda: min(polls(simulator, name) for name in INSTANCES) >= 2)
        assert all(poller.up for poller in app.pollers)
