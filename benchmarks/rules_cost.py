"""Prints what the alert rules and the dashboards cost a real Prometheus.

    python -m benchmarks.rules_cost [--instances 10000] [--rules FILE] [--dashboards FOLDER]

Prometheus scrapes what the exporter's own store renders for that number of live instances of five
workflows, one in fifty of them errored, and evaluates the rules every 15 s; metrics of workflows
and recorded ones have a history of a week. Printed are the least time of each rule and, for the
dashboards over 24 hours at one point a minute, the queries that load the most samples at once, next
to Prometheus' default limit of 50,000,000. Every instance has a sample at each point.
"""

import json
import math
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmarks import argument_parser
from benchmarks.scrape_cost import WORKFLOWS, World, put
from exporter.config.metrics import Metrics
from exporter.metrics.exposition import Exposition
from exporter.metrics.store import Store
from tests.exposed import show_at_once
from tests.prometheus import Prometheus, prometheus
from tools import ROOT

INTERVAL = 15
EVALUATIONS = 8
HOUR, DAY, WEEK = 3600, 86_400, 604_800
LIMIT = 50_000_000
_INSTANCE = re.compile(r'instance_id="([^"]*)"')
_CONFIG = """
global: {scrape_interval: 15s, scrape_timeout: 10s, evaluation_interval: 15s}
scrape_configs: [{job_name: workflows, static_configs: [{targets: ["ADDRESS"]}]}]
"""


def exposition(size: int) -> list[str]:
    """The lines of a scrape, comments left out; instances started within the last half hour."""
    world = World(size, datetime.now(UTC) - timedelta(minutes=30), every=1700 / size)
    store = Store(Metrics())
    shown = Exposition(store)
    for workflow in WORKFLOWS:
        store.attached(workflow)
    for index in range(size):
        put(store, *world.tracked(index))
    show_at_once(shown, store.take())
    body, _ = shown.render()
    errored = set(world.ids[::50])
    return [
        _errored(line, errored) for line in body.decode().splitlines() if not line.startswith("#")
    ]


def _errored(line: str, ids: set[str]) -> str:
    found = _INSTANCE.search(line)
    if not found or found[1] not in ids or "_instance_status{" not in line:
        return line
    series, _, _ = line.rpartition(" ")
    return f"{series} {int('errored' in series)}"


def history(lines: list[str], now: int) -> Iterator[str]:
    """In OpenMetrics: a day of each workflow series, a week of runs, an hour-old instance."""
    for line in sorted(lines):
        series, _, value = line.rpartition(" ")
        labels = 'instance="ADDRESS",job="workflows"'
        series = f"{series[:-1]},{labels}}}" if series.endswith("}") else f"{series}{{{labels}}}"
        if "instance_id=" in line:
            yield f"{series} {value} {now - DAY - HOUR}"
            continue
        week = "runs_finished" in series
        for age in range(WEEK if week else DAY, 0, -60 if week else -120):
            yield f"{series} {float(value) + (WEEK - age) / 60} {now - age}"
    began = now - WEEK
    for name in _records(now, began):
        for workflow in WORKFLOWS:
            labels = f'account="{workflow.account}",workflow="{workflow.workflow}"'
            for at in range(began, now, 60):
                yield f"{name}{{{labels}}} {_records(at, began)[name]} {at}"
    yield "# EOF"


def _records(at: int, began: int) -> dict[str, float]:
    """What recording rules would have recorded, where rules read back over it."""
    return {
        "cloudflare_workflow:data_timestamp:seconds": at // 60 * 60,
        "cloudflare_workflow:runs_completed:increase1h": 60,
        "cloudflare_workflow:runs_completed:increase30h": 1800,
        "cloudflare_workflow:runs_ended:rate5m": 1,
        "cloudflare_workflow:runs_errored:rate5m": 0.001,
        "cloudflare_workflow:runs_errored:total": at - began,
    }


