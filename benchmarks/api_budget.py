"""Prints how fresh metrics are within the rate budget: requests, refused ones, and ages by size.

    python -m benchmarks.api_budget [--live 1000 10000] [--minutes 30] [--interval 15]

The whole exporter runs in virtual time against the simulator, which enforces Cloudflare's limit
(1,200 requests in a sliding window of 5 minutes, then 5 minutes of refusal). Five workflows have
steady churn and half of the limit; each size is measured with and without four times as many
instances that ended in the past 7 days, which is what runs of 42 hours leave behind. Next to it:
how long it would take to poll each instance one by one at the full limit. Ages and lags are those
of every instance, after the first 10 minutes: `step` is the time from showing `errored` to showing
the error's step, `count` the time from the end of a run to its being counted. `steps` is the age of
the last detail response of each live instance at the end, at most the minutes that were measured.
"""

import asyncio
import random
import statistics
import time
from collections.abc import Iterable, Iterator
from typing import Any

import httpx

from benchmarks import argument_parser, virtual_time
from exporter.app import App
from exporter.clock import Clock
from exporter.config.settings import Settings
from exporter.instances.run import Observations
from exporter.instances.values import InstanceValues
from exporter.logs import configure
from exporter.metrics import catalogue
from exporter.metrics.catalogue import WorkflowKey
from exporter.state.backend import Location
from exporter.watch.poller import Poller
from simulator import Attempt, Error, Script, Simulator, Sleep, Step, Wait, World, steps
from tests.exposed import shown_values

WORKFLOWS = ("orders", "billing", "reports", "imports", "mails")
DAY = 86_400.0
HOUR = 3_600_000
START = 600.0
"""Seconds that are not measured: the first list pass, and what follows from it. At most two thirds
of all."""
EPOCH = 1_800_000_000.0


def scripts(mean: float, chance: random.Random, count: int = 400) -> list[Script]:
    """Runs of a shop that take `mean` seconds on average: steps, sleeps, waits; 5% fail."""

    def script() -> Script:
        length = mean * chance.uniform(0.2, 1.8)
        work = steps("fetch", "transform", duration=length * 0.05)
        pause: Any = (
            Sleep("cool-down", length * 0.85)
            if chance.random() < 0.5
            else Wait("approval", timeout=length * 0.85, caught=True)
        )
        if chance.random() < 0.05:
            broken = Step("charge", (Attempt(length * 0.05, Error("TypeError", "no")),))
            return Script((*work, pause, broken), queued=1.0)
        return Script((*work, pause, *steps("store", duration=length * 0.05)), queued=1.0)

    return [script() for _ in range(count)]


def arrivals(
    name: str, rate: float, start: float, scripts_: list[Script], chance: random.Random
) -> Iterator[tuple[float, str, Script]]:
    at, number = start, 0
    while True:
        at += chance.expovariate(rate)
        number += 1
        yield at, f"{name}-{number}", chance.choice(scripts_)


def exporter(
    simulator: Simulator,
    clock: Clock,
    discover: Any,
    *,
    state: Location = None,
    **settings: Any,
) -> App:
    """An exporter that discovers everything, without sockets."""
    account = {
        "name": "acc",
        "account_id": "acc",
        "api_token": "secret",
        "workflows": [{"name": "*", "discover": discover}],
    }
    api = {"url": "https://simulator/client/v4/accounts/{account_id}", **settings.pop("api", {})}
    return App(
        Settings.model_validate({"accounts": [account], "api": api, **settings}),
        clock=clock,
        transport=httpx.ASGITransport(simulator),
        state=state,
    )


