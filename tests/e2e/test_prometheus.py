"""A real Prometheus scrapes an exporter that watches Cloudflare's real engine."""

import math
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest

from demo import LocalEngine
from tests.e2e.daemon import Daemon, configuration, daemon
from tests.prometheus import Prometheus
from tests.prometheus import prometheus as running_prometheus
from tests.requires import requires_program
from tests.waiting import wait_until

pytestmark = pytest.mark.engine

SCENARIOS = {
    "prom-complete": ("ok", "complete"),
    "prom-failed": ("error", "errored"),
    "prom-thrown": ("throw", "errored"),
    "prom-caught": ("caught", "complete"),
    "prom-sleeping": ("sleep", "running"),
}
ERRORED = {"prom-failed", "prom-thrown"}


@pytest.fixture(scope="module")
def exporter(engine: LocalEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Watches five instances of `orders`, each in the state to which it comes."""
    for instance_id, (scenario, _) in SCENARIOS.items():
        engine.create("orders", instance_id, scenario)
    for instance_id, (_, status) in SCENARIOS.items():
        engine.wait_for("orders", instance_id, status)
    folder = tmp_path_factory.mktemp("exporter")
    workflows = [{"name": "orders", "instances": list(SCENARIOS)}]
    configuration(folder, engine.accounts_api, api_token=engine.token, workflows=workflows)
    with daemon(folder) as running:
        running.wait_until_ready()
        yield running


@pytest.fixture(scope="module")
def prometheus(exporter: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    config = (
        # A scrape that times out, as on a busy machine, would end all series for a moment.
        "global: {scrape_interval: 5s, scrape_timeout: 5s}\n"
        "scrape_configs:\n"
        "- job_name: workflows\n"
        f"  static_configs: [{{targets: ['{exporter.address}']}}]\n"
    )
    with running_prometheus(tmp_path_factory.mktemp("prometheus"), config) as server:
        scraped: list[float] = []

        def succeeded() -> bool:
            scraped.extend(at for _, at in server.query("timestamp(up) * (up == 1)"))
            return bool(scraped)

        wait_until(succeeded, exporter.stderr)
        # On a busy machine a later scrape may take longer than Prometheus waits.
        yield replace(server, at=scraped[0])


@pytest.mark.prometheus
class TestPrometheus:
    def test_it_takes_what_the_exporter_shows(
        self, prometheus: Prometheus, exporter: Daemon
    ) -> None:
        ((labels, up),) = prometheus.query("up")
        assert (labels["instance"], up) == (exporter.address, 1)
        ((_, series),) = prometheus.query("scrape_samples_scraped")
        assert series > 100

    def test_a_query_for_errored_instances_finds_just_those(self, prometheus: Prometheus) -> None:
        found = prometheus.query('cloudflare_workflow_instance_status{status="errored"} == 1')
        assert {labels["instance_id"] for labels, _ in found} == ERRORED
        assert {labels["workflow"] for labels, _ in found} == {"orders"}
        assert {labels["account"] for labels, _ in found} == {"production"}

    def test_an_error_names_the_step_it_happened_at(self, prometheus: Prometheus) -> None:
        found = prometheus.query("cloudflare_workflow_instance_error_info")
        steps = {labels["instance_id"]: labels.get("step", "") for labels, _ in found}
        assert steps == {"prom-failed": "fatal", "prom-thrown": ""}

    @pytest.mark.parametrize("what", ["run", "queue", "step", "step_attempt"])
    def test_a_quantile_of_each_duration_is_a_number(
        self, prometheus: Prometheus, what: str
    ) -> None:
        buckets = f"cloudflare_workflow_{what}_duration_seconds_bucket"
        ((_, seconds),) = prometheus.query(
            f"histogram_quantile(0.9, sum by (le) ({buckets}{{workflow='orders'}}))"
        )
        assert math.isfinite(seconds)
        assert seconds >= 0

    def test_the_age_of_a_run_follows_from_its_start(self, prometheus: Prometheus) -> None:
        ((labels, age),) = prometheus.query(
            "time() - cloudflare_workflow_instance_start_timestamp_seconds"
            " unless on (instance_id) cloudflare_workflow_instance_end_timestamp_seconds"
        )
        assert labels["instance_id"] == "prom-sleeping"
        assert age > 0

    def test_counts_of_runs_agree_with_the_instances(self, prometheus: Prometheus) -> None:
        found = prometheus.query("cloudflare_workflow_runs_finished_total")
        counts = {labels["status"]: value for labels, value in found}
        assert counts == {"complete": 2, "errored": 2, "terminated": 0}


@pytest.mark.parametrize("accept", ["text/plain", "*/*"])
def test_promtool_has_nothing_to_say_about_the_exposition(exporter: Daemon, accept: str) -> None:
    promtool = requires_program("promtool", "prometheus")
    text = exporter.http.get("/metrics", headers={"Accept": accept}).text
    done = subprocess.run(
        [promtool, "check", "metrics"], check=False, input=text, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