@contextmanager
def served(lines: list[str]) -> Iterator[str]:
    """Serves a scrape; gives its host:port."""
    body = ("\n".join(lines) + "\n").encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - inherited
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def rule_times(server: Prometheus) -> dict[str, float]:
    """Least seconds of each rule over some evaluations: what else runs can only add to it."""
    seen: dict[str, dict[str, float]] = {}
    while min((len(times) for times in seen.values()), default=0) < EVALUATIONS:
        time.sleep(INTERVAL / 3)
        for group in server.http.get("/api/v1/rules").raise_for_status().json()["data"]["groups"]:
            for rule in group["rules"]:
                times = seen.setdefault(rule["name"], {})
                times[rule["lastEvaluation"]] = rule["evaluationTime"]
    return {name: min(list(times.values())[2:]) for name, times in seen.items()}


def filled_in(expression: str, instance_id: str) -> str:
    """A dashboard's expression with all values of its variables, but one instance."""
    values = {"__range": "1d", "__rate_interval": "5m", "instance_id": instance_id}
    return re.sub(r"\$(\w+)", lambda match: values.get(match[1], ".*"), expression)


def queries(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Titles and targets of the panels of all dashboards."""
    for path in sorted(folder.glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for inner in (panel, *panel.get("panels", [])):
                for target in inner.get("targets", []):
                    yield f"{path.stem}: {inner['title']}", target


def dashboard_costs(
    server: Prometheus, folder: Path, now: int, instance_id: str
) -> list[tuple[float, float, str, str]]:
    """Samples loaded at once (infinite: refused), seconds, panel and what the server reports."""
    found = []
    for title, target in queries(folder):
        parameters = {"query": filled_in(target["expr"], instance_id), "stats": "all"}
        path = "/api/v1/query"
        if not target.get("instant"):
            path = "/api/v1/query_range"
            parameters |= {"start": str(now - DAY), "end": str(now), "step": "60"}
        started = time.perf_counter()
        response = server.http.post(path, data=parameters, timeout=300).json()
        seconds = time.perf_counter() - started
        peak = math.inf
        if response["status"] == "success":
            peak = response["data"]["stats"]["samples"]["peakSamples"]
        found.append((peak, seconds, title, response.get("error", "")))
    return sorted(found, reverse=True)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--instances", type=int, default=10_000)
    parser.add_argument("--rules", type=Path, default=ROOT / "alerts" / "prometheus.rules.yaml")
    parser.add_argument("--dashboards", type=Path, default=ROOT / "grafana" / "dashboards")
    options = parser.parse_args()
    lines = exposition(options.instances)
    print(f"{options.instances} instances, {len(lines)} series")
    with tempfile.TemporaryDirectory() as name, served(lines) as address:
        folder, now = Path(name), int(time.time())
        text = folder / "history"
        with text.open("w") as file:
            file.writelines(line + "\n" for line in history(lines, now))
        text.write_text(text.read_text().replace("ADDRESS", address))
        command = ["promtool", "tsdb", "create-blocks-from", "openmetrics"]
        subprocess.run([*command, text, folder / "data"], check=True, stdout=subprocess.DEVNULL)
        config = _CONFIG.replace("ADDRESS", address)
        with_rules = f"{config}rule_files: [{options.rules.resolve()}]\n"
        with prometheus(folder, with_rules) as server:
            times = rule_times(server)
        for rule, seconds in sorted(times.items(), key=lambda item: -item[1]):
            print(f"{seconds * 1000:9.1f} ms  {rule}")
        print(f"{sum(times.values()) * 1000:9.1f} ms  all {len(times)} rules")
        flags = ("--query.lookback-delta=26h", "--query.timeout=5m")
        with prometheus(folder, config, *flags) as server:
            found = _INSTANCE.search("".join(lines))
            assert found
            costs = dashboard_costs(server, options.dashboards, int(time.time()), found[1])
    for peak, seconds, title, error in costs[:15]:
        print(f"{peak:14,.0f} samples {seconds:7.2f} s  {title}  {error}")
    refused = sum(peak >= LIMIT for peak, *_ in costs)
    print(f"{len(costs)} queries, {refused} past Prometheus' default limit of {LIMIT:,} samples")


if __name__ == "__main__":
    main()