class Lags:
    """Seconds by which what the exporter shows and counts of a run follows what happened.

    It stands between the watch and the metrics, in the place of the store's two methods.
    """

    def __init__(self, app: App, world: World, start: float, end: float) -> None:
        self.count: list[float] = []
        self.errored: dict[tuple[str, str], float] = {}
        """Instances shown as errored, by workflow and id: since when (virtual time)."""
        self.step: dict[tuple[str, str], float] = {}
        """Seconds from then until their error was shown."""
        self._start, self._end = start, end
        self._workflows = world.account("acc").workflows
        self._shown, self._counted = app.store.shown, app.store.counted
        app.store.shown, app.store.counted = self.shown, self.counted  # type: ignore[method-assign]

    def shown(
        self, workflow: WorkflowKey, instance_id: str, values: InstanceValues, last_change: float
    ) -> None:
        key, now = (workflow.workflow, instance_id), asyncio.get_running_loop().time()
        if values.status == "errored":
            since = self.errored.setdefault(key, now)
            if values.error_name is not None:
                self.step.setdefault(key, now - since)
        self._shown(workflow, instance_id, values, last_change)

    def counted(self, workflow: WorkflowKey, instance_id: str, observations: Observations) -> None:
        now = asyncio.get_running_loop().time()
        if observations.run is not None and now > self._start:
            run = (
                self._workflows[workflow.workflow]
                .instances[instance_id]
                .run(round((EPOCH + now) * 1000))
            )
            self.count.append(EPOCH + now - (run.queued + run.timeline.end) / 1000)
        self._counted(workflow, instance_id, observations)

    @property
    def steps(self) -> list[float]:
        """Errors that are still without their step are in it, by the time they have waited."""
        errored = [(i, at) for i, at in self.errored.items() if at > self._start]
        return [self.step.get(i, self._end - at) for i, at in errored]

    def report(self) -> str:
        return (
            f"count p50 {quantile(self.count, 0.5):4.0f} s, "
            f"p99 {quantile(self.count, 0.99):4.0f} s; "
            f"step p99 {quantile(self.steps, 0.99):4.0f} s of {len(self.steps)} errors"
        )


def quantile(values: list[float], q: float) -> float:
    return sorted(values)[int(len(values) * q)] if values else 0.0


