"""Prints the CPU time of a poll, next to that of the same request by httpx alone.

    python -m benchmarks.poll_cost [--instances 200] [--rounds 10]

For simple requests that find no change, and for detail requests of 10, 100 and 10,000 steps: what
the exporter spends on each, and what httpx alone does, in turn, in one run. The API is a child
process that serves prepared responses, so its CPU time isn't included. Decoding alone is compared
too: msgspec as it is used here, pydantic, and the standard library's json.
"""

import asyncio
import gc
import json
import multiprocessing
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from typing import Any, ClassVar

import httpx
import msgspec
import pydantic

from benchmarks import argument_parser
from exporter.app import App
from exporter.cloudflare.models import Detail, Envelope
from exporter.config.settings import Settings
from exporter.logs import configure

QUEUED = "2026-01-01T00:00:00.000Z"


def step(number: int) -> dict[str, Any]:
    """A step as the real engine sends it."""
    time_ = "2026-01-01T00:00:01.123Z"
    return {
        "name": f"step {number % 50}-{number // 50 + 1}",
        "start": time_,
        "end": time_,
        "success": True,
        "type": "step",
        "output": {"n": number},
        "config": {
            "retries": {"limit": 5, "backoff": "exponential", "delay": 1000},
            "timeout": "10 minutes",
        },
        "attempts": [{"start": time_, "end": time_, "success": True, "error": None}],
    }


def response(steps: int, *, detail: bool) -> bytes:
    """A response for a running instance."""
    result: dict[str, Any] = {
        "status": "running",
        "params": {"order": 7},
        "queued": QUEUED,
        "start": QUEUED,
        "end": None,
        "output": None,
        "error": None,
        "step_count": steps,
        "versionId": "182bd5e5-6e1a-4fe4-a799-aa6d9a6ab26e",
        "trigger": {"source": "api"},
    }
    if detail:
        result["steps"] = [step(n) for n in range(steps)]
    return json.dumps({"success": True, "errors": [], "messages": [], "result": result}).encode()


class Upstream(asyncio.Protocol):
    """A minimal HTTP server: `/…/instances/{steps}-{n}?simple=…` gets a prepared response."""

    ready: ClassVar[dict[bytes, bytes]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        target = data.split(b" ", 2)[1]
        steps, _, rest = target.rpartition(b"/")[2].partition(b"-")
        key = steps + (b" simple" if b"simple=true" in rest else b" detail")
        if key not in self.ready:
            body = response(int(steps), detail=key.endswith(b"detail"))
            head = (
                f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
            )
            self.ready[key] = head.encode() + b"\r\n\r\n" + body
        self.transport.write(self.ready[key])


def serve(ready: Connection) -> None:
    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


@contextmanager
def upstream() -> Iterator[str]:
    """The URL of an upstream in a process of its own."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        process.terminate()
        process.join()


async def cpu(rounds: int, requests: int, work: Callable[[], Awaitable[object]]) -> list[float]:
    """Microseconds of CPU for each request, by round, after one that is not measured."""
    await work()
    values = []
    for _ in range(rounds):
        started = time.process_time()
        await work()
        values.append((time.process_time() - started) / requests * 1e6)
    return values


async def compare(url: str, what: str, steps: int, instances: int, rounds: int) -> None:
    ids = [f"{steps}-{n}" for n in range(instances)]
    # The settings decide what is due: simple requests alone, or detail requests alone.
    refresh = "1ms" if what == "detail" else "100y"
    settings = Settings(
        accounts=[{"name": "acc", "workflows": [{"name": "orders", "instances": ids}]}],
        api={"url": url, "requests_per_5m": 10**9},
        poll={"detail_refresh": refresh},
    )
    query = "simple=true" if what == "simple" else "simple=false&order=asc"
    limits = httpx.Limits(max_connections=10)

    async def plain() -> None:
        # The same number at once as the exporter has.
        slots = asyncio.Semaphore(10)

        async def get(instance: str) -> None:
            async with slots:
                response = await client.get(f"{url}/workflows/orders/instances/{instance}?{query}")
                assert response.status_code == 200

        await asyncio.gather(*map(get, ids))

    async def ours() -> None:
        (poller,) = app.pollers
        for instance in poller.instances.values():
            instance.due = instance.detail_after = 0.0
        await poller.round(whole=True)

    async with (
        App(settings).opened() as app,
        httpx.AsyncClient(limits=limits, trust_env=False) as client,
    ):
        await ours()
        gc.freeze()  # as the command does
        exporter, alone = [], []
        for _ in range(rounds):
            alone += await cpu(1, instances, plain)
            exporter += await cpu(1, instances, ours)
        assert app.pollers[0].up
    ratio = statistics.median(a / b for a, b in zip(exporter, alone, strict=True))
    label = f"{what} request" + (f", {steps:,} steps" if what == "detail" else ", no change")
    print(
        f"{label:<28} exporter {statistics.median(exporter):>10,.0f} µs   "
        f"httpx alone {statistics.median(alone):>10,.0f} µs   ratio {ratio:5.2f}"
    )


class PydanticAttempt(pydantic.BaseModel):
    start: datetime
    end: datetime | None = None
    success: bool | None = None


class PydanticStep(pydantic.BaseModel):
    name: str
    type: str
    start: datetime
    end: datetime | None = None
    success: bool | None = None
    attempts: list[PydanticAttempt] = []


class PydanticDetail(pydantic.BaseModel):
    queued: datetime
    status: str
    steps: list[PydanticStep]


class PydanticEnvelope(pydantic.BaseModel):
    result: PydanticDetail


def parsers(steps: int) -> None:
    body = response(steps, detail=True)
    decoder = msgspec.json.Decoder(Envelope[Detail], strict=False)
    rivals: dict[str, Callable[[bytes], object]] = {
        "msgspec": decoder.decode,
        "json (no models)": json.loads,
        "pydantic": PydanticEnvelope.model_validate_json,
    }
    print(f"decoding a detail response of {steps:,} steps, {len(body):,} bytes:")
    least = 0.0
    for name, parse in rivals.items():
        values = []
        for _ in range(5):
            started = time.process_time()
            parse(body)
            values.append((time.process_time() - started) * 1e3)
        median = statistics.median(values)
        least = least or median
        print(f"  {name:<18} {median:8.1f} ms   {median / least:5.2f} times msgspec")


def main() -> None:
    assert __doc__ is not None
    options = argument_parser(__doc__)
    options.add_argument("--instances", type=int, default=200)
    options.add_argument("--rounds", type=int, default=10)
    given = options.parse_args()
    configure("warning", "logfmt")
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, medians of {given.rounds} rounds, CPU time of each request"
    )
    with upstream() as url:
        few = max(1, given.instances // 100)
        for what, steps, instances in (
            ("simple", 10, given.instances),
            ("detail", 10, given.instances),
            ("detail", 100, given.instances),
            ("detail", 10_000, few),
        ):
            asyncio.run(compare(url, what, steps, instances, given.rounds))
    parsers(10_000)


if __name__ == "__main__":
    main()
