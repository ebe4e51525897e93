"""Prints memory and state size over a day of churn, bytes of an instance, and series a day.

    python -m benchmarks.churn_memory [--hours 24] [--a-day 1000000] [--memory 10000 50000]

The whole exporter runs in virtual time, with half of the rate limit, against the simulator in the
same process: a million instances are created and end within 24 hours, with a retention of one hour.
Ended ones have series for half an hour, and those expire half an hour later (by default errored
ones have series for 24 hours, so that the first hours would show their number alone). Printed for
each hour: the process's memory (with the simulator's, which holds an hour of instances), what was
counted, and the size of the state. Both are bounded by what is watched, so a day stands for a year.

Printed before that: bytes of memory of a watched instance, metrics included, above an idle process;
and the series that ten runs a second of 5 seconds (1% of them fail) make a day, from those of an
hour, with the default settings and with others. For these alone, in five minutes:

    python -m benchmarks.churn_memory --hours 0 --memory
"""

import asyncio
import ctypes
import gc
import random
import resource
import tempfile
import time
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from benchmarks import argument_parser, virtual_time
from benchmarks.api_budget import EPOCH, HOUR, WORKFLOWS, arrivals, exporter, rounds, scripts
from exporter.clock import Clock
from exporter.logs import configure
from exporter.metrics import catalogue
from simulator import Attempt, Error, Script, Simulator, Step, Wait, World, steps
from simulator.request_log import RequestLog
from tests.exposed import shown_values

SETTINGS: list[tuple[str, dict[str, str], dict[str, str]]] = [
    ("default settings", {}, {}),
    ("instance_status: current", {}, {"instance_status": "current"}),
    ("min_age: 0s", {"min_age": "0s"}, {}),
    ("min_age: 0s, instance_status: current", {"min_age": "0s"}, {"instance_status": "current"}),
    (
        "min_age: 0s, instance_series: unfinished",
        {"min_age": "0s"},
        {"instance_series": "unfinished"},
    ),
]
"""What the series of a day are shown for: a name, keys of `discover` and of `metrics`."""


def upstream(clock: Clock) -> tuple[World, Simulator]:
    world = World(clock.wall)
    simulator = Simulator(world)
    # By default it holds the last 20,000 requests, which takes three hours to fill.
    simulator.requests = RequestLog(100)
    simulator.access.token("secret")
    return world, simulator


def virtual_clock() -> Clock:
    loop = asyncio.get_running_loop()
    return Clock(wall=lambda: EPOCH + loop.time(), monotonic=loop.time)


def resident() -> int:
    """Bytes of this process in memory, upstream included, once the garbage is out."""
    gc.collect()
    # What was freed goes back to the system as far as it can, so that holes don't count.
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def churn(hours: float, a_day: int, life: float, state: Path) -> None:
    clock = virtual_clock()
    world, simulator = upstream(clock)
    simulator.limit.quota = 1200
    chance = random.Random(1)
    rate = a_day / 86_400 / len(WORKFLOWS)
    for name in WORKFLOWS:
        workflow = world.account("acc").workflow(name)
        workflow.release(success_retention=HOUR, error_retention=HOUR)
        workflow.arrivals(arrivals(name, rate, EPOCH, scripts(life, chance), chance))
    discover = {"max_instances": 100_000, "max_age": "30m"}
    app = exporter(simulator, clock, discover, poll={"forget_after": "30m"}, state=state)
    first = 0
    async with app.opened(), asyncio.TaskGroup() as tasks:
        jobs = [tasks.create_task(app.accounts[0].run()), tasks.create_task(rounds(app))]
        for hour in range(1, ceil(hours) + 1):
            started = time.perf_counter()
            await asyncio.sleep(3600 * min(1, hours + 1 - hour))
            held = resident()
            first = first or held
            print(
                f"hour {hour:>2}: {held / 2**20:6.1f} MiB, {held / first:4.0%} of hour 1's, "
                f"{sum(len(p.instances) for p in app.pollers):>7,} instances known, "
                f"{sum(shown_values(app, catalogue.RUNS_FINISHED)):>9,.0f} runs counted, "
                f"{sum(shown_values(app, catalogue.DETAILS_SKIPPED)):>9,.0f} details skipped, "
                f"state {state.stat().st_size / 2**20:.1f} MiB, "
                f"refused {simulator.limit.refused}, {time.perf_counter() - started:.0f} s",
                flush=True,
            )
        for job in jobs:
            job.cancel()


