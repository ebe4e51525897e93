"""Prints how long the web page takes with thousands of instances, and how long it blocks others.

    python -m benchmarks.page_cost [--instances 10000]

For each address: seconds until the page is there, its size, and the longest time for which the
event loop was blocked meanwhile.
"""

import asyncio
import statistics
import time
from datetime import UTC, datetime, timedelta

from benchmarks import argument_parser
from exporter.app import App
from exporter.cloudflare.models import Attempt, Detail, Step
from exporter.config.settings import Poll, Settings
from exporter.instances.instance import Instance, Scope
from exporter.instances.run_tracker import track
from exporter.instances.timeline import pack
from exporter.web.endpoints import endpoints
from exporter.web.server import Server, address_of, listen

_REQUESTS = 20
_ADDRESSES = ("", "?sort=changed", "?q=order-00", "?sort=instance&page=50")


async def _filled(count: int) -> App:
    account = {
        "name": "production",
        "account_id": "acc",
        "api_token": "secret",
        "workflows": [{"name": f"orders-{n}", "discover": {}} for n in range(5)],
    }
    settings = Settings.model_validate({"accounts": [account]})
    app = App(settings)
    await app.writer.open(None)
    await app.watched.apply(settings)
    now = datetime.now(UTC)
    for number in range(count):
        steps = [
            Step(
                type="step",
                name=f"load-the-order-{n}",
                start=now - timedelta(seconds=100 - n),
                end=None if n == 9 else now - timedelta(seconds=99 - n),
                success=None if n == 9 else True,
                attempts=[Attempt(start=now)] * (number % 3 + 1),
            )
            for n in range(10)
        ]
        status = "errored" if number % 100 == 0 else "running"
        detail = Detail(queued=now, start=now, status=status, step_count=10, steps=steps)
        tracked = track(None, detail, now=now.timestamp())
        assert tracked is not None
        instance = Instance(f"order-{number:05}", Scope.DISCOVERED, Poll(), since=0.0)
        instance.run, instance.values = tracked.run, tracked.values
        instance.timeline = pack(detail, now=now.timestamp())
        instance.last_change = now.timestamp() - number % 7000
        app.pollers[number % 5].instances[instance.id] = instance
    return app


async def _stalls(stop: asyncio.Event) -> list[float]:
    """Seconds by which the event loop was late, each millisecond."""
    late = []
    while not stop.is_set():
        before = time.perf_counter()
        await asyncio.sleep(0.001)
        late.append(time.perf_counter() - before - 0.001)
    return late


async def _fetch(url: str) -> tuple[float, int]:
    """Seconds and bytes that a page takes."""
    form = "%{time_total} %{size_download}"
    curl = await asyncio.create_subprocess_exec(
        "curl", "-sf", "-o", "/dev/null", "-w", form, url, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await curl.communicate()
    seconds, size = printed.decode().split()
    return float(seconds), int(size)


async def _measure(count: int) -> None:
    app = await _filled(count)
    asgi = endpoints(app.exposition, app.view, unhealthy=list, unready=list)
    with listen("127.0.0.1", 0) as listener:
        server = Server(asgi)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        print(f"{count:,} instances; {_REQUESTS} requests for each address")
        for address in _ADDRESSES:
            stop = asyncio.Event()
            watching = asyncio.create_task(_stalls(stop))
            fetched = [
                await _fetch(f"http://{address_of(listener)}/{address}") for _ in range(_REQUESTS)
            ]
            stop.set()
            late = [1000 * seconds for seconds in sorted(await watching)]
            print(
                f"/{address:24} {statistics.median(s for s, _ in fetched) * 1000:5.0f} ms, "
                f"{fetched[0][1] / 1024:4.0f} KiB; event loop late by "
                f"{late[int(len(late) * 0.99)]:.0f} ms (p99), {late[-1]:.0f} ms (most)"
            )
        server.should_exit = True
        await serving


def main() -> None:
    options = argument_parser(__doc__)
    options.add_argument("--instances", type=int, default=10_000)
    asyncio.run(_measure(options.parse_args().instances))


if __name__ == "__main__":
    main()
