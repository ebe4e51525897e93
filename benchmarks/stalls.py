"""Prints for how long one thing holds the exporter's event loop, with 50,000 instances.

    python -m benchmarks.stalls [--instances 50000] [--workflows 5]

The real command against the simulator, in a process of its own, through the first list pass from an
empty state, scrapes, a reload of `metrics`, a full garbage collection, and a restart. For each: how
long it took, and the longest callback of the event loop, by the CPU time of its thread and by the
clock, which includes what other processes and the exporter's own threads took from it. Beside it
the most by which an idle event loop of another process was late meanwhile: what the machine alone
does. After a restart: the CPU time of the process until a gzip scrape shows all instances.
"""

import asyncio
import gc
import gzip
import json
import multiprocessing
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from asyncio.events import Handle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple, TextIO

from benchmarks import argument_parser, cpu_of
from exporter.__main__ import main as command
from exporter.web.server import listen
from simulator import Script, Simulator, Wait, World, serve, steps

COLLECTION = "garbage collection"
_REPORTED = 0.002
"""Seconds of a callback below which it isn't noted."""


class Callback(NamedTuple):
    """One that ended at `at` on the monotonic clock; seconds."""

    at: float
    wall: float
    cpu: float
    what: str


def probed(notes: str, *flags: str) -> None:
    """Runs the command; notes the longer ones of the event loop's callbacks. SIGUSR1 collects."""
    run = Handle._run
    with open(notes, "a", buffering=1) as file:

        def note(act: Callable[[], object], what: Callable[[], object], least: float) -> None:
            wall, cpu = time.monotonic(), time.thread_time()
            act()
            now = time.monotonic()
            if now - wall > least:
                times = now, now - wall, time.thread_time() - cpu
                file.write(f"{json.dumps([*times, repr(what())])}\n")

        def timed(self: Handle) -> None:
            def what() -> object:
                callback = getattr(self, "_callback", None)  # of a task: a step that refers to it
                tasks = [o for o in gc.get_referents(callback) if isinstance(o, asyncio.Task)]
                return [task.get_coro() for task in tasks] or self

            note(lambda: run(self), what, _REPORTED)

        Handle._run = timed  # type: ignore[method-assign]
        signal.signal(signal.SIGUSR1, lambda *_: note(gc.collect, lambda: COLLECTION, 0.0))
        command(flags)


def idle(notes: str) -> None:
    """Notes by how much an event loop that does nothing is late."""

    async def run(file: TextIO) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.001)
            late = (now := time.monotonic()) - before - 0.001
            if late > _REPORTED:
                file.write(f"{json.dumps([now, late, 0.0, 'idle'])}\n")

    with open(notes, "a", buffering=1) as file:
        asyncio.run(run(file))


def upstream(instances: int, workflows: Sequence[str], ready: Connection) -> None:
    """The simulator with live instances that wait for an event."""

    async def run() -> None:
        simulator = Simulator(World(time.time))
        simulator.access.token("secret")
        script = Script((*steps("fetch", "transform", "charge"), Wait("approval", timeout=1e9)))
        for n in range(instances):
            workflow = simulator.world.account("acc").workflow(workflows[n % len(workflows)])
            workflow.create(f"order-{n:08}", script, at=time.time() - 600)
        async with serve(simulator) as served:
            ready.send(served.url)
            await asyncio.Event().wait()

    asyncio.run(run())


