"""Killed again and again while requests fail: nothing is counted twice, nothing is lost, and no
count is ever lower than a scrape has shown."""

import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from simulator import (
    Drop,
    Error,
    Script,
    Simulator,
    Sleep,
    Truncate,
    Wait,
    error,
    garbage,
    html,
    parallel,
    retried,
    serve_in_thread,
    steps,
)
from tests.e2e.daemon import Daemon, configuration, daemon
from tests.e2e.scrape import Samples, differences, samples
from tests.waiting import wait_until

pytestmark = [pytest.mark.process, pytest.mark.slow(15)]

KILLS = 6
EVERY = 0.05
"""Seconds from one scrape to the next, of which there are five for each poll of an instance."""
RUNS = 24
FAULTS = (error(500), html(503), garbage(), Truncate(), Drop(0.5, reset=True))
SCRIPTS = (
    Script(steps("fetch", "store", duration=0.3)),
    Script((retried("charge", failures=3, duration=0.1, backoff=0.5),)),
    Script((Sleep("nap", 1.5), *steps("store", duration=0.1))),
    Script((parallel(*steps("a", "b", duration=0.7)), Wait("approval", timeout=1, caught=True))),
    Script(steps("fetch", duration=0.4), throws=Error("TypeError")),
    Script((retried("charge", failures=2, succeeds=False, duration=0.2, backoff=0.3),), queued=0.5),
)
FLAGS = ("--poll.interval=250ms", "--poll.detail-refresh=500ms")


def counts(exposition: str) -> Samples:
    """Every counter and histogram of workflows.

    But one sum: lists and responses show the start of a wait in the queue a millisecond apart, and
    it depends on the moment of a kill which of them is seen first.
    """
    ends = ("_total", "_bucket", "_count", "_sum")
    prefixes = tuple(
        f"cloudflare_workflow_{name}" for name in ("run", "queue_", "step_", "details_")
    )
    return {
        (name, labels): value
        for (name, labels), value in samples(exposition, prefixes).items()
        if name.endswith(ends) and name != "cloudflare_workflow_queue_duration_seconds_sum"
    }


def finished(found: Samples) -> float:
    return sum(v for (n, _), v in found.items() if n == "cloudflare_workflow_runs_finished_total")


class Scraper:
    """Scrapes an exporter through its restarts, and holds it to what it has shown."""

    def __init__(self) -> None:
        self.shown: Samples = {}
        self.scrapes = 0

    def scrape(self, running: Daemon) -> Samples:
        found = counts(running.metrics())
        lower = {k: (v, found[k]) for k, v in self.shown.items() if found.get(k, v) < v}
        assert not lower
        self.shown |= found
        self.scrapes += 1
        return found


def differing(shown: Samples, calm: Daemon) -> list[str]:
    return differences(shown, counts(calm.metrics()))


def begin(simulator: Simulator) -> None:
    """Runs that begin one after the other, the same in both accounts."""
    now = time.time()
    for account in simulator.world.accounts.values():
        for workflow in account.workflows.values():
            for number in range(RUNS):
                script = SCRIPTS[number % len(SCRIPTS)]
                workflow.create(f"run-{number}", script, at=now + 0.5 + 0.35 * number)


def workflows() -> list[dict[str, Any]]:
    return [
        {"name": "orders", "instances": [f"run-{n}" for n in range(RUNS)]},
        {"name": "billing", "discover": {"min_age": "0s"}},
    ]


def test_six_kills_in_a_run_where_calls_fail(tmp_path: Path) -> None:
    chance = random.Random(6)
    simulator = Simulator()
    simulator.access.token("secret")
    for fault in FAULTS:
        simulator.faults.add(fault, account="killed", probability=0.05 / len(FAULTS))
    folders = {name: tmp_path / name for name in ("killed", "calm")}
    for account in folders:
        for name in ("orders", "billing"):
            simulator.world.account(account).workflow(name)
    with serve_in_thread(simulator) as served:
        for account, folder in folders.items():
            folder.mkdir()
            api = served.url + "/accounts/{account_id}"
            configuration(
                folder, api, api_token="secret", account_id=account, workflows=workflows()
            )
        with daemon(folders["calm"], *FLAGS) as calm:
            calm.wait_until_ready()
            scraper = Scraper()
            # What is discovered counts from here on: it is on the disk once the exporter is ready.
            with daemon(folders["killed"], *FLAGS) as running:
                running.wait_until_ready()
                running.process.send_signal(signal.SIGKILL)
                running.process.wait()
            begin(simulator)
            for _ in range(KILLS - 1):
                with daemon(folders["killed"], *FLAGS) as running:
                    moment = time.monotonic() + chance.uniform(0, 2)
                    # On a busy machine that is soon over.
                    enough = scraper.scrapes + chance.randrange(4, 8)
                    while scraper.scrapes < enough or time.monotonic() < moment:
                        scraper.scrape(running)
                        time.sleep(EVERY)
                    running.process.send_signal(signal.SIGKILL)
                    running.process.wait()
            with daemon(folders["killed"], *FLAGS) as running:
                wait_until(
                    lambda: finished(scraper.scrape(running)) >= 2 * RUNS,
                    lambda: f"{finished(scraper.shown)} runs counted",
                    every=EVERY,
                )
                # A run's end may be known before its steps are.
                wait_until(
                    lambda: not differing(scraper.scrape(running), calm),
                    lambda: "\n".join(differing(scraper.shown, calm)),
                    every=EVERY,
                )
                assert finished(scraper.shown) == 2 * RUNS
                assert scraper.scrapes > 3 * KILLS

                def faults() -> set[str]:
                    return {request.fault for request in simulator.requests.latest} - {""}

                # Few requests are made on a busy machine, and chance picks the faults.
                wait_until(lambda: len(faults()) == 3, lambda: str(faults()))
