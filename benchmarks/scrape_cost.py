"""Prints the time of a scrape, next to prometheus_client, client_golang, and uvicorn sending bytes.

    python -m benchmarks.scrape_cost [--instances 1000 10000 50000] [--repeat 10]

Each server is a child process; a client reads `/metrics` from a socket, plain and gzip, from each
in turn: with nothing changed since the last scrape, and with 1% of the instances, picked at random,
one step further. Wall time is the client's, CPU time the server's; ratios are of medians of this
run. client_golang and bytes from memory, which uvicorn sends, make no difference between changed
and unchanged. Then: CPU time of an update, memory, and what instances add to it. Scrapes don't
include rendering what changed: that is done before.

With Go (Debian: golang-go golang-github-prometheus-client-golang-dev) `scrape_cost.go` is compared
too.
"""

import gzip
import json
import multiprocessing
import os
import random
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import uvicorn
from prometheus_client import CollectorRegistry, Gauge, make_wsgi_app
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from benchmarks import argument_parser
from benchmarks.churn_memory import resident
from exporter.clock import Clock
from exporter.cloudflare.models import Attempt, Detail, Step, Trigger
from exporter.config.metrics import Metrics, Names
from exporter.instances.run import Run, Tracked
from exporter.instances.run_tracker import track
from exporter.metrics.catalogue import WorkflowKey
from exporter.metrics.exposition import Exposition
from exporter.metrics.instance_samples import InstanceSamples, Sample
from exporter.metrics.labels import InstanceLabels, LimitedLabel, StepLabel
from exporter.metrics.store import Store
from exporter.web.endpoints import endpoints
from exporter.web.page.view import WatchView
from tests.exposed import show_at_once

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
WORKFLOWS = [
    WorkflowKey("production", name) for name in ("orders", "billing", "reports", "imports", "mails")
]
STEPS = ("fetch", "transform", "charge", "store", "notify")
_LABELS = InstanceLabels(StepLabel(Names()), LimitedLabel(Names()), LimitedLabel(Names()))


