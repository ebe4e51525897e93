"""The series that the exporter really emits: a scrape against the simulator."""

from collections import defaultdict

from prometheus_client.parser import text_string_to_metric_families

from exporter.state.backend import Location
from simulator import QUEUES_EDIT, Attempt, Error, Script, Sleep, Step, Wait, retried, steps
from simulator.credentials import PERMISSIONS
from tests.watching import watching

CLOSED = ("le", "status", "outcome", "step_type")
"""Labels whose values the exporter chooses."""

TARGET = {"instance", "job", "pod", "namespace", "cluster", "exported_instance", "exported_job"}
"""Labels that Prometheus adds to those of the exporter."""


async def emitted(
    state: Location,
) -> dict[str, set[tuple[frozenset[str], frozenset[tuple[str, str]]]]]:
    """By a sample's name: its label names, and the closed ones among them with their values."""
    found: dict[str, set[tuple[frozenset[str], frozenset[tuple[str, str]]]]] = defaultdict(set)
    for where, events in ((state, None), (None, {"queue_id": "events", "api_token": "secret"})):
        body = await _scrape(where, events)
        for family in text_string_to_metric_families(body):
            for sample in family.samples:
                closed = frozenset((k, v) for k, v in sample.labels.items() if k in CLOSED)
                found[sample.name].add((frozenset(sample.labels), closed))
    return found


async def _scrape(state: Location, events: dict[str, str] | None) -> str:
    workflows = [{"name": "orders", "discover": {}, "instances": ["old"]}]
    async with watching(workflows=workflows, state=state, events=events) as w:
        w.simulator.access.token("secret", permissions=[*PERMISSIONS, QUEUES_EDIT])
        w.simulator.world.account("acc").queue("events", "orders")
        w.simulator.limit.quota = 1_000_000
        w.orders.release(step_limit=1024, concurrency=100)
        w.orders.create("old", Script(pieces=steps("fetch")), at=w.clock() - 7200)
        w.orders.create("waits", Script(pieces=(*steps("fetch"), Wait("approval"))))
        w.orders.create("sleeps", Script(pieces=(Sleep("nap", 3600),)))
        w.orders.create("hangs", Script(pieces=(Step("call", (Attempt(None),)),)))
        w.orders.create("ends", Script(pieces=steps("fetch", duration=40)))
        retries = retried("charge", failures=1, duration=1, backoff=1)
        for throws in (None, Error("Boom")):
            w.orders.create(f"ends-{throws}", Script(queued=1, pieces=(retries,), throws=throws))
        for _ in range(9):
            await w.cycle(after=15)
            await w.app.writer.turn()
            for account in w.app.accounts:
                if account.events is not None:
                    await account.events.step()
        body, _ = w.app.exposition.render()
    return body.decode()
