"""Watches sample workflows on Cloudflare's own engine, run on this machine.

    python -m upstreams.local_engine.demo [--web.listen-address=HOST:PORT] [the exporter's flags]

Starts the engine, an exporter that watches it, and keeps the samples moving until it is stopped.
"""

import argparse
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from prometheus_client.parser import text_string_to_metric_families

from upstreams.local_engine.engine import EngineError, LocalEngine
from upstreams.local_engine.node import NodeError
from upstreams.local_engine.samples import SAMPLES, Mover, Sample

MOVE_INTERVAL = 2.0
REPORT_INTERVAL = 5.0
STOP_TIMEOUT = 15.0

WELCOME = """
Sample workflows run on Cloudflare's own engine on this machine, and the exporter watches them:

    http://{address}/metrics

    curl -s http://{address}/metrics | grep '^cloudflare_workflow_instance_status.* 1'

Ctrl-C stops everything.
"""


def configuration(api_url: str, folder: Path, samples: Iterable[Sample] = SAMPLES) -> str:
    """An exporter's configuration that watches the samples. (JSON, which is YAML.)"""
    instances: dict[str, list[str]] = {}
    for sample in samples:
        instances.setdefault(sample.workflow, []).append(sample.instance_id)
    tree = {
        "api": {"url": api_url, "requests_per_5m": 1_000_000},
        "accounts": [
            {
                "name": "local",
                "workflows": [{"name": n, "instances": ids} for n, ids in instances.items()],
            }
        ],
        "poll": {"interval": "5s", "detail_refresh": "10s", "ended_interval": "5s"},
        "state": {"path": str(folder / "state.db")},
        "log": {"level": "warning"},
    }
    return json.dumps(tree, indent=2)


def statuses(exposition: str) -> dict[str, Counter[str]]:
    """How many instances of each workflow are in each status, as `/metrics` says."""
    counts: dict[str, Counter[str]] = {}
    for family in text_string_to_metric_families(exposition):
        if family.name == "cloudflare_workflow_instance_status":
            for sample in family.samples:
                if sample.value == 1:
                    counter = counts.setdefault(sample.labels["workflow"], Counter())
                    counter[sample.labels["status"]] += 1
    return counts


class Reporter:
    """Prints a line whenever the statuses on `/metrics` have changed."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._last: dict[str, Counter[str]] = {}

    def report(self) -> None:
        try:
            answer = httpx.get(f"http://{self._address}/metrics", trust_env=False)
        except httpx.TransportError:
            return  # it is still starting
        counts = statuses(answer.text)
        if not counts or counts == self._last:
            return
        if not self._last:
            print(WELCOME.format(address=self._address), flush=True)
        self._last = counts
        workflows = (
            f"{workflow}: " + ", ".join(f"{n} {status}" for status, n in sorted(counter.items()))
            for workflow, counter in sorted(counts.items())
        )
        print(time.strftime("%H:%M:%S"), "  ".join(workflows), sep="  ", flush=True)


def run(address: str, exporter_flags: list[str], stopping: threading.Event) -> int:
    """Runs the demo until `stopping` is set or the exporter ends; returns its exit status."""
    with LocalEngine.start() as engine, TemporaryDirectory(prefix="workflows-demo-") as name:
        config = Path(name) / "config.yaml"
        config.write_text(configuration(engine.api, config.parent))
        exporter = subprocess.Popen(
            [
                *(sys.executable, "-m", "exporter"),
                f"--config.file={config}",
                f"--web.listen-address={address}",
                *exporter_flags,
            ],
            process_group=0,  # so that Ctrl-C reaches it once: through us
        )
        try:
            watch(engine, exporter, Reporter(address), stopping)
        finally:
            exporter.terminate()
            try:
                status = exporter.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                exporter.kill()
                status = exporter.wait()
        return status


def watch(
    engine: LocalEngine,
    exporter: subprocess.Popen[bytes],
    reporter: Reporter,
    stopping: threading.Event,
) -> None:
    """Moves the samples and reports on them while both processes run."""
    mover = Mover(engine)
    for _ in SAMPLES:
        mover.move()  # at first each is created
    next_report = time.monotonic()
    while not stopping.wait(MOVE_INTERVAL) and exporter.poll() is None:
        mover.move()
        if time.monotonic() >= next_report:
            reporter.report()
            next_report = time.monotonic() + REPORT_INTERVAL


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m upstreams.local_engine.demo")
    parser.add_argument("--web.listen-address", dest="address", default="127.0.0.1:9734")
    arguments, exporter_flags = parser.parse_known_args()
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stopping.set())
    print("Starting Cloudflare's local Workflows engine …", flush=True)
    try:
        return run(arguments.address, exporter_flags, stopping)
    except (EngineError, NodeError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