class World:
    """Instances, each with some steps behind it and one open, and how they move on."""

    def __init__(self, size: int, epoch: datetime = EPOCH, every: float = 1.0) -> None:
        """From `epoch` on an instance starts every `every` seconds."""
        self.epoch, self.every = epoch, every
        self.chance = random.Random(size)
        self.done = [self.chance.randrange(1, 4) for _ in range(size)]
        self.ids = [f"{self.chance.getrandbits(64):016x}" for _ in range(size)]
        self.runs: list[Run | None] = [None] * size

    def tracked(self, index: int) -> tuple[WorkflowKey, str, Tracked, float]:
        """What a poll of an instance returns."""
        start = self.epoch + timedelta(seconds=index * self.every, milliseconds=index % 1000)
        names = [f"{STEPS[n % len(STEPS)]}-{n + 1}" for n in range(self.done[index] + 1)]
        at = [start + timedelta(seconds=n) for n in range(len(names) + 1)]
        steps = [
            Step("step", name, at[n], at[n + 1], True, attempts=[Attempt(at[n], at[n + 1], True)])
            for n, name in enumerate(names[:-1])
        ]
        steps.append(Step("step", names[-1], at[-2], attempts=[Attempt(at[-2])]))
        detail = Detail(
            status="running",
            queued=start - timedelta(seconds=1),
            start=start,
            version_id="182bd5e5-6e1a-4fe4-a799-aa6d9a6ab26e",
            trigger=Trigger("api"),
            steps=steps,
        )
        tracked = track(self.runs[index], detail, now=at[-1].timestamp())
        assert tracked is not None
        self.runs[index] = tracked.run
        workflow = WORKFLOWS[index % len(WORKFLOWS)]
        return workflow, self.ids[index], tracked, at[-1].timestamp()

    def moved(self) -> Iterator[int]:
        """A hundredth of the instances is a step further."""
        for index in self.chance.sample(range(len(self.ids)), len(self.ids) // 100):
            self.done[index] += 1
            yield index


def put(
    store: Store,
    workflow: WorkflowKey,
    instance_id: str,
    tracked: Tracked,
    at: float,
    *,
    counted: bool = True,
) -> None:
    """Takes what a poll returned, as the poller does, with or without what finished."""
    if counted:
        store.counted(workflow, instance_id, tracked.observations)
    store.shown(workflow, instance_id, tracked.values, at)


def samples(tracked: Tracked, at: float) -> Iterator[Sample]:
    """What an instance shows, of its status each of the states."""
    for family, labels, value in InstanceSamples(tracked.values, at, _LABELS):
        for state in family.states:
            if state != labels[-1]:
                yield family, (state,), 0
        yield family, labels, value


def updates(world: World, store: Store, exposition: Exposition, *, counted: bool) -> float:
    """CPU seconds of an update of an instance, with or without what it finished."""
    polls = [world.tracked(index) for _ in range(20) for index in list(world.moved())]
    show_at_once(exposition, store.take())
    started = time.process_time()
    for poll in polls:
        put(store, *poll, counted=counted)
        show_at_once(exposition, store.take())
    return (time.process_time() - started) / len(polls)


def exporter(size: int, port: Connection) -> None:
    """This exporter; `/update` returns the CPU time of updates, `/memory` the bytes in use."""
    world, store = World(size), Store(Metrics())
    exposition = Exposition(store)
    for workflow in WORKFLOWS:
        store.attached(workflow)
    base = resident()
    for index in range(size):
        put(store, *world.tracked(index))
    show_at_once(exposition, store.take())

    async def change(_: Request) -> JSONResponse:
        for index in list(world.moved()):
            put(store, *world.tracked(index))
        show_at_once(exposition, store.take())
        return JSONResponse(None)

    async def update(_: Request) -> JSONResponse:
        spent = [updates(world, store, exposition, counted=counted) for counted in (False, True)]
        return JSONResponse(spent)

    async def memory(_: Request) -> JSONResponse:
        return JSONResponse(resident() - base)

    async def cpu(_: Request) -> JSONResponse:
        return JSONResponse(time.process_time())

    nothing = WatchView([], clock=Clock())
    app = endpoints(exposition, nothing, unhealthy=list, unready=list)
    app.router.routes += [Route(f"/{f.__name__}", f) for f in (change, update, memory, cpu)]
    serve_app(app, port)


class _Threading(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


def prometheus_client(size: int, port: Connection) -> None:
    """The same series as gauges of prometheus_client, served as it serves them."""
    world, registry = World(size), CollectorRegistry()
    gauges: dict[str, Gauge] = {}
    shown: dict[int, set[tuple[Gauge, tuple[str, ...]]]] = {}

    def show(index: int) -> None:
        workflow, instance_id, tracked, at = world.tracked(index)
        now = set()
        for family, labels, value in samples(tracked, at):
            if family.name not in gauges:
                gauges[family.name] = Gauge(
                    family.name, family.help, family.labels, registry=registry
                )
            key = gauges[family.name], (*workflow, instance_id, *labels)
            key[0].labels(*key[1]).set(value)
            now.add(key)
        for gauge, labels in shown.get(index, now) - now:
            gauge.remove(*labels)
        shown[index] = now

    for index in range(size):
        show(index)
    metrics = make_wsgi_app(registry)

    def app(environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/metrics":
            return metrics(environ, start_response)
        start_response("200 OK", [])
        if environ["PATH_INFO"] == "/change":
            for index in list(world.moved()):
                show(index)
        return [json.dumps(time.process_time()).encode()]

    server = make_server("127.0.0.1", 0, app, _Threading, handler_class=_Silent)
    port.send(server.server_port)
    server.serve_forever()


def memory(bodies: dict[str, bytes], port: Connection) -> None:
    """The floor: ready-made bodies, sent by uvicorn."""

    async def metrics(request: Request) -> Response:
        gzipped = "gzip" in request.headers["accept-encoding"]
        return Response(bodies["gzip" if gzipped else "identity"])

    async def cpu(_: Request) -> JSONResponse:
        return JSONResponse(time.process_time())

    serve_app(Starlette(routes=[Route(f"/{f.__name__}", f) for f in (metrics, cpu)]), port)


def serve_app(app: Starlette, port: Connection) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    port.send(listener.getsockname()[1])
    uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False)).run([listener])


@contextmanager
def child(target: Callable[..., None], given: object) -> Iterator[int]:
    """Runs a server in a process of its own; its port."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=target, args=(given, theirs))
    process.start()
    try:
        yield ours.recv()
    finally:
        process.terminate()
        process.join()


@contextmanager
def client_golang(size: int) -> Iterator[int | None]:
    """The Go program with as many series; None without Go."""
    go, source = shutil.which("go"), Path(__file__).with_name("scrape_cost.go")
    if go is None:
        print("Go is not installed: nothing is compared with client_golang")
        yield None
        return
    world = World(size)
    with tempfile.TemporaryDirectory() as folder:
        # As Debian packages Go libraries: by path, without modules.
        environment = {**os.environ, "GO111MODULE": "off", "GOPATH": "/usr/share/gocode"}
        program = f"{folder}/scrape"
        subprocess.run([go, "build", "-o", program, source], check=True, env=environment)
        with subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            for index in range(size):
                workflow, instance_id, tracked, at = world.tracked(index)
                for family, labels, value in samples(tracked, at):
                    names, values = family.labels, (*workflow, instance_id, *labels)
                    row = [family.name, family.help, *names, *values, float(value)]
                    process.stdin.write("\t".join(map(str, row)) + "\n")
            process.stdin.close()
            yield int(process.stdout.readline())
            process.terminate()


def response(port: int, path: str, encoding: str) -> Iterator[memoryview]:
    """The response of a server in pieces, each valid until the next."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        request = f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept-Encoding: {encoding}\r\n"
        connection.sendall(f"{request}Connection: close\r\n\r\n".encode())
        buffer = memoryview(bytearray(1 << 18))
        while size := connection.recv_into(buffer):
            yield buffer[:size]


def get(port: int, path: str, encoding: str = "identity") -> bytes:
    """The body of a response, as it is sent."""
    return b"".join(map(bytes, response(port, path, encoding))).partition(b"\r\n\r\n")[2]


class InstanceValues:
    """Seconds of scrapes of one server: wall and CPU."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def scrape(self, encoding: str, *, change: bool) -> None:
        if change:
            get(self.port, "/change")
        cpu, started = json.loads(get(self.port, "/cpu")), time.perf_counter()
        for _ in response(self.port, "/metrics", encoding):
            pass
        self.wall.append(time.perf_counter() - started)
        self.cpu.append(json.loads(get(self.port, "/cpu")) - cpu)

    @property
    def medians(self) -> tuple[float, float]:
        return statistics.median(self.wall), statistics.median(self.cpu)


def compare(size: int, repeat: int, *, alone: bool) -> dict[str, float]:
    """One size: prints all of it; wall seconds of the exporter's scrapes, by what was scraped."""
    mine: dict[str, float] = {}
    with ExitStack() as servers:
        exporter_ = servers.enter_context(child(exporter, size))
        started = time.perf_counter()
        bodies = {"gzip": get(exporter_, "/metrics", "gzip")}
        first = time.perf_counter() - started
        bodies["identity"] = get(exporter_, "/metrics")
        assert gzip.decompress(bodies["gzip"]).count(b"\n") == bodies["identity"].count(b"\n")
        plain, packed = len(bodies["identity"]), len(bodies["gzip"])
        series = sum(not line.startswith(b"#") for line in bodies["identity"].splitlines())
        print(
            f"\n{size:,} instances, {series:,} series: {plain / 1e6:.1f} MB, gzip "
            f"{packed / 1e6:.2f} MB; first gzip scrape, nothing compressed before, "
            f"{first * 1e3:.0f} ms"
        )
        ports = {"exporter": exporter_}
        if not alone:
            ports["prometheus_client"] = servers.enter_context(child(prometheus_client, size))
            if (go := servers.enter_context(client_golang(size))) is not None:
                ports["client_golang"] = go
        ports["from memory"] = servers.enter_context(child(memory, bodies))
        for encoding in ("identity", "gzip"):
            for change in (False, True):
                values = {
                    name: InstanceValues(port)
                    for name, port in ports.items()
                    if not change or name in ("exporter", "prometheus_client")
                }
                for turn in range(repeat):
                    for name, server in values.items():
                        if turn < 2 or name not in ("prometheus_client", "client_golang"):
                            server.scrape(encoding, change=change)
                what = f"{encoding:<8} {'1% changed' if change else 'unchanged '}"
                report(what, values)
                mine[what] = values["exporter"].medians[0]
        gauges, counted = json.loads(get(exporter_, "/update"))
        get(exporter_, "/metrics", "gzip")
        held = json.loads(get(exporter_, "/memory"))
        print(
            f"update of an instance's gauges {gauges * 1e6:.0f} µs of CPU, of histograms too "
            f"{counted * 1e6:.0f} µs; memory {held / 2**20:.0f} MiB, "
            f"{held / plain:.2f} times the plain text, {held / size / 1024:.1f} KiB an instance"
        )
    return {what: seconds / size for what, seconds in mine.items()}


def report(what: str, values: dict[str, InstanceValues]) -> None:
    wall, cpu = values["exporter"].medians
    for name, server in values.items():
        their_wall, their_cpu = server.medians
        ratio = ""
        if name == "from memory":
            ratio = f"   exporter: {wall / their_wall:5.1f} times the wall time, CPU "
            ratio += f"{cpu / their_cpu:5.1f}"
        elif name != "exporter":
            ratio = (
                f"   exporter: {their_wall / wall:5.0f} times faster, CPU {their_cpu / cpu:5.0f}"
            )
        print(
            f"{what} {name:<18} wall {their_wall * 1e3:>9.2f} ms   "
            f"CPU {their_cpu * 1e3:>9.2f} ms{ratio}",
            flush=True,
        )


def main() -> None:
    assert __doc__ is not None
    options = argument_parser(__doc__)
    options.add_argument("--instances", type=int, nargs="+", default=[1000, 10_000, 50_000])
    options.add_argument("--repeat", type=int, default=10, help="scrapes; of the slow ones, two")
    options.add_argument("--alone", action="store_true", help="compare with nothing but memory")
    given = options.parse_args()
    print(f"{datetime.now(UTC):%Y-%m-%d}, medians of {given.repeat} scrapes")
    each = {size: compare(size, given.repeat, alone=given.alone) for size in given.instances}
    least, most = min(each), max(each)
    if least < most:
        print(f"\nan instance at {most:,} costs, in terms of one at {least:,}:")
        for what, seconds in each[most].items():
            print(f"{what} {seconds / each[least][what]:5.2f}")


if __name__ == "__main__":
    main()
