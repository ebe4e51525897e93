"""Bytes fetched for a run of thousands of steps that is seen changing at every look.

    python -m benchmarks.long_runs [--steps 1000 2500 10000 25000] [--each 2]

The whole exporter in virtual time, against the simulator in the same process: one instance that
begins a step or a sleep every other second, watched from its first step to its end. Printed for
each length: bytes of full answers, bytes a step, and how often and how far apart they came; beside
it what a full answer at each look would have taken, from the size of the last.
"""

import argparse
import asyncio
import itertools
from collections.abc import AsyncIterator

import httpx

from benchmarks import virtual
from benchmarks.churn import upstream, virtual_clock
from benchmarks.huge import count
from exporter.app import App
from exporter.config.settings import Settings
from exporter.logs import configure
from simulator import Attempt, Script, Sleep, Step


class Counting(httpx.ASGITransport):
    """Notes the time and size of each full answer."""

    def __init__(self, app: object) -> None:
        super().__init__(app)  # type: ignore[arg-type]
        self.full: list[tuple[float, int]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        if b"simple=false" in request.url.query:
            assert isinstance(response.stream, httpx.AsyncByteStream)
            body = b"".join([part async for part in response.stream])
            self.full.append((asyncio.get_running_loop().time(), len(body)))
            response.stream = Whole(body)
        return response


class Whole(httpx.AsyncByteStream):
    def __init__(self, body: bytes) -> None:
        self.body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.body


async def watch(number: int, each: float) -> float:
    clock = virtual_clock()
    world, simulator = upstream(clock)
    # Every other piece is a sleep, so that looks find it now running and now waiting.
    work = [Step(f"step {n % 50}", (Attempt(each),)) for n in range(number // 2)]
    script = Script(tuple(piece for step in work for piece in (step, Sleep("nap", each))))
    world.account("acc").workflow("orders").create("long", script, at=clock.wall())
    transport = Counting(simulator)
    account = {
        "name": "acc",
        "account_id": "acc",
        "api_token": "secret",
        "workflows": [{"name": "orders", "instances": ["long"]}],
    }
    api = {"url": "https://simulator/client/v4/accounts/{account_id}"}
    settings = Settings.model_validate({"accounts": [account], "api": api})
    app = App(settings, clock=clock, transport=transport)
    interval = settings.poll.interval
    looks = 0
    async with app.opened():
        (poller,) = app.pollers
        while not looks or poller.instances["long"].live:
            await poller.round(whole=True)
            looks += 1
            await asyncio.sleep(interval)
    times, sizes = zip(*transport.full, strict=True)
    fetched: int = sum(sizes)
    always = looks * sizes[-1] / 2
    apart = max(b - a for a, b in itertools.pairwise(times))
    exact = count(app, "cloudflare_workflow_step_duration_seconds_count") == number
    print(
        f"{number:>6,} steps, {sizes[-1] / 1e6:5.1f} MB in the end: {fetched / 1e6:8.1f} MB in "
        f"{len(sizes):>4} full answers at most {apart:4.0f} s apart, "
        f"{fetched / number:8,.0f} bytes a step; at each of {looks:>5,} looks "
        f"{always / number:9,.0f} bytes a step; "
        f"figures {'exact' if exact else 'WRONG'}",
        flush=True,
    )
    return fetched / number


def main() -> None:
    assert __doc__ is not None
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--steps", type=int, nargs="+", default=[1000, 2500, 10_000, 25_000])
    options.add_argument("--each", type=float, default=2.0, help="seconds of a step")
    given = options.parse_args()
    configure("error", "logfmt")
    first = 0.0
    for number in given.steps:
        spent = virtual.run(watch(number, given.each))
        first = first or spent
        print(f"       {spent / first:.2f} times the bytes a step of the first")


if __name__ == "__main__":
    main()
