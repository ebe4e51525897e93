"""Prints what replicas on PostgreSQL cost, and how they share the work, beside one on SQLite.

    python -m benchmarks.replicas [--instances 500] [--rounds 10] [--kills 20] [--lease 5s]
        [--live 10000] [--minutes 30] [--watched 5000] [--seconds 60]

PostgreSQL's own server runs on loopback, without waiting for the disk. Printed are:

- the cost of a poll that finds progress, and of a commit of that of `--instances`, with PostgreSQL
  and with a file, in turn;
- takeovers and hand-overs: of two replicas one is ended, `--kills` times by SIGKILL and as often by
  SIGTERM; seconds until the other shows the counts of all workflows, where the default lease is
  30 s and this one `--lease`;
- ages of what is shown, in virtual time, of one exporter and of three replicas with the same
  budget; requests beyond it, by the simulator's own sliding window;
- 12 workflows of `--watched` instances each: memory, scrape time and CPU of one process with all
  and of each of three replicas.
"""

import asyncio
import json
import os
import random
import signal
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, TypeVarTuple

import httpx
import psycopg
from pydantic import SecretStr

from benchmarks import argument_parser, cpu_of, virtual_time
from benchmarks.api_budget import (
    EPOCH,
    HOUR,
    age,
    arrivals,
    exporter,
    quantile,
    rounds,
    scripts,
)
from benchmarks.churn_memory import virtual_clock
from benchmarks.state_cost import Polls
from exporter.app import App
from exporter.clock import Clock
from exporter.logs import configure
from exporter.state.backend import DatabaseServer, Location, Replica
from simulator import ManualClock, Script, Simulator, Wait, World, serve_in_thread, steps
from simulator.rate_limit import RateLimit
from tests.e2e.daemon import Daemon, daemon
from tests.postgres import PostgresServer, postgres_server

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

TIMEOUT = 5.0
"""Seconds that an exchange with the database may take."""
_PATIENCE = 3600.0
"""The same in virtual time, in which an exchange takes none: real seconds mean nothing there."""
SETTLED = 340.0
"""Seconds that ages are not measured: shares settle as the first, uneven window drains. At most two
thirds of all."""
SAMPLED = 5.9
"""Seconds from one sample of ages to the next: no multiple of what else happens."""
REQUESTS = 600
"""In 5 minutes, of all replicas together."""


# Polls and commits


async def polls(instances: int, rounds: int, folder: Path, location: Location) -> None:
    file, database = Polls(instances, folder / "state.db"), Polls(instances, location)
    for kind in (file, database):
        await kind.open()
    for _ in range(rounds):
        for kind in (file, database):
            await kind.round()
    for kind in (file, database):
        await kind.app.writer.close()
    for what, of_file, of_database in (
        ("CPU time of a poll", file.cpu / file.polls, database.cpu / database.polls),
        ("wall time of a poll", file.wall / file.polls, database.wall / database.polls),
        (f"a commit of {instances} polls", file.commits / rounds, database.commits / rounds),
    ):
        print(
            f"{what}: {of_database * 1e6:,.0f} µs with PostgreSQL, {of_file * 1e6:,.0f} µs with a "
            f"file: {of_database / of_file:.2f} times"
        )


# Ages in virtual time


