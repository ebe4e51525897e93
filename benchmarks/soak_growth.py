"""Prints what grows in a day of a real account: memory, files, tasks, series, state.

    python -m benchmarks.soak_growth [--hours 24] [--live 1000] [--life 1800] [--every 60]

The whole exporter runs in virtual time with its state on disk, and is scraped every minute, against
the simulator in the same process, which fails 2% of the requests and, for 5 minutes every 4 hours,
all of them. Measured every `--every` minutes, and printed after the first three hours, when the
first instances have expired (of a shorter run, three measurements before the end), and at the end:
memory, open files, tasks, series, known instances and the size of the state. The slope between is
by least squares over all measurements, as a share of the mean in an hour, with its standard error:
a slope of less than two of them can't be distinguished from none.
"""

import asyncio
import os
import random
import statistics
import tempfile
from pathlib import Path

from benchmarks import argument_parser, virtual_time
from benchmarks.api_budget import EPOCH, HOUR, WORKFLOWS, arrivals, exporter, rounds, scripts
from benchmarks.churn_memory import resident, virtual_clock
from exporter.app import App
from exporter.logs import configure
from exporter.metrics import catalogue
from simulator import Simulator, World, error
from simulator.request_log import RequestLog
from tests.exposed import shown_values

_SETTLED = 180
"""Minutes after which what began in the first hour has expired."""


async def scrapes(app: App) -> None:
    while True:
        app.exposition.render()
        await asyncio.sleep(60)


async def outages(simulator: Simulator) -> None:
    while True:
        await asyncio.sleep(4 * 3600 - 300)
        fault = simulator.faults.add(error(503, 1, "down"))
        await asyncio.sleep(300)
        simulator.faults.remove(fault)


def held(app: App, state: Path) -> dict[str, float]:
    body, _ = app.exposition.render()
    return {
        "memory, MiB": resident() / 2**20,
        "open files": len(os.listdir("/proc/self/fd")),
        "tasks": len(asyncio.all_tasks()),
        "series": sum(not line.startswith(b"#") for line in body.splitlines()),
        "instances": sum(len(p.instances) for p in app.pollers),
        "state, MiB": sum(f.stat().st_size for f in state.parent.iterdir()) / 2**20,
    }


def slope_of(values: list[float]) -> tuple[float, float]:
    """The slope a step by least squares, and its standard error."""
    steps = range(len(values))
    slope, start = statistics.linear_regression(steps, values)
    off = sum((v - start - slope * n) ** 2 for n, v in enumerate(values))
    spread = statistics.pvariance(steps) * len(values)
    return slope, (off / (len(values) - 2) / spread) ** 0.5


async def soak(hours: float, live: int, life: float, every: float, state: Path) -> None:
    clock, chance = virtual_clock(), random.Random(1)
    world = World(clock.wall)
    simulator = Simulator(world)
    simulator.requests = RequestLog(100)
    simulator.access.token("secret")
    simulator.limit.quota = 1200
    simulator.faults.add(error(500, 1, "broken"), probability=0.02)
    for name in WORKFLOWS:
        workflow = world.account("acc").workflow(name)
        workflow.release(success_retention=HOUR, error_retention=HOUR)
        rate = live / life / len(WORKFLOWS)
        crowd = scripts(life, chance)
        workflow.arrivals(arrivals(name, rate, EPOCH - 1.8 * life, crowd, chance))
    discover = {"max_instances": 100_000, "max_age": "30m"}
    app = exporter(simulator, clock, discover, poll={"forget_after": "30m"}, state=state)
    found: list[dict[str, float]] = []
    async with app.opened(), asyncio.TaskGroup() as group:
        work = (app.accounts[0].run(), rounds(app), scrapes(app), outages(simulator))
        jobs = [group.create_task(job) for job in work]
        for _ in range(int(hours * 60 / every)):
            # Not in step with the rounds: what is under way then would be the same each time.
            await asyncio.sleep(60 * every + chance.uniform(-30, 30))
            found.append(held(app, state))
        for job in jobs:
            job.cancel()
    begin = max(0, min(int(_SETTLED / every), len(found) - 2) - 1)
    settled, an_hour = found[begin:], 60 / every
    first, last = (f"hour {n / an_hour:.1f}" for n in (begin + 1, len(found)))
    print(f"{'':>12} {first:>10} {last:>10}  slope an hour ± its error")
    for what in found[0]:
        values = [moment[what] for moment in settled]
        share = an_hour / statistics.fmean(values)
        slope, noise = (share * value for value in slope_of(values))
        print(f"{what:>12} {values[0]:>10,.1f} {values[-1]:>10,.1f}  {slope:+.2%} ± {noise:.2%}")
    counted = sum(shown_values(app, catalogue.RUNS_FINISHED))
    print(f"{counted:,.0f} runs counted, {simulator.limit.refused} requests refused for the limit")


def main() -> None:
    assert __doc__ is not None
    options = argument_parser(__doc__)
    options.add_argument("--hours", type=float, default=24)
    options.add_argument("--live", type=int, default=1000)
    options.add_argument("--life", type=float, default=1800.0, help="mean seconds of a run")
    options.add_argument("--every", type=float, default=60.0, help="minutes")
    given = options.parse_args()
    configure("error", "logfmt")
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state.db"
        virtual_time.run(soak(given.hours, given.live, given.life, given.every, state))


if __name__ == "__main__":
    main()
