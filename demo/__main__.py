"""Watches sample workflows on Cloudflare's own engine, run on this machine.

    python -m demo [--with=prometheus] [the exporter's flags]
    python -m demo --build

Starts the engine and an exporter that watches it, and acts on the samples until it is stopped.
With `--build` it only builds the engine, for which Node.js is needed.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TextIO

import httpx
from prometheus_client.parser import text_string_to_metric_families

from demo.build_engine import build
from demo.child_process import child_process
from demo.local_engine import EngineError, LocalEngine
from demo.node_packages import NodeError
from demo.prometheus import (
    Monitoring,
    MonitoringError,
    free_address,
    monitoring,
)
from demo.sample_instances import SAMPLES, Sample, SampleDriver

MOVE_INTERVAL = 2.0
REPORT_INTERVAL = 5.0

PORT = 9734
QUERY = "cloudflare_workflow_instance_error_info"

WELCOME = """
Sample workflows run on Cloudflare's own engine, on this machine. The exporter watches them:

{addresses}

Try:

  What has failed, with which error, and at which step:
    curl -s http://{address}/metrics | grep ^{QUERY}

  Why demo-exhaust fails again and again, with its steps and their attempts:
    http://{address}/instance?account=local&workflow=orders&id=demo-exhaust

  {query}

  Your own account:
    CLOUDFLARE_API_TOKEN=... CLOUDFLARE_ACCOUNT_ID=... make run

Ctrl-C stops everything. How many instances are in which status:
"""
IN_ANY_PROMETHEUS = f"""A query, for Prometheus (`make run DEMO=prometheus` starts one):
    {QUERY}"""
IN_PROMETHEUS = f"""A query, and the alerts, which take some minutes:
    http://{{0}}/graph?g0.expr={QUERY}&g0.tab=1
    http://{{0}}/alerts"""
NOT_INSTALLED = "not installed; on Debian and Ubuntu: apt-get install"


def welcome(address: str, monitoring: Monitoring | None) -> str:
    """The addresses, and commands to try; `monitoring` is None unless it was requested."""
    addresses = {"page": f"http://{address}/", "metrics": f"http://{address}/metrics"}
    query = IN_ANY_PROMETHEUS
    if monitoring is not None:
        addresses["Prometheus"] = f"{NOT_INSTALLED} prometheus"
        addresses["Alertmanager"] = f"{NOT_INSTALLED} prometheus-alertmanager"
        if monitoring.prometheus:
            addresses["Prometheus"] = f"http://{monitoring.prometheus}/"
            query = IN_PROMETHEUS.format(monitoring.prometheus)
        if monitoring.alertmanager:
            addresses["Alertmanager"] = f"http://{monitoring.alertmanager}/"
    lines = (f"  {name:<13} {where}" for name, where in addresses.items())
    return WELCOME.format(addresses="\n".join(lines), address=address, QUERY=QUERY, query=query)


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
    """How many instances of each workflow are in each status, on `/metrics`."""
    counts: dict[str, Counter[str]] = {}
    for family in text_string_to_metric_families(exposition):
        if family.name == "cloudflare_workflow_instance_status":
            for sample in family.samples:
                if sample.value == 1:
                    counter = counts.setdefault(sample.labels["workflow"], Counter())
                    counter[sample.labels["status"]] += 1
    return counts


class Reporter:
    """Shows a line whenever the statuses on `/metrics` have changed."""

    def __init__(self, address: str, welcome: str) -> None:
        self._address = address
        self._welcome = welcome
        self._last: dict[str, Counter[str]] = {}

    def report(self) -> None:
        try:
            response = httpx.get(f"http://{self._address}/metrics", trust_env=False)
        except httpx.TransportError:
            return  # it is still starting
        counts = statuses(response.text) if response.is_success else {}
        if not counts or counts == self._last:
            return
        if not self._last:
            print(self._welcome, flush=True)
        self._last = counts
        workflows = (
            f"{workflow}: " + ", ".join(f"{n} {status}" for status, n in sorted(counter.items()))
            for workflow, counter in sorted(counts.items())
        )
        show("  ".join([time.strftime("%H:%M:%S"), *workflows]), sys.stdout)


def show(line: str, stream: TextIO) -> None:
    """Writes a line; on a terminal, in the place of the one before."""
    if stream.isatty():
        width = shutil.get_terminal_size().columns - 1
        print(f"\r{line[:width]}\x1b[K", end="", file=stream, flush=True)
    else:
        print(line, file=stream, flush=True)


def run(
    address: str, exporter_flags: list[str], stopping: threading.Event, *, with_prometheus: bool
) -> int:
    """Runs the demo until `stopping` is set or the exporter ends; returns its exit status."""
    with (
        LocalEngine.start() as engine,
        TemporaryDirectory(prefix="workflows-demo-") as name,
        monitoring(Path(name), address) if with_prometheus else nullcontext() as beside,
    ):
        config = Path(name) / "config.yaml"
        config.write_text(configuration(engine.api, config.parent))
        with child_process(
            *(sys.executable, "-m", "exporter"),
            f"--config.file={config}",
            f"--web.listen-address={address}",
            *exporter_flags,
        ) as exporter:
            watch(engine, exporter, Reporter(address, welcome(address, beside)), stopping)
        return exporter.wait()


def watch(
    engine: LocalEngine,
    exporter: subprocess.Popen[bytes],
    reporter: Reporter,
    stopping: threading.Event,
) -> None:
    """Acts on the samples and reports on them while both processes run."""
    driver = SampleDriver(engine)
    for _ in SAMPLES:
        driver.advance()  # at first each is created
    next_report = time.monotonic()
    while not stopping.wait(MOVE_INTERVAL) and exporter.poll() is None:
        driver.advance()
        if time.monotonic() >= next_report:
            reporter.report()
            next_report = time.monotonic() + REPORT_INTERVAL


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m demo", allow_abbrev=False)
    parser.add_argument("--web.listen-address", dest="address")
    parser.add_argument("--build", action="store_true")
    parser.add_argument("--with", choices=["prometheus"], dest="beside")
    arguments, exporter_flags = parser.parse_known_args()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a build without a traceback
    # What the user set for their own exporter ranks above the demo's configuration.
    for name in [n for n in os.environ if n.upper().startswith(("CWE_", "CLOUDFLARE_"))]:
        del os.environ[name]
    try:
        build()
        if arguments.build:
            return 0
        stopping = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: stopping.set())
        address = arguments.address or free_address(PORT)
        if not arguments.address and not address.endswith(f":{PORT}"):
            print(f"Port {PORT} is in use; this demo takes another.", flush=True)
        print("Starting Cloudflare's local Workflows engine …", flush=True)
        return run(
            address, exporter_flags, stopping, with_prometheus=arguments.beside == "prometheus"
        )
    except (EngineError, NodeError, MonitoringError, OSError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
