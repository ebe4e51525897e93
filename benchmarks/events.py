"""Prints how long an error takes to show on /metrics, with and without events.

    python -m benchmarks.events [--live 1000 20000 50000] [--rate 2.5] [--minutes 30]
        [--lost 0.05]

The whole exporter runs in virtual time against the simulator, with 600 requests in 5 minutes. Most
instances are at rest; `--rate` new ones a second run for minutes, and one in ten of these fails,
after an attempt that is retried and announced as `errored`, too. Events take up to a second to
reach the queue, and 5% come twice. For each size it measures the seconds from an error to `errored`
in what a scrape shows, the requests by kind, and how many were refused; for the smallest size also
with a share of the events lost: then the coverage must say so, and nothing may be missed for longer
than a list pass.
"""

import asyncio
import random
from collections.abc import Iterator
from typing import Any

import httpx

from benchmarks import argument_parser, virtual_time
from benchmarks.api_budget import EPOCH, quantile, rounds
from exporter.app import App
from exporter.clock import Clock
from exporter.config.settings import Settings
from exporter.logs import configure
from exporter.metrics import catalogue
from exporter.metrics.series import Changes
from simulator import (
    QUEUES_EDIT,
    Attempt,
    Error,
    Script,
    Simulator,
    Sleep,
    Step,
    World,
    retried,
    steps,
)
from tests.exposed import shown_values

START = 600.0
"""Seconds that are not measured: the first list pass, and what follows from it."""
QUEUE = "e5a9a1b1c0de4f0f8a1f5b6c7d8e9f00"
RESTING = Script((Sleep("rest", 10_000_000.0),))
FAILURE = Error("TypeError", "no")


def script(chance: random.Random) -> Script:
    """A run of some minutes; one in ten fails at the last of two attempts."""
    pause = Sleep("cool-down", chance.uniform(60, 300))
    if chance.random() < 0.1:
        charge = retried("charge", 2, succeeds=False, duration=5, backoff=20, error=FAILURE)
        return Script((*steps("fetch"), pause, charge), queued=1.0)
    return Script((*steps("fetch"), pause, Step("store", (Attempt(2.0),))), queued=1.0)


def arrivals(rate: float, chance: random.Random) -> Iterator[tuple[float, str, Script]]:
    scripts = [script(chance) for _ in range(500)]
    at, number = EPOCH, 0
    while True:
        at += chance.expovariate(rate)
        number += 1
        yield at, f"run-{number}", chance.choice(scripts)


class Delays:
    """Seconds from the end of each errored run until a scrape shows it as errored."""

    def __init__(self, app: App, world: World) -> None:
        self.shown: dict[str, float] = {}
        self._world, self._showing = world, app.exposition.showing
        app.exposition.showing = self.showing  # type: ignore[method-assign]

    def showing(self, changes: Changes) -> Iterator[None]:
        yield from self._showing(changes)
        shown = [each for instances in changes.instances.values() for each in instances.items()]
        for instance_id, samples in shown:
            values: Any = getattr(samples, "values", None)
            if values is not None and values.status == "errored" and values.end is not None:
                self.shown.setdefault(instance_id, self._world.clock() - values.end)

    def of_errors(self, until: float) -> list[float]:
        """Of the runs that ended after the start, in order of their ends; those that aren't shown
        have waited until now."""
        now = self._world.settle()
        found = []
        for instance in self._world.account("acc").workflow("orders").by_status["errored"]:
            run = instance.run(now)
            end = (run.queued + run.timeline.end) / 1000
            if EPOCH + START <= end < until:
                found.append(self.shown.get(instance.id, now / 1000 - end))
        return found


async def measure(live: int, rate: float, minutes: float, *, events: bool, lost: float) -> str:
    """Watches for some seconds; the values as a line."""
    loop = asyncio.get_running_loop()

    def wall() -> float:
        return EPOCH + loop.time()

    chance = random.Random(live)
    world = World(wall)
    simulator = Simulator(world)
    simulator.access.token("secret")
    simulator.access.token("queues", permissions=[QUEUES_EDIT])
    simulator.limit.quota = 1200
    account = world.account("acc")
    orders = account.workflow("orders")
    for number in range(live):
        orders.create(f"resting-{number}", RESTING, at=EPOCH - chance.uniform(3600, 86_400))
    if events:
        account.queue(QUEUE, "orders", delay=(0.0, 1.0), twice=0.05, lost=lost)
    orders.arrivals(arrivals(rate, chance))
    settings: dict[str, Any] = {
        "name": "acc",
        "account_id": "acc",
        "api_token": "secret",
        "events": {"queue_id": QUEUE, "api_token": "queues"} if events else None,
        "workflows": [{"name": "orders", "discover": {"max_instances": 100_000}}],
    }
    app = App(
        Settings.model_validate(
            {
                "accounts": [settings],
                "api": {"url": "https://simulator/client/v4/accounts/{account_id}"},
                "state": {"path": None},
            }
        ),
        clock=Clock(wall=wall, monotonic=loop.time),
        transport=httpx.ASGITransport(simulator),
    )
    delays = Delays(app, world)
    async with app.opened(), asyncio.TaskGroup() as tasks:
        (watched,) = app.accounts
        jobs = [tasks.create_task(watched.run()), tasks.create_task(rounds(app))]
        await asyncio.sleep(minutes * 60)
        for job in jobs:
            job.cancel()
    waited = delays.of_errors(EPOCH + minutes * 60 - 60)
    kinds = ", ".join(f"{kind} {n:,}" for kind, n in sorted(simulator.requests.by_kind.items()))
    text = (
        f"{live:>6,} live, {'with' if events else 'without'} events: errors shown after "
        f"p50 {quantile(waited, 0.5):.1f} s, p99 {quantile(waited, 0.99):.1f} s, "
        f"at most {max(waited, default=0):.0f} s ({len(waited)} of them); "
        f"refused {simulator.limit.refused}; requests: {kinds}; "
        f"runs without steps {sum(shown_values(app, catalogue.DETAILS_SKIPPED)):.0f}"
    )
    if watched.events is not None:
        coverage = watched.events.coverage.ratio(loop.time())
        every = "2 min" if watched.events.trusted else "15 s"
        text += f"; coverage {coverage or 0:.3f}, list passes every {every}"
    return text


def main() -> None:
    assert __doc__ is not None
    options = argument_parser(__doc__)
    options.add_argument("--live", type=int, nargs="+", default=[1000, 20_000, 50_000])
    options.add_argument("--rate", type=float, default=2.5, help="new instances a second")
    options.add_argument("--minutes", type=float, default=30.0, help="of virtual time")
    options.add_argument("--lost", type=float, default=0.05, help="share of the events")
    given = options.parse_args()
    configure("error", "logfmt")
    for live in given.live:
        for events in (False, True):
            run = measure(live, given.rate, given.minutes, events=events, lost=0.0)
            print(virtual_time.run(run), flush=True)
    print(f"with {given.lost:.0%} of the events lost:")
    run = measure(given.live[0], given.rate, given.minutes, events=True, lost=given.lost)
    print(virtual_time.run(run), flush=True)


if __name__ == "__main__":
    main()