class Run:
    """One size: an exporter, its upstream, and what is measured of both."""

    def __init__(self, live: int, history: int, life: float) -> None:
        self.chance = random.Random(live)
        self.live, self.history, self.life = live, history, life

    async def measure(
        self, minutes: float, *, other: float = 0.0, requests: int = 600, interval: float = 15.0
    ) -> tuple[App, Simulator, list[tuple[float, float]]]:
        """Watches for `minutes`; what remains, and the ages (p50, p99) every 30 s."""
        loop = asyncio.get_running_loop()

        def wall() -> float:
            return EPOCH + loop.time()

        world = World(wall)
        simulator = Simulator(world)
        simulator.access.token("secret")
        simulator.limit.quota = 1200
        account = world.account("acc")
        rate = self.live / self.life / len(WORKFLOWS)
        for name in WORKFLOWS:
            workflow = account.workflow(name)
            if not self.history:
                workflow.release(success_retention=HOUR, error_retention=HOUR)
            for n in range(self.history // len(WORKFLOWS)):
                at = EPOCH - self.chance.uniform(self.life * 2, 7 * DAY - 2 * self.life)
                workflow.create(f"{name}-old-{n}", Script(steps("done")), at=at)
            crowd = scripts(self.life, self.chance)
            workflow.arrivals(arrivals(name, rate, EPOCH - 1.8 * self.life, crowd, self.chance))
        clock = Clock(wall=wall, monotonic=loop.time)
        app = exporter(
            simulator,
            clock,
            {"max_instances": 100_000},
            api={"requests_per_5m": requests},
            poll={"interval": f"{interval:g}s"},
        )
        spent = time.process_time()
        ages: list[tuple[float, float]] = []
        start, end = min(START, minutes * 40), minutes * 60
        self.lags = Lags(app, world, start, end)
        async with app.opened(), asyncio.TaskGroup() as tasks:
            (watched,) = app.accounts
            begun = scheduled_rounds(app, interval, self.chance)
            jobs = [tasks.create_task(watched.run()), tasks.create_task(begun)]
            if other:
                jobs.append(tasks.create_task(spender(simulator, other, self.chance)))
            while loop.time() < end:
                await asyncio.sleep(30)
                if loop.time() > start:
                    ages.append(age(app.pollers, world, loop.time()))
            for job in jobs:
                job.cancel()
            self.detailed = [
                min(end, loop.time() - instance.detailed_at)
                for poller in app.pollers
                for instance in poller.instances.values()
                if instance.live and instance.has_series
            ]
        self.spent = time.process_time() - spent
        return app, simulator, ages

    def report(
        self,
        app: App,
        simulator: Simulator,
        ages: list[tuple[float, float]],
    ) -> None:
        world, worst = simulator.world, max(p99 for _, p99 in ages)
        kinds = dict(simulator.requests.by_kind)
        counted = sum(shown_values(app, catalogue.RUNS_FINISHED))
        # An end is seen within two list passes, so the last ones are not counted yet.
        really = finished(world, EPOCH, world.clock() - 2 * worst)
        one_by_one = self.live / (1200 / 300) / 60
        print(
            f"{self.live:>6,} live, {self.history:>7,} ended: "
            f"age p50 {statistics.median(p50 for p50, _ in ages):5.0f} s, "
            f"worst p99 {worst:5.0f} s "
            f"(one by one {one_by_one:.0f} min); {self.lags.report()}; "
            f"steps p50 {quantile(self.detailed, 0.5) / 60:.0f} min, "
            f"p99 {quantile(self.detailed, 0.99) / 60:.0f} min; "
            f"refused {simulator.limit.refused}; "
            f"runs counted {counted:,.0f} of {really[0]:,} to {really[1]:,}; requests {kinds}; "
            f"skipped {sum(shown_values(app, catalogue.DETAILS_SKIPPED)):.0f}; "
            f"{self.spent:.0f} s of CPU"
        )


async def rounds(app: App) -> None:
    while True:
        await asyncio.gather(asyncio.sleep(15), *(poller.round() for poller in app.pollers))


async def scheduled_rounds(app: App, interval: float, chance: random.Random) -> None:
    """Rounds over each workflow in a rhythm of its own, as the scheduler begins them."""

    async def repeat(poller: Poller) -> None:
        while True:
            pause = interval * chance.uniform(0.95, 1.05)
            await asyncio.gather(asyncio.sleep(pause), poller.round())

    async with asyncio.TaskGroup() as tasks:
        begun = set[Poller]()
        while True:
            for poller in app.pollers:
                if poller not in begun:
                    begun.add(poller)
                    tasks.create_task(repeat(poller))
            await asyncio.sleep(interval)


async def spender(simulator: Simulator, share: float, chance: random.Random) -> None:
    """Another client of the same user, that spends a share of the quota at random times."""
    while True:
        await asyncio.sleep(chance.expovariate(1200 * share / 300))
        simulator.limit.spend(1)


def finished(world: World, since: float, until: float) -> tuple[int, int]:
    """Runs that ended from `since` to `until` (Unix times), and from `since` to now."""
    now = world.settle()
    early = late = 0
    for workflow in world.account("acc").workflows.values():
        for status in ("complete", "errored", "terminated"):
            for instance in workflow.by_status.get(status, ()):
                run = instance.run(now)
                end = run.queued + run.timeline.end
                if end >= since * 1000:
                    late += 1
                    early += end <= until * 1000
    return early, late


def age(pollers: Iterable[Poller], world: World, now: float) -> tuple[float, float]:
    """Seconds since each live instance's status was last confirmed: median and 99th percentile.

    One that wasn't found yet is as old as its creation.
    """
    world.settle()
    known = {i.id: i.checked_at for poller in pollers for i in poller.instances.values()}
    ages = sorted(
        now - known.get(instance.id, instance.created / 1000 - EPOCH)
        for workflow in world.account("acc").workflows.values()
        for status, instances in workflow.by_status.items()
        if status not in ("complete", "errored", "terminated")
        for instance in instances
    )
    return ages[len(ages) // 2], ages[int(len(ages) * 0.99)]


def main() -> None:
    assert __doc__ is not None
    options = argument_parser(__doc__)
    options.add_argument("--live", type=int, nargs="+", default=[1000, 10_000, 50_000])
    options.add_argument("--minutes", type=float, default=30.0, help="of virtual time")
    options.add_argument("--life", type=float, default=42 * 3600.0, help="mean seconds of a run")
    options.add_argument("--other", type=float, default=0.6, help="another client's share")
    options.add_argument("--interval", type=float, default=15.0, help="poll.interval in seconds")
    given = options.parse_args()
    configure("error", "logfmt")
    for live in given.live:
        for history in (0, 4 * live):
            size = Run(live, history, given.life)
            measured = size.measure(given.minutes, interval=given.interval)
            size.report(*virtual_time.run(measured))
    print(f"with another client of the same user spending {given.other:.0%} of the quota:")
    size = Run(given.live[0], 0, given.life)
    size.report(*virtual_time.run(size.measure(given.minutes, other=given.other)))


if __name__ == "__main__":
    main()
