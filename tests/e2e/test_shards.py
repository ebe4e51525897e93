"""Several exporters that share the work: together they show and count what one alone would.

They keep no state here: each starts its counters at zero.
"""

import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from simulator import (
    Error,
    Instance,
    ManualClock,
    Script,
    Simulator,
    Sleep,
    Step,
    Wait,
    Workflow,
    retried,
    serve_in_thread,
    steps,
)
from tests.e2e.daemon import (
    DEADLINE,
    Daemon,
    command,
    configuration,
    daemon,
    environment,
    run,
    wait_until,
)
from tests.e2e.scrape import Samples, differences, samples

pytestmark = pytest.mark.process

SCRIPTS = (
    Script(steps("fetch", "store")),
    Script((retried("charge", failures=2), Wait("approval"))),
    Script((retried("charge", failures=3, succeeds=False),), throws=Error("TypeError", "no")),
    Script((*steps("fetch"), Sleep("nap", 3600))),
    Script((Step("pack"), Step("ship")), queued=10_000),
)
# Of each process, or of the moment at which it looked.
OWN = (
    "cloudflare_workflow_up",
    "cloudflare_workflow_last_success_timestamp_seconds",
    "cloudflare_workflow_data_timestamp_seconds",
)
TIMED = "cloudflare_workflow_instance_last_change_timestamp_seconds"
PLATFORM = (
    "cloudflare_workflow_instances",
    "cloudflare_workflow_step_limit",
    "cloudflare_workflow_concurrency_limit",
)
FINISHED = "cloudflare_workflow_runs_finished_total"
STATUS = "cloudflare_workflow_instance_status"
STEPS = "cloudflare_workflow_step_duration_seconds_count"


@pytest.fixture
def clock() -> ManualClock:
    """The API's time, which stands still, so that all look at the same moment."""
    return ManualClock(time.time())


@pytest.fixture
def simulator(clock: ManualClock) -> Iterator[Simulator]:
    simulator = Simulator(clock=clock)
    simulator.access.token("secret")
    simulator.world.account("acc").workflow("orders").release(step_limit=100, concurrency=9)
    with serve_in_thread(simulator) as served:
        yield served


@pytest.fixture
def orders(simulator: Simulator) -> Workflow:
    return simulator.world.account("acc").workflow("orders")


def watched(folder: Path, simulator: Simulator, *workflows: dict[str, Any]) -> Path:
    """The configuration that all of the processes share."""
    url = simulator.url + "/accounts/{account_id}"
    return configuration(folder, url, api_token="secret", workflows=list(workflows))


@contextmanager
def shards(config: Path, count: int, *flags: str) -> Iterator[list[Daemon]]:
    """Runs that many exporters, each in a folder of its own, until they are ready."""
    with ExitStack() as stack:
        running = []
        for index in range(count):
            folder = config.parent / f"{index}-of-{count}"
            folder.mkdir()
            own = [f"--shard.index={index}", f"--shard.count={count}", "--state.path=null"]
            running.append(
                stack.enter_context(daemon(folder, f"--config.file={config}", *own, *flags))
            )
        for process in running:
            process.wait_until_ready()
        yield running


def shown(exposition: str) -> Samples:
    """Samples that don't depend on which process shows them, and when."""
    found = samples(exposition, "cloudflare_workflow_")
    return {key: v for key, v in found.items() if key[0] not in (*OWN, TIMED)}


def together(running: list[Daemon]) -> Samples:
    """What all of them show, added up."""
    added: Samples = {}
    for process in running:
        for key, v in shown(process.metrics()).items():
            added[key] = added.get(key, 0) + v
    return added


def total(process: Daemon, name: str, **labels: str) -> float:
    """The samples with these labels among their own, added up."""
    found = shown(process.metrics()).items()
    return sum(v for (n, own), v in found if n == name and labels.items() <= own)


