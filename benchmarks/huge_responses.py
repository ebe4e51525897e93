"""Prints memory and CPU time of detail responses of up to a gigabyte.

    python -m benchmarks.huge_responses [--steps 25000] [--sizes 10 100 1000]

The whole exporter, in a new process each time, watches one instance over a real socket: first a
small one, for the memory of an idle exporter, then one that has ended with 25,000 steps
(Cloudflare's limit), whose outputs fill the response to the given megabytes. Printed: the peak of
resident memory above idle, how much of it stays, CPU time, and whether the metrics are exact. The
API is another process. The last lines are harder cases: outputs of many small objects, and five
attempts a step.
"""

import asyncio
import gc
import multiprocessing
import resource
import time
from multiprocessing.connection import Connection
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from benchmarks import argument_parser
from exporter.app import App
from exporter.config.settings import Settings
from exporter.logs import configure
from simulator import Attempt, Error, Inflate, Script, Simulator, Step, serve

TEXT = b'"' + b"x" * 1021 + b'"'
# Each is forked from a server that has imported what they need, and nothing more.
FORKSERVER = multiprocessing.get_context("forkserver")
OBJECTS = b'{"id":12345,"tags":["a","b"],"price":{"amount":"1.50","currency":"EUR"}}'


def upstream(steps: int, attempts: int, size: int, value: bytes, ready: Connection) -> None:
    simulator = Simulator()
    simulator.access.token("secret")
    orders = simulator.world.account("acc").workflow("orders")
    failed = (Attempt(0.001, Error("TypeError", "no such order")),) * (attempts - 1)
    script = Script(
        tuple(
            Step(f"step {n % 50}", (*failed, Attempt(0.001)), backoff=0.001) for n in range(steps)
        )
    )
    orders.create("small", Script(), at=simulator.world.clock() - 3600)
    orders.create("huge", script, at=simulator.world.clock() - 3600)
    times = max(1, size // steps // (len(value) + 1))
    simulator.faults.add(Inflate(value, times), kind="detail", instance="huge")

    async def run() -> None:
        async with serve(simulator):
            ready.send(simulator.url)
            await asyncio.Event().wait()

    asyncio.run(run())


def peak() -> int:
    """Bytes: the highest resident memory since it was last reset."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def watch(url: str, instance: str) -> App:
    account = {
        "name": "acc",
        "account_id": "acc",
        "api_token": "secret",
        "workflows": [{"name": "orders", "instances": [instance]}],
    }
    api = {"url": url + "/accounts/{account_id}", "max_body": "4GiB"}
    app = App(Settings.model_validate({"accounts": [account], "api": api}))
    async with app.opened():
        (poller,) = app.pollers
        await poller.round(whole=True)
    assert poller.up, poller.instances[instance].failure
    return app


def count(app: App, name: str) -> float:
    body, _ = app.exposition.render()
    families = text_string_to_metric_families(body.decode())
    return sum(s.value for family in families for s in family.samples if s.name == name)


def exporter(url: str, what: str, steps: int, attempts: int) -> None:
    configure("error", "logfmt")

    async def run() -> None:
        count(await watch(url, "small"), "")
        idle = resident()
        forget_peak()
        cpu, wall = time.process_time(), time.perf_counter()
        app = await watch(url, "huge")
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        most, stays = peak() - idle, resident() - idle
        exact = (
            count(app, "cloudflare_workflow_step_duration_seconds_count") == steps
            and count(app, "cloudflare_workflow_step_attempt_duration_seconds_count")
            == count(app, "cloudflare_workflow_instance_attempts")
            == steps * attempts
        )
        print(
            f"{what:<44} peak {most / 2**20:6.1f} MiB over idle ({idle / 2**20:.0f} MiB), "
            f"{stays / 2**20:5.1f} MiB stay; CPU {cpu:6.1f} s of {wall:6.1f} s; "
            f"metrics {'exact' if exact else 'WRONG'}",
            flush=True,
        )

    asyncio.run(run())


def compare(megabytes: int, steps: int, attempts: int, value: bytes, what: str) -> None:
    ours, theirs = FORKSERVER.Pipe()
    size = megabytes * 10**6
    serving = FORKSERVER.Process(target=upstream, args=(steps, attempts, size, value, theirs))
    serving.start()
    try:
        what = f"{megabytes:,} MB, {steps:,} steps, {what}"
        watching = FORKSERVER.Process(target=exporter, args=(ours.recv(), what, steps, attempts))
        watching.start()
        watching.join()
    finally:
        serving.terminate()
        serving.join()


def main() -> None:
    assert __doc__ is not None
    options = argument_parser(__doc__)
    options.add_argument("--steps", type=int, default=25_000)
    options.add_argument("--sizes", type=int, nargs="*", default=[10, 100, 1000], help="MB")
    given = options.parse_args()
    FORKSERVER.set_forkserver_preload(["exporter.app", "simulator"])
    for megabytes in given.sizes:
        compare(megabytes, given.steps, 1, TEXT, "text")
    largest = max(given.sizes)
    compare(largest, max(1, largest), 1, TEXT, "text")
    compare(largest // 4, given.steps, 1, OBJECTS, "small objects")
    compare(largest // 4, given.steps, 5, TEXT, "5 attempts each")


if __name__ == "__main__":
    main()