class DatabaseLoop(virtual_time.VirtualLoop):
    """An event loop in virtual time, which the clock of a database follows."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._database = psycopg.connect(url, autocommit=True)
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS virtual_clock (now TIMESTAMPTZ);"
            "INSERT INTO virtual_clock VALUES (to_timestamp(0));"
            "CREATE FUNCTION clock_timestamp() RETURNS TIMESTAMPTZ LANGUAGE sql VOLATILE "
            "AS 'SELECT now FROM virtual_clock'"
        )
        self._now = 0.0

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        if (now := EPOCH + self.time()) != self._now:
            self._database.execute("UPDATE virtual_clock SET now = to_timestamp(%s)", (now,))
            self._now = now
        return super().run_in_executor(executor, func, *args)

    def close(self) -> None:
        self._database.close()
        super().close()


class Ages(NamedTuple):
    """Seconds since the statuses of live instances were confirmed, over time."""

    p50: float
    p99: float
    refused: int
    """Requests beyond those that all replicas together may send in 5 minutes."""


def upstream(live: int, workflows: int, clock: Clock, life: float) -> Simulator:
    """Cloudflare with `live` instances, which take `life` seconds on average."""
    world, chance = World(clock.wall), random.Random(live)
    simulator = Simulator(world)
    simulator.access.token("secret")
    simulator.limit.quota = 1200
    for name in (f"workflow-{n}" for n in range(workflows)):
        workflow = world.account("acc").workflow(name)
        workflow.release(success_retention=HOUR, error_retention=HOUR)
        rate = live / life / workflows
        crowd = scripts(life, chance)
        workflow.arrivals(arrivals(name, rate, EPOCH - 1.8 * life, crowd, chance))
    return simulator


@asynccontextmanager
async def replica(
    name: str, simulator: Simulator, clock: Clock, location: Location, requests: int = REQUESTS
) -> AsyncIterator[App]:
    """A running exporter, which stops cleanly."""
    limits = {"requests_per_5m": requests}
    discover = {"max_instances": 100_000}
    app = exporter(simulator, clock, discover, state=location, api=limits)
    # Without anything random: which workflows it takes depends on its id.
    app.leases.replica = Replica(name, name, "")
    async with app.opened():
        app.watched.start()
        # Not by the scheduler, whose time is the machine's.
        polling = asyncio.create_task(rounds(app))
        yield app
        polling.cancel()
        app.watched.pause()


async def watch(
    live: int,
    workflows: int,
    locations: Sequence[Location],
    *,
    minutes: float,
    life: float,
    requests: int,
) -> Ages:
    """Watches `live` instances for `minutes` with a replica for each location of the state, which
    together may send `requests` in 5 minutes."""
    loop, clock = asyncio.get_running_loop(), virtual_clock()
    simulator = upstream(live, workflows, clock, life)
    found: list[tuple[float, float]] = []
    settled = min(SETTLED, minutes * 40)
    async with AsyncExitStack() as running:
        apps = [
            await running.enter_async_context(
                replica(f"replica-{n}", simulator, clock, location, requests)
            )
            for n, location in enumerate(locations)
        ]
        while loop.time() < minutes * 60:
            await asyncio.sleep(SAMPLED)
            if loop.time() > settled:
                pollers = [poller for app in apps for poller in app.pollers]
                found.append(age(pollers, simulator.world, loop.time()))
    assert not simulator.limit.refused
    return Ages(
        statistics.median(p50 for p50, _ in found),
        statistics.median(p99 for _, p99 in found),
        refused(simulator, requests),
    )


def refused(simulator: Simulator, limit: int) -> int:
    """Requests that the simulator's sliding window refuses with this limit."""
    clock = ManualClock(0.0)
    judge = RateLimit(clock, limit)
    for request in simulator.requests.latest:
        clock.advance(request.time - clock())
        judge.take("")
    return judge.refused


def ages(
    server: PostgresServer,
    live: int,
    workflows: int,
    minutes: float,
    *,
    life: float = 42 * 3600.0,
    requests: int = REQUESTS,
) -> tuple[Ages, Ages]:
    """Of one exporter, and of three replicas."""

    def watched(*locations: Location) -> Coroutine[Any, Any, Ages]:
        return watch(live, workflows, locations, minutes=minutes, life=life, requests=requests)

    return virtual_time.run(watched(None)), with_database(server, lambda at: watched(at, at, at))


def with_database(server: PostgresServer, main: Callable[[Location], Coroutine[Any, Any, T]]) -> T:
    """Runs a coroutine in virtual time with a database that has the same time."""
    # Its own clock_timestamp goes before the server's.
    url = server.url(server.new_database(), query="?options=-csearch_path%3Dpublic,pg_catalog")
    with asyncio.Runner(loop_factory=lambda: DatabaseLoop(url)) as runner:
        return runner.run(main(DatabaseServer(SecretStr(url), None, _PATIENCE)))


# Processes


def configured(folder: Path, api: str, url: str | None, workflows: int, **sections: object) -> None:
    names = [{"name": f"workflow-{n}", "discover": {"min_age": "0s"}} for n in range(workflows)]
    account = {"account_id": "acc", "name": "acc", "api_token": "secret", "workflows": names}
    state = {"url": url} if url else {"path": str(folder / "state.db")}
    tree = {
        "api": {"url": f"{api}/accounts/{{account_id}}", "requests_per_5m": 12_000},
        "accounts": [account],
        "state": state,
        **sections,
    }
    folder.mkdir()
    (folder / "config.yaml").write_text(json.dumps(tree))


@contextmanager
def crowd(workflows: int, instances: int) -> Iterator[str]:
    """The URL of a simulator with instances that wait."""
    simulator = Simulator()
    simulator.access.token("secret")
    script = Script((*steps("fetch", "transform"), Wait("approval", timeout=86_400.0)))
    for n in range(workflows):
        workflow = simulator.world.account("acc").workflow(f"workflow-{n}")
        for number in range(instances):
            workflow.create(f"order-{number:06}", script)
    with serve_in_thread(simulator) as served:
        yield served.url


def counted(metrics: str) -> int:
    """Workflows whose counts are shown."""
    prefix = "cloudflare_workflow_queue_duration_seconds_count{"
    return sum(line.startswith(prefix) for line in metrics.splitlines())


class Replicas:
    """Processes that watch the same workflows."""

    def __init__(self, folder: Path, running: ExitStack, *configuration: Any, **more: Any) -> None:
        folder.mkdir()
        self.live: list[Daemon] = []
        self._folder, self._running, self._number = folder, running, 0
        self._configuration, self._more = configuration, more

    def start(self) -> None:
        self._number += 1
        folder = self._folder / str(self._number)
        configured(folder, *self._configuration, **self._more)
        replica = self._running.enter_context(daemon(folder))
        replica.http.timeout = 60.0
        self.live.append(replica)

    def wait(self, condition: Callable[[Sequence[str]], bool], *, every: float = 0.05) -> None:
        """Until what they show meets it."""
        while not condition([scraped(replica) for replica in self.live]):
            for replica in self.live:
                assert replica.process.poll() is None, replica.stderr()
            time.sleep(every)


