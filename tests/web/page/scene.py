"""Instances in every condition, watched by an exporter whose pages are served on a socket."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from exporter.web.endpoints import endpoints
from exporter.web.server import Server, address_of, listen
from simulator import Attempt, Error, Script, Sleep, Step, Wait, retried, steps
from tests.watching import Watching, watching

WORKFLOWS = [
    {"name": "orders", "instances": ["order-2001", "order-2002"], "discover": {}},
    {"name": "billing", "discover": {"statuses": ["queued", "running", "errored", "complete"]}},
    {"name": "report-nightly", "discover": {}},
]


def errored(step: str, error: str, *, attempts: int = 3) -> Script:
    """A run that fails at a step, with a message that nobody must see."""
    tries = tuple(Attempt(4.0, Error(error, "card 4111 1111 refused")) for _ in range(attempts))
    first = steps("load", "reserve", duration=6)
    return Script((*first, Step(step, tries)), throws=Error(error, "card 4111 1111 refused"))


def fill(watched: Watching) -> None:
    """Creates the instances of the scene, an hour and a half before it is polled."""
    account = watched.simulator.world.account("acc")
    orders, billing = account.workflow("orders"), account.workflow("billing")
    reports = account.workflow("report-nightly")
    now = watched.clock()
    orders.create("order-1984", errored("charge", "PaymentDeclined"), at=now)
    orders.create("order-1991", errored("ship", "WarehouseTimeout", attempts=5), at=now + 1500)
    stuck = Script((*steps("load", "reserve", duration=3), Step("call-carrier", (Attempt(None),))))
    orders.create("order-1893", stuck, at=now)
    orders.create("order-2001", retrying("charge"), at=now + 4900)
    orders.create("order-2004", retrying("notify"), at=now + 4500)
    nap = Script((*steps("load", "reserve"), Sleep("cool-down", 86_400)))
    wait = Script((*steps("load", duration=2), Wait("approval"), *steps("ship")))
    for number in range(2010, 2022):
        order = orders.create(
            f"order-{number}", nap if number % 3 else wait, at=now + 40 * (number - 2000)
        )
        if number == 2015:
            order.pause(at=now + 4000)
    for number in range(7310, 7324):
        long = Script(steps("draw", "render", "send", duration=300 + 20 * (number - 7310)))
        billing.create(f"invoice-{number}", long, at=now + 4000 + 60 * (number - 7310))
    reports.create("report-2026-11-23", Script(steps("rows", "sum", "mail", duration=2000)), at=now)


def retrying(step: str) -> Script:
    """A run with a step that fails again and again, and continues."""
    return Script((*steps("load", "reserve", duration=5), retried(step, failures=40, backoff=20)))


@contextlib.asynccontextmanager
async def served(watched: Watching) -> AsyncIterator[str]:
    """The exporter's address, while its endpoints are served."""
    app = endpoints(watched.app.exposition, watched.app.view, unhealthy=list, unready=list)
    with listen("127.0.0.1", 0) as listener:
        server = Server(app)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield f"http://{address_of(listener)}/"
        finally:
            server.should_exit = True
            await serving


@contextlib.asynccontextmanager
async def scene() -> AsyncIterator[tuple[Watching, str]]:
    """The exporter after two hours over the scene, and its address."""
    async with watching(workflows=WORKFLOWS) as watched:
        fill(watched)
        for _ in range(18):
            await watched.cycle(after=300)
        await watched.cycle(after=17)
        watched.clock.advance(6)
        async with served(watched) as address:
            yield watched, address
