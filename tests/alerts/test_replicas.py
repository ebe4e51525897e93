"""Replicas on a real PostgreSQL, scraped by a real Prometheus with the published rules: what one
watched is another's, and to those who are alerted nothing has happened."""

import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from simulator import Error, Script, Simulator, serve_in_thread, steps
from tests.e2e.daemon import Daemon, configuration, daemon
from tests.postgres import PostgresServer
from tests.prometheus import prometheus
from tests.waiting import wait_until
from tools import ROOT

pytestmark = [pytest.mark.prometheus, pytest.mark.postgres, pytest.mark.slow(20)]

WORKFLOWS = ["billing", "mails", "orders", "reports"]
OWN = "cloudflare_workflows_exporter_"
FIRING = 'ALERTS{alertname="CloudflareWorkflowInstanceErrored", alertstate="firing"}'
OFTEN = "global: {scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_a_hand_over_ends_no_alert_and_raises_none(
    number: signal.Signals, postgres: PostgresServer, tmp_path: Path
) -> None:
    simulator = Simulator(clock=time.time)
    simulator.access.token("a-token")
    world = simulator.world.account("acc")
    for name in WORKFLOWS:
        world.workflow(name).create("failed", Script(steps("charge"), throws=Error("Declined")))
    url = postgres.new_url()

    with serve_in_thread(simulator) as served, ExitStack() as running:

        def replica(name: str) -> Daemon:
            folder = tmp_path / name
            folder.mkdir()
            api = f"{served.url}/accounts/{{account_id}}"
            found = [{"name": "*", "discover": {"min_age": "0s"}}]
            shared = {"state": {"url": url}, "replica": {"name": name, "lease": "5s"}}
            configuration(folder, api, shared, api_token="a-token", workflows=found)
            return running.enter_context(daemon(folder, "--poll.ended-interval=1s"))

        one, other = replica("one"), replica("other")

        def held(by: Daemon, workflows: int) -> bool:
            return f"\n{OWN}workflows_held {workflows}\n" in by.metrics()

        wait_until(lambda: held(one, 2) and held(other, 2), other.stderr)
        config = (
            f"{OFTEN}\nscrape_configs: [{{job_name: workflows, static_configs: "
            f"[{{targets: ['{one.address}', '{other.address}']}}]}}]\n"
            f"rule_files: [{ROOT}/alerts/prometheus.rules.yaml]\n"
        )
        server = running.enter_context(prometheus(tmp_path, config))
        wait_until(lambda: len(server.query(FIRING)) == 4, lambda: str(server.alerts()))
        wait_until(lambda: len(server.query("cloudflare_workflow:runs_ended:max")) == 4, str)

        one.stop(number)
        wait_until(lambda: held(other, 4), other.stderr)
        world.workflow("orders").create("ok", Script(steps("charge")))
        ended = "sum(increase(cloudflare_workflow:runs_completed:max[1m])) > 0"
        wait_until(lambda: server.query(ended), other.stderr)
        wait_until(lambda: len(server.query("cloudflare_workflow_up == 1")) == 4, other.stderr)

        since = "ALERTS_FOR_STATE{alertname='CloudflareWorkflowInstanceErrored'}[2m]"
        assert [v for _, v in server.query(f"changes({since})")] == [0.0] * 4
        fired = server.query('ALERTS{alertstate="firing"}')
        assert {labels["alertname"] for labels, _ in fired} == {"CloudflareWorkflowInstanceErrored"}
        falls = server.query("resets(cloudflare_workflow:runs_ended:max[2m])")
        assert [value for _, value in falls] == [0.0] * 4