def test_they_show_each_instance_once_and_their_counters_and_histograms_add_up(
    tmp_path: Path, simulator: Simulator, clock: ManualClock, orders: Workflow
) -> None:
    billing = simulator.world.account("acc").workflow("billing")
    for n in range(60):
        for workflow in (orders, billing):
            workflow.create(f"i-{n}", SCRIPTS[n % len(SCRIPTS)], at=clock() - 600 - n)
    config = watched(
        tmp_path,
        simulator,
        {
            "name": "orders",
            "discover": {"min_age": "0s", "statuses": ["running", "errored", "complete"]},
        },
        {"name": "billing", "instances": [f"i-{n}" for n in range(70)]},
    )
    alone = run(tmp_path, "--once", f"--config.file={config}", "--metrics.backfill=true")
    assert alone.returncode == 0, alone.stderr
    expected = shown(alone.stdout)
    assert len(expected) > 2000
    with shards(config, 3, "--metrics.backfill=true") as running:
        wait_until(
            lambda: not differences(together(running), expected),
            lambda: "\n".join(differences(together(running), expected)[:20]),
        )
        seen: Counter[object] = Counter()
        for process in running:
            own = shown(process.metrics())
            seen.update(k for k in own if "instance_id" in dict(k[1]) or k[0] in PLATFORM)
            assert any("instance_id" in dict(labels) for _, labels in own)
        assert [key for key, times in seen.items() if times > 1] == []


def ended(running: list[Daemon]) -> float:
    """Runs that were counted, over all of them."""
    return sum(total(process, FINISHED) for process in running)


class TestTheHostsName:
    """`shard.index: auto`, on hosts that are called as Kubernetes calls the pods."""

    @staticmethod
    def check(folder: Path, hostname: str) -> subprocess.CompletedProcess[str]:
        if os.geteuid():
            pytest.skip("giving a process a host name of its own needs root")
        config = configuration(folder, "http://127.0.0.1:1")
        flags = (f"--config.file={config}", "--shard.index=auto", "--shard.count=3")
        named = 'echo "$0" > /proc/sys/kernel/hostname && exec "$@"'
        return subprocess.run(
            ["unshare", "--uts", "sh", "-c", named, hostname, *command("--check-config", *flags)],
            check=False,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )

    def test_each_pod_finds_its_place(self, tmp_path: Path) -> None:
        plans = [self.check(tmp_path, f"exporter-{n}").stdout for n in range(3)]
        assert [re.findall("^shard . of .", plan, re.MULTILINE) for plan in plans] == [
            [f"shard {n} of 3"] for n in range(3)
        ]

    def test_a_pod_too_many_ends_and_says_why(self, tmp_path: Path) -> None:
        """`kubectl scale` made it, and it would watch what another one watches."""
        refused = self.check(tmp_path, "exporter-3")
        assert refused.returncode == 2
        assert "shard.index: auto takes a number from 0 to 2 from the end of" in refused.stderr


class TestResharding:
    """From two to three, as docs/kubernetes.md tells it: all stop, then all start anew."""

    def test_nothing_is_counted_twice_and_all_that_ended_while_watched_is_counted(
        self, tmp_path: Path, simulator: Simulator, clock: ManualClock, orders: Workflow
    ) -> None:
        runs = [orders.create(f"i-{n}", Script((Wait("approval"),))) for n in range(60)]
        config = watched(tmp_path, simulator, {"name": "orders", "discover": {"min_age": "0s"}})
        thirds = [runs[n::3] for n in range(3)]
        with shards(config, 2) as running:
            end(clock, thirds[0])
            wait_until(lambda: ended(running) == 20, lambda: f"{ended(running)} ended")
        end(clock, thirds[1])
        with shards(config, 3, "--shard.previous-count=2") as running:
            end(clock, thirds[2])
            wait_until(lambda: ended(running) >= 20, lambda: f"{ended(running)} ended")
            orders.create("last", Script((Wait("approval"),)))
            wait_until(lambda: shows(running, "last"), lambda: "it wasn't seen")
            assert ended(running) == 20

    def test_where_all_that_had_ended_counts_that_of_moved_ones_does_not(
        self, tmp_path: Path, simulator: Simulator, clock: ManualClock, orders: Workflow
    ) -> None:
        """All that the third one watches the other two had, and counted."""
        for n in range(30):
            orders.create(f"i-{n}", Script(steps("fetch")), at=clock() - 60)
        ids = [f"i-{n}" for n in range(30)]
        config = watched(tmp_path, simulator, {"name": "orders", "instances": ids})
        with shards(config, 3, "--shard.previous-count=2") as running:
            complete = [total(process, STATUS, status="complete") for process in running]
            assert sum(complete) == 30
            assert complete[2] > 0
            assert [total(process, FINISHED) for process in running] == [*complete[:2], 0]
            assert [total(process, STEPS) for process in running] == [*complete[:2], 0]


def end(clock: ManualClock, runs: list[Instance]) -> None:
    """Ends runs now, by the time that the exporters go by."""
    clock.advance(time.time() - clock())
    for one in runs:
        one.terminate()


def shows(running: list[Daemon], instance_id: str) -> bool:
    return any(("instance_id", instance_id) in ls for _, ls in together(running))
