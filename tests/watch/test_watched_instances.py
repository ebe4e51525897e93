"""Going through the instances of a workflow, while others run."""

import asyncio

from exporter.clock import Clock
from exporter.config.metrics import Metrics
from exporter.config.settings import Poll
from exporter.instances.instance import Scope
from exporter.instances.state_records import WorkflowRecord
from exporter.metrics.catalogue import WorkflowKey
from exporter.metrics.store import Store
from exporter.watch.watched_instances import WatchedInstances


def watching(count: int) -> WatchedInstances:
    watched = WatchedInstances(
        key=WorkflowKey("acc", "orders"),
        owner=("acc", "orders"),
        record=WorkflowRecord(0.0),
        configured_ids=frozenset(),
        selector=None,
        backfill=None,
        poll=Poll(),
        store=Store(Metrics()),
        clock=Clock(),
    )
    for n in range(count):
        watched.begin(f"a{n}", Scope.CONFIGURED, None)
    return watched


async def test_others_run_meanwhile_and_what_they_remove_is_left_out() -> None:
    watched = watching(5000)

    async def change() -> None:
        del watched.instances["a4999"]
        watched.begin("new", Scope.CONFIGURED, None)

    changing = asyncio.create_task(change())
    seen = [instance.id async for instance in watched.each()]
    await changing
    assert seen == [f"a{n}" for n in range(4999)]