def scraped(replica: Daemon) -> str:
    """Its metrics; none if it is late to renew its leases: it then ends the response."""
    try:
        return replica.metrics()
    except httpx.TransportError:
        return ""


def takeovers(
    server: PostgresServer, folder: Path, ended_by: signal.Signals, times: int, lease: str
) -> list[float]:
    """Seconds from each signal until the other replica shows the counts of all workflows."""
    workflows = 6
    url, took = server.new_url(), list[float]()
    with crowd(workflows, 5) as api, ExitStack() as running:
        more = {"poll": {"interval": "1s"}, "replica": {"lease": lease}}
        replicas = Replicas(folder, running, api, url, workflows, **more)
        replicas.start()
        for _ in range(times):
            replicas.start()
            replicas.wait(
                lambda shown: all(counted(one) == workflows // 2 for one in shown), every=0.5
            )
            victim = replicas.live.pop(0)
            victim.process.send_signal(ended_by)
            began = time.monotonic()
            replicas.wait(lambda shown: counted(shown[0]) == workflows)
            took.append(time.monotonic() - began)
    return took


class Load(NamedTuple):
    """Of one process."""

    instances: int
    memory: int
    scrape: float
    """Seconds, the median of several."""
    cpu: float
    """Of one processor, the share."""

    def __str__(self) -> str:
        return (
            f"{self.instances:,} instances: {self.memory / 2**20:.0f} MiB, scrape "
            f"{self.scrape * 1000:.0f} ms, CPU {self.cpu:.1%}"
        )


def loads(
    folder: Path, url: str | None, processes: int, watched: int, seconds: float
) -> list[Load]:
    """Of each of some processes that watch 12 workflows, once all instances are shown."""
    with crowd(12, watched) as api, ExitStack() as running:
        replicas = Replicas(folder, running, api, url, 12)
        for _ in range(processes):
            replicas.start()
        replicas.wait(
            lambda shown: all(
                (counted(one), shown_instances(one)) == (12 // processes, 12 // processes * watched)
                for one in shown
            ),
            every=5,
        )
        began = [cpu_of(replica.process.pid) for replica in replicas.live]
        time.sleep(seconds)
        return [
            load(replica, (cpu_of(replica.process.pid) - before) / seconds)
            for replica, before in zip(replicas.live, began, strict=True)
        ]


def shown_instances(metrics: str) -> int:
    return metrics.count("\ncloudflare_workflow_instance_info{")


def load(replica: Daemon, cpu: float) -> Load:
    statm = Path(f"/proc/{replica.process.pid}/statm").read_text().split()
    took = []
    for _ in range(5):
        began = time.perf_counter()
        metrics = replica.metrics()
        took.append(time.perf_counter() - began)
    memory = int(statm[1]) * os.sysconf("SC_PAGE_SIZE")
    return Load(shown_instances(metrics), memory, statistics.median(took), cpu)


def main() -> None:
    options = argument_parser(__doc__)
    options.add_argument("--instances", type=int, default=500)
    options.add_argument("--rounds", type=int, default=10)
    options.add_argument("--kills", type=int, default=20)
    options.add_argument("--lease", default="5s")
    options.add_argument("--live", type=int, default=10_000)
    options.add_argument("--minutes", type=float, default=30.0, help="of virtual time")
    options.add_argument("--watched", type=int, default=5000)
    options.add_argument("--seconds", type=float, default=60.0, help="for which CPU is measured")
    given = options.parse_args()
    configure("error", "logfmt")
    with tempfile.TemporaryDirectory() as name, postgres_server() as server:
        folder = Path(name)
        location = DatabaseServer(SecretStr(server.new_url()), None, TIMEOUT)
        asyncio.run(polls(given.instances, given.rounds, folder, location))
        for what, ended_by in (("takeover", signal.SIGKILL), ("hand-over", signal.SIGTERM)):
            took = takeovers(server, folder / what, ended_by, given.kills, given.lease)
            print(
                f"{what} after {len(took)} times {ended_by.name}, lease {given.lease}: p50 "
                f"{quantile(took, 0.5):.1f} s, max {max(took):.1f} s"
            )
        for who, found in zip(
            ("one exporter", "three replicas"),
            ages(server, given.live, 12, given.minutes),
            strict=True,
        ):
            print(
                f"{given.live:,} live instances, {who}: age p50 {found.p50:.0f} s, p99 "
                f"{found.p99:.0f} s; {found.refused} requests beyond {REQUESTS} in 5 minutes"
            )
        url = server.new_url()
        for where, processes in ((None, 1), (url, 3)):
            for one in loads(
                folder / f"{processes}", where, processes, given.watched, given.seconds
            ):
                print(f"one of {processes} processes, {one}")


if __name__ == "__main__":
    main()