@contextmanager
def child(target: Callable[..., None], *given: object) -> Iterator[None]:
    process = multiprocessing.get_context("spawn").Process(target=target, args=given, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()


class Exporter:
    """The command in a process of its own."""

    def __init__(self, folder: Path, url: str, names: Sequence[str]) -> None:
        self.notes, self._config = folder / "exporter", folder / "config.yaml"
        self.notes.touch()
        workflows = [{"name": name, "discover": {"max_instances": 10**6}} for name in names]
        account = {"name": "acc", "account_id": "acc", "api_token": "secret"}
        self._settings = {
            "accounts": [{**account, "workflows": workflows}],
            # Enough for a list pass, and not for a detail request for each.
            "api": {"url": f"{url}/accounts/{{account_id}}", "requests_per_5m": 1200},
            "state": {"path": str(folder / "state.db")},
        }
        with listen("127.0.0.1", 0) as free:
            self._port = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._config.write_text(json.dumps(self._settings))
        flags = [f"--config.file={self._config}", f"--web.listen-address=127.0.0.1:{self._port}"]
        program = "import sys; from benchmarks.stalls import probed; probed(*sys.argv[1:])"
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, str(self.notes), *flags, "--log.level=error"],
            stderr=subprocess.DEVNULL,
        )

    def get(self, path: str, encoding: str = "gzip") -> bytes:
        """The body of a response, as it is sent; empty without one of status 200."""
        url = f"http://127.0.0.1:{self._port}{path}"
        request = urllib.request.Request(url, headers={"Accept-Encoding": encoding})
        try:
            with urllib.request.urlopen(request) as response:
                body: bytes = response.read()
        except OSError:
            return b""
        return body

    def shown(self) -> int:
        """Instances that a gzip scrape shows."""
        body = self.get("/metrics?name[]=cloudflare_workflow_instance_info")
        return gzip.decompress(body).count(b"instance_info{") if body else 0

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def reload(self) -> None:
        """Has `metrics` changed, and waits until scrapes see it."""
        self._settings["metrics"] = {"instance_status": "current"}
        self._config.write_text(json.dumps(self._settings))
        name = "cloudflare_workflow_instance_status"
        self.signal(signal.SIGHUP)
        until(lambda: b" 0\n" not in self.get(f"/metrics?name[]={name}", "identity"))

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait()

    @property
    def cpu(self) -> float:
        """CPU seconds that the process has used."""
        assert self.process is not None
        return cpu_of(self.process.pid)


def until(is_so: Callable[[], bool]) -> None:
    while not is_so():
        time.sleep(0.05)


def longest(notes: Path, since: float, to: float) -> tuple[Callback, Callback, int]:
    """Of the callbacks in a period the longest by CPU time, that by the clock, and how many had
    more than 50 ms of CPU."""
    every = [Callback(*json.loads(line)) for line in notes.read_text().splitlines()]
    every = [c for c in every if since <= c.at <= to] or [Callback(since, 0.0, 0.0, "none")]
    by_cpu, by_wall = max(every, key=lambda c: c.cpu), max(every, key=lambda c: c.wall)
    return by_cpu, by_wall, sum(c.cpu > 0.05 for c in every)


def measure(instances: int, workflows: int, folder: Path) -> None:
    names = [f"workflow-{n}" for n in range(workflows)]
    ours, theirs = multiprocessing.Pipe()
    idle_notes = folder / "idle"
    idle_notes.touch()
    with child(upstream, instances, names, theirs), child(idle, str(idle_notes)):
        exporter = Exporter(folder, ours.recv(), names)

        def phase(name: str, act: Callable[[], None]) -> None:
            began = time.monotonic()
            act()
            now = time.monotonic()
            by_cpu, by_wall, many = longest(exporter.notes, began, now)
            _, late, _ = longest(idle_notes, began, now)
            print(
                f"{name:<16} {now - began:6.1f} s; longest callback {by_cpu.cpu * 1e3:5.0f} ms of "
                f"CPU, {by_wall.wall * 1e3:5.0f} ms by the clock (idle loop late by "
                f"{late.wall * 1e3:.0f} ms); {many} above 50 ms of CPU",
                flush=True,
            )
            if by_cpu.cpu > 0.05:
                print(f"{'':<16} {by_cpu.what}", flush=True)

        def first() -> None:
            exporter.start()
            until(lambda: exporter.shown() >= instances)

        def scrapes() -> None:
            for encoding in ("gzip", "identity") * 3:
                exporter.get("/metrics", encoding)

        def collection() -> None:
            exporter.signal(signal.SIGUSR1)
            until(lambda: COLLECTION in exporter.notes.read_text())

        try:
            phase("first list pass", first)
            phase("scrapes", scrapes)
            phase("a full collection", collection)
            phase("reload", exporter.reload)
            phase("stop", exporter.stop)
            phase("restart", first)
            print(f"restart: {exporter.cpu:.2f} s of CPU until all are shown")
        finally:
            exporter.stop()


def main() -> None:
    assert __doc__ is not None
    options = argument_parser(__doc__)
    options.add_argument("--instances", type=int, default=50_000)
    options.add_argument("--workflows", type=int, default=5)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(given.instances, given.workflows, Path(folder))


if __name__ == "__main__":
    main()
