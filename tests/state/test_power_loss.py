"""What a scrape has shown is on the disk: a power loss at any moment takes no count back.

The command runs under strace; its writes are played again up to a moment, but for those that no
sync followed, and the next exporter starts on what is left.
"""

import random
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from exporter.app import App
from exporter.config.settings import Settings
from simulator import Script, Simulator, retried, serve_in_thread, steps
from tests.e2e.daemon import Daemon, configuration, daemon
from tests.e2e.scrape import Samples, samples, scrape
from tests.requires import requires_program
from tests.state.strace import Disk, Responses, calls, complete, tracer
from tests.waiting import wait_until

pytestmark = [pytest.mark.process, pytest.mark.slow(15)]

COUNTS = ("cloudflare_workflow_runs", "cloudflare_workflow_run_", "cloudflare_workflow_step_")
INSTANCES = [f"order-{n}" for n in range(24)]


@pytest.fixture(scope="module", autouse=True)
def _strace() -> None:
    requires_program("strace", package="strace")
    if subprocess.run(["strace", "-o", "/dev/null", "true"], check=False).returncode:
        pytest.skip("processes can't be traced here")


def counts(found: Samples) -> Samples:
    ends = ("_total", "_bucket", "_count", "_sum")
    return {
        key: value
        for key, value in found.items()
        if key[0].startswith(COUNTS) and key[0].endswith(ends)
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where an exporter ran, was scraped all the time, stopped, ran again and was killed."""
    folder = tmp_path_factory.mktemp("power")
    (folder / "state").mkdir()
    simulator = Simulator()
    simulator.access.token("secret")
    now = time.time()
    for number, name in enumerate(INSTANCES):
        some = steps(*(f"step-{n}-x" for n in range(12)), duration=0.02)
        script = Script((*some, retried("charge", failures=2, duration=0.05, backoff=0.1)))
        orders = simulator.world.account("acc").workflow("orders")
        orders.create(name, script, at=now + 2 + 0.15 * number)
    with serve_in_thread(simulator) as served:
        workflows = [{"name": "orders", "instances": INSTANCES}]
        api = served.url + "/accounts/{account_id}"
        configuration(folder, api, api_token="secret", workflows=workflows)
        for number in range(2):
            trace = folder / f"trace-{number}"
            within = tracer(trace)
            state = f"--state.path={folder}/state/state.db"
            with daemon(folder, state, "--poll.interval=200ms", within=within) as running:
                running.http.headers["Accept-Encoding"] = "identity"
                ended, totals = len(INSTANCES) * (number + 1) / 2, list[float]()

                def enough(
                    totals: list[float] = totals, ended: float = ended, running: Daemon = running
                ) -> bool:
                    found = samples(running.metrics())
                    name = "cloudflare_workflow_runs_finished_total"
                    totals.append(sum(v for (n, _), v in found.items() if n == name))
                    # On a busy machine all may have ended after a few scrapes.
                    return totals[-1] >= ended and len(totals) > 10

                wait_until(enough, running.stderr)
                if number:
                    running.process.kill()
                else:
                    assert running.stop() == 0
            process = running.process.pid
            wait_until(lambda: complete(trace, process), lambda: f"{trace} has no end")  # noqa: B023
    return folder


async def restored(state: Path) -> Samples:
    """What an exporter shows that has just started on a state file."""
    workflows = [{"name": "orders", "instances": INSTANCES}]
    settings = Settings(
        accounts=[
            {"name": "production", "account_id": "acc", "api_token": "x", "workflows": workflows}
        ]
    )
    app = App(settings, state=state, transport=httpx.MockTransport(lambda _: httpx.Response(500)))
    async with app.opened():
        await app.writer.save()
        return counts(scrape(app))


async def test_no_count_is_lower_afterwards(folder: Path, tmp_path: Path) -> None:
    disk, responses = Disk(folder / "state"), Responses()
    done = [call for number in range(2) for call in calls(folder / f"trace-{number}")]
    for place, call in enumerate(done):
        responses.take(place, call)
    scrapes = {at: body for at, body in responses.bodies if body.startswith(b"# HELP")}
    assert len(scrapes) > 20
    chance = random.Random(6)
    shown: Samples = {}
    for place, call in enumerate(done):
        disk.take(call)
        before = shown
        if place in scrapes:
            shown = counts(samples(scrapes[place].decode()))
        news = shown != before
        if not news and not (shown and chance.random() < 0.01):
            continue
        for lasting in (None, chance):
            left = tmp_path / f"{place}-{lasting is None}"
            left.mkdir()
            disk.after_power_loss(left, lasting)
            found = await restored(left / "state.db")
            lower = {key: (v, found.get(key)) for key, v in shown.items() if found.get(key, -1) < v}
            assert not lower, f"after call {place} of {len(done)}: {call.name} {call.path}"
