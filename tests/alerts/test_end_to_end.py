"""From an instance that errors on Cloudflare's real engine to a person's webhook, through the
exporter, a real Prometheus and a real Alertmanager, set up as docs/alerting.md says."""

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from demo import LocalEngine
from tests.e2e.daemon import configuration, daemon
from tests.node import validator
from tests.prometheus import alertmanager, prometheus
from tests.requires import requires_program
from tests.waiting import DEADLINE, wait_until
from tools import ROOT, alert_rules

OFTEN = "global: {scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}"


def rules(*, errored_for: int) -> str:
    """The rules, whose alert of an errored instance lasts for that many seconds from its end."""
    defaults = {name: parameter["default"] for name, parameter in alert_rules.parameters().items()}
    return alert_rules.with_parameters(
        alert_rules.SOURCE.read_text().replace("${name}", ""),
        {**defaults, "erroredForSeconds": errored_for, "keepFiringSeconds": 1},
    )


def from_the_page(name: str) -> str:
    """The file of that name in docs/alerting.md."""
    block = re.compile(rf"^```yaml\n# {name}\n(.*?)^```", re.DOTALL | re.MULTILINE)
    found = block.search(alert_rules.PAGE.read_text())
    assert found, name
    return found[1]


@contextmanager
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server's host:port, and what Alertmanager sent to it, with the path it was sent to."""
    messages: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            messages.append({**json.loads(body), "path": self.path})
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - inherited
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}", messages
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.prometheus
@pytest.mark.engine
@pytest.mark.slow(60)
def test_an_instance_that_errors_reaches_a_webhook_and_so_does_the_end(
    engine: LocalEngine, tmp_path: Path
) -> None:
    workflows = [{"name": "orders", "instances": ["alert-ok", "alert-failed"]}]
    configuration(tmp_path, engine.accounts_api, api_token=engine.token, workflows=workflows)
    file = tmp_path / "rules.yaml"
    file.write_text(rules(errored_for=3600))
    with webhook() as (receiver, messages), daemon(tmp_path) as exporter:
        routes = (
            from_the_page("alertmanager.yml")
            .replace("127.0.0.1:9000", receiver)
            .replace("group_wait: 30s", "group_wait: 0s")
            .replace("group_interval: 5m", "group_interval: 1s")
        )
        with alertmanager(tmp_path, routes) as manager:
            config = (
                from_the_page("prometheus.yml")
                .replace("127.0.0.1:9734", exporter.address)
                .replace("/path/to/alerts/prometheus.rules.yaml", str(file))
                .replace("127.0.0.1:9093", manager)
            )
            with prometheus(tmp_path, f"{OFTEN}\n{config}", "--web.enable-lifecycle") as server:
                engine.create("orders", "alert-ok", "ok")
                wait_until(
                    lambda: server.query(
                        'cloudflare_workflow_instance_status{status="complete"} == 1'
                    ),
                    exporter.stderr,
                )
                now = datetime.now(UTC)
                wait_until(lambda: server.evaluated_since(now), exporter.stderr)
                firing = [labels for labels, state in server.alerts() if state == "firing"]
                assert (firing, messages) == ([], [])

                engine.create("orders", "alert-failed", "error")
                wait_until(lambda: messages, lambda: str(server.alerts()))
                (fired,) = messages[0]["alerts"]
                assert (messages[0]["path"], fired["status"]) == ("/team", "firing")
                assert (
                    fired["labels"].items()
                    >= {
                        "alertname": "CloudflareWorkflowInstanceErrored",
                        "account": "production",
                        "workflow": "orders",
                        "instance_id": "alert-failed",
                        "severity": "warning",
                    }.items()
                )
                wait_until(
                    lambda: any("at step fatal." in text for text in server.descriptions()),
                    exporter.stderr,
                )
                assert fired["annotations"]["runbook_url"].endswith(
                    "/CloudflareWorkflowInstanceErrored.md"
                )

                # An hour later, which nobody waits for.
                file.write_text(rules(errored_for=1))
                server.http.post("/-/reload").raise_for_status()
                wait_until(
                    lambda: messages[-1]["status"] == "resolved", lambda: str(server.alerts())
                )
                (ended,) = messages[-1]["alerts"]
                assert ended["labels"] == fired["labels"]


STORM = 500


