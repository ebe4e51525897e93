"""Prints the bytes fetched for a run of thousands of steps that every poll finds changed.

    python -m benchmarks.long_run_bytes [--steps 1000 2500 10000 25000] [--each 2]

The whole exporter runs in virtual time against the simulator in the same process: one instance that
begins a step or a sleep every other second, watched from its first step to its end. Printed for
each length: bytes of detail responses, bytes a step, how many responses and how far apart; next to
it the bytes that a detail request at each poll would have taken, from the size of the last one.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator

import httpx

from benchmarks import argument_parser, virtual_time
from benchmarks.churn_memory import upstream, virtual_clock
from benchmarks.huge_responses import count
from exporter.app import App
from exporter.config.settings import Settings
from exporter.logs import configure
from simulator import Attempt, Script, Sleep, Step


class Counting(httpx.ASGITransport):
    """Records the time and size of each detail response."""

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
    # Every other piece is a sleep, so that polls find it now running and now waiting.
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
    polls = 0
    async with app.opened():
        (poller,) = app.pollers
        while not polls or poller.instances["long"].live:
            await poller.round(whole=True)
            polls += 1
            await asyncio.sleep(interval)
    times, sizes = zip(*transport.full, strict=True)
    fetched: int = sum(sizes)
    always = polls * sizes[-1] / 2
    apart = max(b - a for a, b in itertools.pairwise(times))
    exact = count(app, "cloudflare_workflow_step_duration_seconds_count") == number
    print(
        f"{number:>6,} steps, {sizes[-1] / 1e6:5.1f} MB in the end: {fetched / 1e6:8.1f} MB in "
        f"{len(sizes):>4} detail responses at most {apart:4.0f} s apart, "
        f"{fetched / number:8,.0f} bytes a step; at each of {polls:>5,} polls "
        f"{always / number:9,.0f} bytes a step; "
        f"metrics {'exact' if exact else 'WRONG'}",
        flush=True,
    )
    return fetched / number


def main() -> None:
    assert __doc__ is not None
    options = argument_parser(__doc__)
    options.add_argument("--steps", type=int, nargs="+", default=[1000, 2500, 10_000, 25_000])
    options.add_argument("--each", type=float, default=2.0, help="seconds of a step")
    given = options.parse_args()
    configure("error", "logfmt")
    first = 0.0
    for number in given.steps:
        spent = virtual_time.run(watch(number, given.each))
        first = first or spent
        print(f"       {spent / first:.2f} times the bytes a step of the first")


if __name__ == "__main__":
    main()
