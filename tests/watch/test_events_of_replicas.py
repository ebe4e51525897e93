"""Events where replicas share the state: one pulls the queue, and the holder of the workflow polls.

Two exporters in this process, on a real PostgreSQL and a simulated queue.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from exporter.app import App
from exporter.clock import Clock
from exporter.config.settings import Settings
from exporter.metrics import catalogue
from exporter.state.backend import DatabaseServer
from exporter.watch.events import Events
from simulator import (
    QUEUES_EDIT,
    Attempt,
    Error,
    ManualClock,
    Queue,
    Script,
    Simulator,
    Step,
    World,
)
from tests.e2e.scrape import scrape
from tests.postgres import PostgresServer
from tests.waiting import DEADLINE

pytestmark = pytest.mark.postgres

QUEUE = "e5a9a1b1c0de4f0f8a1f5b6c7d8e9f00"
WORKFLOWS = ["billing", "orders", "report"]
"""With the queue, two leases for each of two replicas."""
FAILING = Script((Step("charge", (Attempt(1.0, Error("TypeError", "no")),)),))


class Fleet:
    """Replicas that share a database, turn by turn."""

    def __init__(self, url: str) -> None:
        self.clock = ManualClock()
        self.simulator = Simulator(World(self.clock))
        self.simulator.access.token("secret")
        self.simulator.access.token("queues", permissions=[QUEUES_EDIT])
        self.account = self.simulator.world.account("acc")
        for name in WORKFLOWS:
            self.account.workflow(name)
        self.queue: Queue = self.account.queue(QUEUE, *WORKFLOWS)
        self._url = url

    @asynccontextmanager
    async def replica(self) -> AsyncIterator[App]:
        account: dict[str, Any] = {
            "name": "acc",
            "account_id": "acc",
            "api_token": "secret",
            "events": {"queue_id": QUEUE, "api_token": "queues"},
            "workflows": [{"name": name, "discover": {"min_age": "0s"}} for name in WORKFLOWS],
        }
        api = {
            "url": "https://simulator/client/v4/accounts/{account_id}",
            "requests_per_5m": 100_000,
        }
        settings = Settings.model_validate(
            {"accounts": [account], "state": {"url": self._url}, "api": api}
        )
        app = App(
            settings,
            transport=httpx.ASGITransport(self.simulator),
            clock=Clock(wall=self.clock, monotonic=self.clock),
            state=DatabaseServer(SecretStr(self._url), None, 60.0),
        )
        async with app.opened():
            yield app

    async def turns(self, *replicas: App) -> None:
        """Turns until each holds its share, and has listed what is there."""
        for _ in range(4):
            for app in replicas:
                await app.writer.save()
                await app.accounts[0].workflows.reconcile()
        for app in replicas:
            await app.accounts[0].list_passes()


def events(app: App) -> Events:
    found = app.accounts[0].events
    assert found is not None
    return found


def pulls(app: App) -> bool:
    return app.leases.may_attach(("acc", ""))


def workflows(app: App) -> set[str]:
    return {*app.accounts[0].workflows.attached}


async def step(app: App) -> None:
    """A step of the events' loop, and what it had polled."""
    await events(app).step()
    queue = app.accounts[0].workflows.queue
    while len(queue) or queue.under_way:  # noqa: ASYNC110 - no event tells
        await asyncio.sleep(0.002)
    await events(app).step()


def errored(app: App) -> float:
    runs = scrape(app, catalogue.RUNS_FINISHED.name)
    return sum(value for (_, labels), value in runs.items() if ("status", "errored") in labels)


@pytest.fixture
def fleet(postgres: PostgresServer) -> Fleet:
    return Fleet(postgres.url("postgres", user=postgres.new_user()))


async def test_an_event_reaches_the_holder_of_its_workflow_through_the_database(
    fleet: Fleet,
) -> None:
    async with fleet.replica() as one, fleet.replica() as other:
        await fleet.turns(one, other)
        puller, holder = (one, other) if pulls(one) else (other, one)
        assert not pulls(holder)
        assert workflows(one) | workflows(other) == {*WORKFLOWS}
        assert len(workflows(puller)) == 1
        for name in WORKFLOWS:
            fleet.account.workflow(name).create("a", FAILING)
        fleet.clock.advance(2)
        await step(puller)
        assert (errored(puller), errored(holder)) == (1, 0)
        assert fleet.queue.backlog == 0
        arrived = asyncio.create_task(events(holder).relay.arrived.wait())
        await holder.writer.save()  # its next turn
        await asyncio.wait_for(arrived, DEADLINE)
        await step(holder)
        assert (errored(puller), errored(holder)) == (1, 2)
        await holder.writer.save()
        assert holder.leases.seen.unread == 0
        assert (events(puller).backlog, events(holder).backlog) == (6, None)


async def test_neither_a_dead_puller_nor_a_dead_holder_loses_an_event(fleet: Fleet) -> None:
    async with AsyncExitStack() as dying:
        replicas = [await dying.enter_async_context(fleet.replica()) for _ in range(2)]
        await fleet.turns(*replicas)
        puller, holder = replicas if pulls(replicas[0]) else reversed(replicas)
        for name in WORKFLOWS:
            fleet.account.workflow(name).create("a", FAILING)
        fleet.clock.advance(2)
        await step(puller)
        await holder.writer.save()
        assert holder.leases.seen.unread == 4
        # Both end, the holder before it acts on what it has received.
        assert errored(holder) == 0
        await puller.writer.leave()
        await holder.writer.leave()
        async with fleet.replica() as heir:
            fleet.simulator.requests.clear()
            await step(heir)
            assert errored(heir) == 3
            assert fleet.simulator.requests.by_kind["list"] == 0
            assert fleet.queue.backlog == 0


async def test_a_replica_that_gains_the_lease_pulls(fleet: Fleet) -> None:
    async with fleet.replica() as one:
        assert pulls(one)
        async with fleet.replica() as other:
            await fleet.turns(one, other)
            former, heir = (one, other) if pulls(one) else (other, one)
            await former.writer.leave()
            await fleet.turns(heir)
            assert workflows(heir) == {*WORKFLOWS}
            assert pulls(heir)
            assert not events(former).pulls
