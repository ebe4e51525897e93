"""Prints what a poll costs with the state on disk, and how long a restart takes.

    python -m benchmarks.state_cost [--instances 500] [--rounds 10] [--restored 50000]

A poll: a detail request that finds progress, without sockets, with the state in a file and in
memory, in turn, in one run; each round ends with its commit. A restart: the real command on a state
file of this many instances, until `/metrics` responds and until it shows all of them, and the CPU
time until then; next to it the time with an empty state. The records in that file are those of real
polls, written under many ids.
"""

import asyncio
import gzip
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple

import httpx

from benchmarks import argument_parser, cpu_of
from exporter.app import App
from exporter.clock import Clock
from exporter.config.settings import Settings
from exporter.logs import configure
from exporter.state.backend import Batch, Location, RecordKey, StoredRow
from exporter.state.sqlite import Sqlite
from simulator import ManualClock, Script, Simulator, Wait, World, steps

ACCOUNT = {"name": "acc", "account_id": "acc", "api_token": "secret"}
OWNER = ("acc", "orders")


def settings(ids: list[str], **sections: object) -> Settings:
    workflows = [{"name": "orders", "instances": ids, "discover": {"max_instances": 10**6}}]
    api = {"url": "http://127.0.0.1:1/client/v4/accounts/{account_id}", "requests_per_5m": 10**9}
    return Settings.model_validate(
        {"accounts": [{**ACCOUNT, "workflows": workflows}], "api": api, **sections}
    )


class Polls:
    """An exporter whose instances have each made a step at each poll."""

    def __init__(self, instances: int, state: Location) -> None:
        self.clock = ManualClock()
        simulator = Simulator(World(self.clock))
        simulator.access.token("secret")
        orders = simulator.world.account("acc").workflow("orders")
        ids = [f"order-{n:06}" for n in range(instances)]
        script = Script((*steps(*(f"step {n % 20}" for n in range(500)), duration=10), Wait("end")))
        for instance_id in ids:
            orders.create(instance_id, script)
        self.app = App(
            settings(ids),
            clock=Clock(wall=self.clock, monotonic=self.clock),
            transport=httpx.ASGITransport(simulator),
            state=state,
        )
        self.settings, self.state = settings(ids), state
        self.cpu = self.wall = self.commits = 0.0
        self.polls = 0

    async def open(self) -> None:
        """Without the loop that saves: each round ends with its commit."""
        await self.app.writer.open(self.state)
        await self.app.watched.apply(self.settings)

    async def round(self) -> None:
        self.clock.advance(15)
        cpu, wall = time.process_time(), time.perf_counter()
        (poller,) = self.app.pollers
        await poller.round(whole=True)
        polled = time.perf_counter()
        await self.app.writer.save()
        self.commits += time.perf_counter() - polled
        self.cpu += time.process_time() - cpu
        self.wall += time.perf_counter() - wall
        self.polls += len(poller.instances)


async def polls(instances: int, rounds: int, folder: Path) -> None:
    memory, file = Polls(instances, None), Polls(instances, folder / "state.db")
    await memory.open()
    await file.open()
    for _ in range(rounds):
        await memory.round()
        await file.round()
    await file.app.writer.close()
    for name, one, other in (
        ("CPU time", file.cpu, memory.cpu),
        ("wall time", file.wall, memory.wall),
    ):
        print(
            f"{name} a poll: {one / file.polls * 1e6:.0f} µs with a file, "
            f"{other / memory.polls * 1e6:.0f} µs in memory: {one / other:.2f} times"
        )


def state_file(folder: Path, count: int) -> Path:
    """A state file of `count` instances."""
    sample, path = folder / "sample.db", folder / "file.db"

    async def poll() -> None:
        few = Polls(100, sample)
        await few.open()
        await few.round()
        await few.app.writer.close()

    asyncio.run(poll())
    shutil.copy(sample, path)
    database = Sqlite(path)
    records = [data for _, data in database.watched(OWNER, "", count)]
    many: dict[RecordKey, StoredRow] = {
        ("instances", OWNER, f"copy-{n:06}"): StoredRow(records[n % len(records)])
        for n in range(count)
    }
    database.write(Batch(many), now=time.time())
    database.close()
    return path


class Restart(NamedTuple):
    """A start of the command; seconds since then."""

    responded: float
    """Until `/metrics` responded."""
    restored: float
    """Until it showed all instances."""
    cpu: float
    """CPU time until then."""


def restart(folder: Path, state: Path, instances: int) -> Restart:
    """Starts the command on a state file of `instances`, and scrapes until all are shown."""
    config = folder / "config.yaml"
    config.write_text(settings([]).model_dump_json(include={"api", "poll"}))
    account = {**ACCOUNT, "workflows": [{"name": "orders", "discover": {"max_instances": 10**6}}]}
    text = json.loads(config.read_text()) | {"accounts": [account], "state": {"path": str(state)}}
    text["api"]["requests_per_5m"] = 600  # the default: polls are refused at once here
    config.write_text(json.dumps(text))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # One family: a whole scrape takes a tenth of a second, and none comes that often.
    url = f"http://127.0.0.1:{port}/metrics?name[]=cloudflare_workflow_instance_info"
    request = urllib.request.Request(url, headers={"Accept-Encoding": "gzip"})
    responded = 0.0
    began = time.perf_counter()
    flags = [f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}"]
    with subprocess.Popen(
        [sys.executable, "-m", "exporter", *flags, "--log.level=error"],
        env={**os.environ, "CWE_LOG__FORMAT": "logfmt"},
        stderr=subprocess.DEVNULL,
    ) as process:
        while True:
            try:
                with urllib.request.urlopen(request) as response:
                    body = gzip.decompress(response.read())
            except OSError:
                time.sleep(0.01)
                continue
            now = time.perf_counter()
            responded = responded or now - began
            if body.count(b"cloudflare_workflow_instance_info{") >= instances:
                break
            time.sleep(0.1)
        used = cpu_of(process.pid)
        process.terminate()
    return Restart(responded, now - began, used)


def main() -> None:
    assert __doc__ is not None
    options = argument_parser(__doc__)
    options.add_argument("--instances", type=int, default=500)
    options.add_argument("--rounds", type=int, default=10)
    options.add_argument("--restored", type=int, default=50_000)
    given = options.parse_args()
    configure("error", "logfmt")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asyncio.run(polls(given.instances, given.rounds, folder))
        path = state_file(folder, given.restored)
        empty = restart(folder, folder / "empty.db", 0)
        size = path.stat().st_size / 2**20
        full = restart(folder, path, given.restored)
        print(
            f"restart with {given.restored:,} instances in {size:.1f} MiB: /metrics responds "
            f"after {full.responded:.2f} s ({empty.responded:.2f} s with an empty state), shows "
            f"all after {full.restored:.2f} s, {full.cpu:.2f} s of CPU"
        )


if __name__ == "__main__":
    main()