@pytest.mark.prometheus
def test_a_storm_of_errors_is_one_notification(tmp_path: Path) -> None:
    """As Prometheus sends what the rules find: all at once."""
    workflow = {"account": "production", "workflow": "orders", "severity": "warning"}
    alerts_ = [
        {
            "labels": {
                **workflow,
                "alertname": "CloudflareWorkflowInstanceErrored",
                "instance_id": f"order-{n}",
            }
        }
        for n in range(STORM)
    ]
    alerts_.append({"labels": {**workflow, "alertname": "CloudflareWorkflowInstancesErrored"}})
    other = {**workflow, "workflow": "mails", "alertname": "CloudflareWorkflowInstanceErrored"}
    alerts_.append({"labels": other})
    with webhook() as (receiver, messages):
        routes = from_the_page("alertmanager.yml").replace("127.0.0.1:9000", receiver)
        with alertmanager(tmp_path, routes.replace("group_wait: 30s", "group_wait: 3s")) as manager:
            posted = httpx.post(
                f"http://{manager}/api/v2/alerts", json=alerts_, trust_env=False, timeout=DEADLINE
            )
            assert posted.is_success, posted.text
            wait_until(lambda: len(messages) >= 2, lambda: str(messages))
    found = [
        (alert["labels"]["alertname"], alert["labels"]["workflow"])
        for message in messages
        for alert in message["alerts"]
    ]
    assert sorted(found) == [
        ("CloudflareWorkflowInstanceErrored", "mails"),
        ("CloudflareWorkflowInstancesErrored", "orders"),
    ]


@pytest.mark.prometheus
def test_what_is_true_and_causes_nothing_is_never_muted(tmp_path: Path) -> None:
    """An instance that errored did so, however old the rest of its workflow's data is; and where
    alerts have the label `cluster`, one cluster's mute none of another's."""

    def alert(name: str, workflow: str, **more: str) -> dict[str, Any]:
        labels = {"alertname": name, "account": "production", "workflow": workflow}
        return {"labels": {**labels, **more}}

    stuck = alert("CloudflareWorkflowInstanceStuck", "orders", instance_id="a")
    queue = alert("CloudflareWorkflowQueueBacklog", "orders")
    errored = alert("CloudflareWorkflowInstanceErrored", "orders", instance_id="b")
    storm = {"workflow": "mails", "name": "CloudflareWorkflowInstancesErrored"}
    one = {"workflow": "mails", "name": "CloudflareWorkflowInstanceErrored", "instance_id": "c"}
    here, there = alert(**one, cluster="eu"), alert(**one, cluster="us")
    sources = [alert("CloudflareWorkflowDataStale", "orders"), alert(**storm, cluster="eu")]

    with alertmanager(tmp_path, from_the_page("alertmanager.yml")) as manager:
        url = f"http://{manager}/api/v2/alerts"
        posted = httpx.post(
            url, json=[errored, there, queue, stuck, here, *sources], trust_env=False
        )
        assert posted.is_success, posted.text

        def muted() -> list[dict[str, str]]:
            found = httpx.get(url, trust_env=False).raise_for_status().json()
            return [a["labels"] for a in found if a["status"]["inhibitedBy"]]

        def each_source_mutes() -> bool:
            return {labels["workflow"] for labels in muted()} == {"orders", "mails"}

        wait_until(each_source_mutes, lambda: str(muted()))
        expected = [a["labels"] for a in (stuck, queue, here)]
        assert sorted(muted(), key=str) == sorted(expected, key=str)


@pytest.mark.process
def test_the_operators_form_has_the_same_routes_and_inhibit_rules() -> None:
    plain = msgspec.yaml.decode(from_the_page("alertmanager.yml"))
    config = msgspec.yaml.decode(from_the_page("alertmanagerconfig.yaml"))
    with validator() as operator:
        assert operator.problems(config) == []

    def text(matcher: dict[str, str]) -> str:
        return f'{matcher["name"]}{matcher["matchType"]}"{matcher["value"]}"'

    spec = config["spec"]
    assert spec["route"]["groupBy"] == plain["route"]["group_by"]
    assert [
        {
            "source_matchers": [text(m) for m in rule["sourceMatch"]],
            "target_matchers": [text(m) for m in rule["targetMatch"]],
            "equal": rule["equal"],
        }
        for rule in spec["inhibitRules"]
    ] == plain["inhibit_rules"]


@pytest.mark.parametrize("source_or_target", ["source_matchers", "target_matchers"])
def test_each_inhibit_rule_matches_alerts_that_exist(source_or_target: str) -> None:
    names = {rule["alert"] for rule in alert_rules.rules()}
    for rule in msgspec.yaml.decode(from_the_page("alertmanager.yml"))["inhibit_rules"]:
        (matcher,) = rule[source_or_target]
        pattern = re.compile(matcher.split("=", 1)[1].lstrip("~").strip('"'))
        assert any(map(pattern.fullmatch, names)), matcher


@pytest.mark.process
@pytest.mark.parametrize("name", ["prometheus.yml", "alertmanager.yml"])
def test_each_configuration_on_the_page_is_a_valid_one(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    text = from_the_page(name)
    file.write_text(text.replace("/path/to/alerts/", f"{ROOT}/alerts/"))
    if name == "prometheus.yml":
        command = [requires_program("promtool", "prometheus"), "check", "config", str(file)]
    else:
        command = [requires_program("amtool", "prometheus-alertmanager"), "check-config", str(file)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
