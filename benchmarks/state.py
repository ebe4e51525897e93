"""What durability costs a poll, and how long a restart takes.

    python -m benchmarks.state [--instances 500] [--rounds 10] [--kept 50000]

A poll: a full look that finds progress, upstream called without sockets, with and without a state
file, in turn, in one run; with it, each round ends with its commit. A restart: the real command on
a state file that holds so many instances, until it serves their series; beside it the time until an
empty one serves. The records in that file are those of real looks, written under many ids.
"""

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import httpx

from exporter.app import App
from exporter.clock import Clock
from exporter.config.settings import Settings
from exporter.logs import configure
from exporter.state.sqlite import Batch, Database
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
    """An exporter whose instances have each made a step whenever it looks."""

    def __init__(self, instances: int, state: Path | None) -> None:
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
        self.cpu = self.wall = 0.0
        self.polls = 0

    async def round(self) -> None:
        self.clock.advance(15)
        cpu, wall = time.process_time(), time.perf_counter()
        (poller,) = self.app.pollers
        await poller.round(whole=True)
        if self.app.writer is not None:
            await self.app.writer.save()
        self.cpu += time.process_time() - cpu
        self.wall += time.perf_counter() - wall
        self.polls += len(poller.instances)


async def polls(instances: int, rounds: int, folder: Path) -> None:
    without, kept = Polls(instances, None), Polls(instances, folder / "state.db")
    for _ in range(rounds):
        await without.round()
        await kept.round()
    assert kept.app.writer is not None
    await kept.app.writer.close()
    for name, one, other in (
        ("CPU time", kept.cpu, without.cpu),
        ("wall time", kept.wall, without.wall),
    ):
        print(
            f"{name} a poll: {one / kept.polls * 1e6:.0f} µs with state, "
            f"{other / without.polls * 1e6:.0f} µs without: {one / other:.2f} times"
        )


def state_file(folder: Path, count: int) -> Path:
    """A state file of so many instances."""
    sample, path = folder / "sample.db", folder / "kept.db"

    async def look() -> None:
        few = Polls(100, sample)
        await few.round()
        assert few.app.writer is not None
        await few.app.writer.close()

    asyncio.run(look())
    shutil.copy(sample, path)
    database = Database(path)
    records = [data for _, data in database.instances(OWNER)]
    many = {(OWNER, f"copy-{n:06}"): records[n % len(records)] for n in range(count)}
    database.write(Batch({}, dict(many), {}), now=time.time())
    database.close()
    return path


def restart(folder: Path, state: Path) -> tuple[float, int]:
    """Seconds until the command serves, and the instances it shows then."""
    config = folder / "config.yaml"
    config.write_text(settings([]).model_dump_json(include={"api", "poll"}))
    account = {**ACCOUNT, "workflows": [{"name": "orders", "discover": {"max_instances": 10**6}}]}
    text = json.loads(config.read_text()) | {"accounts": [account], "state": {"path": str(state)}}
    config.write_text(json.dumps(text))
    port = 19_734
    started = time.perf_counter()
    flags = [f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}"]
    with subprocess.Popen(
        [sys.executable, "-m", "exporter", *flags, "--log.level=error"],
        env={**os.environ, "CWE_LOG__FORMAT": "logfmt"},
        stderr=subprocess.DEVNULL,
    ) as process:
        body = b""
        while b"cloudflare_workflow_watched_instances{" not in body:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                    body = answer.read()
            except OSError:
                time.sleep(0.01)
        seconds = time.perf_counter() - started
        process.terminate()
    return seconds, body.count(b"cloudflare_workflow_instance_info{")


def main() -> None:
    assert __doc__ is not None
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--instances", type=int, default=500)
    options.add_argument("--rounds", type=int, default=10)
    options.add_argument("--kept", type=int, default=50_000)
    given = options.parse_args()
    configure("error", "logfmt")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asyncio.run(polls(given.instances, given.rounds, folder))
        path = state_file(folder, given.kept)
        empty, _ = restart(folder, folder / "empty.db")
        seconds, shown = restart(folder, path)
        size = path.stat().st_size / 2**20
        print(
            f"restart: {seconds:.2f} s until {shown:,} instances of a state of {size:.1f} MiB are "
            f"served, {empty:.2f} s with an empty one"
        )


if __name__ == "__main__":
    main()