@dataclass(frozen=True)
class Series:
    """What ten runs of 5 seconds a second make.

    Attributes:
        a_day: Instance series that a scrape every 15 s sees for the first time.
        shown: Instance series at the end.
        runs: Runs counted.
    """

    a_day: float
    shown: int
    runs: float


async def series(minutes: float, discover: dict[str, str], metrics: dict[str, str]) -> Series:
    clock = virtual_clock()
    world, simulator = upstream(clock)
    simulator.limit.quota = 1200
    chance = random.Random(1)
    workflow = world.account("acc").workflow("orders")
    workflow.release(success_retention=HOUR, error_retention=HOUR)
    work = steps("fetch", "store", duration=2.5)
    broken = Step("store", (Attempt(2.5, Error("TypeError", "no")),))
    runs = [Script(work)] * 99 + [Script((work[0], broken))]
    workflow.arrivals(arrivals("orders", 10, EPOCH, runs, chance))
    app = exporter(simulator, clock, discover, metrics=metrics)
    made, now = 0, set[bytes]()
    async with app.opened(), asyncio.TaskGroup() as tasks:
        jobs = [tasks.create_task(app.accounts[0].run()), tasks.create_task(rounds(app))]
        for _ in range(round(minutes * 4)):
            await asyncio.sleep(15)
            lines = app.exposition.render()[0].splitlines()
            before, now = (
                now,
                {line.rpartition(b" ")[0] for line in lines if b"instance_id=" in line},
            )
            made += len(now - before)
        for job in jobs:
            job.cancel()
    counted = sum(shown_values(app, catalogue.RUNS_FINISHED))
    return Series(made / minutes * 1440, len(now), counted)


async def memory(instances: int) -> None:
    clock = virtual_clock()
    world, simulator = upstream(clock)
    for name in WORKFLOWS:
        for n in range(instances // len(WORKFLOWS)):
            script = Script((*steps("fetch", "transform", "charge"), Wait("approval", timeout=1e9)))
            workflow = world.account("acc").workflow(name)
            made = workflow.create(f"{name}-{n:08}", script, at=EPOCH - 60)
            made.status(int(EPOCH * 1000))  # plays the script: its result isn't the exporter's
    api = {"requests_per_5m": 10**9}
    app = exporter(simulator, clock, {"max_instances": 100_000}, api=api)
    base = resident()
    async with app.opened():
        await app.accounts[0].list_passes()
        for poller in app.pollers:
            await poller.round(whole=True)
        await app.writer.save()
        held = resident() - base
        print(
            f"{instances:>7,} instances: {held / instances / 1024:.1f} KiB each, metrics included"
        )


def main() -> None:
    assert __doc__ is not None
    options = argument_parser(__doc__)
    options.add_argument("--hours", type=float, default=24)
    options.add_argument("--a-day", type=int, default=1_000_000)
    options.add_argument("--life", type=float, default=120.0, help="mean seconds of a run")
    options.add_argument("--memory", type=int, nargs="*", default=[10_000, 50_000])
    options.add_argument("--series", type=float, default=60.0, help="minutes; 0: none")
    given = options.parse_args()
    configure("error", "logfmt")
    for name, discover, metrics in SETTINGS if given.series else ():
        made = virtual_time.run(series(given.series, discover, metrics))
        print(
            f"{name:<50} {made.a_day:>9,.0f} series a day, {made.shown:>7,} at the end; "
            f"{made.runs:,.0f} runs counted",
            flush=True,
        )
    for instances in given.memory:
        virtual_time.run(memory(instances))
    if given.hours:
        with tempfile.TemporaryDirectory() as folder:
            state = Path(folder) / "state.db"
            virtual_time.run(churn(given.hours, given.a_day, given.life, state))


if __name__ == "__main__":
    main()
