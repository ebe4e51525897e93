"""What a page has people type, write or ask works as it stands there."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from exporter.config import load as config
from exporter.config.settings import Settings
from exporter.metrics.catalogue import FAMILIES
from simulator import Error, Script, Simulator, Wait, serve_in_thread, steps
from tests.docs.pages import Block, everywhere
from tests.docs.walk import ELSEWHERE, walk
from tests.e2e.daemon import configuration, daemon
from tests.prometheus import prometheus
from tests.promql import catalogued, metrics_of
from tests.requires import requires_program
from tests.waiting import wait_until
from tools import ROOT

ACCOUNT = "023e105f4ecef8ad9ca31a8372d0c353"
RECORDED = {
    rule["record"]
    for group in msgspec.yaml.decode((ROOT / "alerts/prometheus.rules.yaml").read_text())["groups"]
    for rule in group["rules"]
    if "record" in rule
}
BY_PROMETHEUS = {"up", "scrape_duration_seconds"}


@pytest.fixture
def account() -> Iterator[Simulator]:
    """The account of whoever reads the pages."""
    simulator = Simulator()
    simulator.access.token("...")
    simulator.limit.quota = 1200
    world = simulator.world.account(ACCOUNT)
    orders, billing = world.workflow("orders"), world.workflow("billing")
    orders.create("order-1", Script(pieces=(*steps("pay"), Wait("approval"))))
    orders.create("order-2", Script(steps("pay", duration=0), throws=Error("TypeError")))
    for name in ("invoice-1001", "invoice-1002"):
        billing.create(name, Script(pieces=(Wait("payment"),)))
    with serve_in_thread(simulator) as served:
        yield served


@pytest.mark.process
@pytest.mark.parametrize("page", ["README.md", "docs/getting-started.md"])
def test_what_a_page_says_can_be_done_from_beginning_to_end(
    page: str, account: Simulator, tmp_path: Path
) -> None:
    requires_program("make", "make")
    requires_program("curl", "curl")
    with walk(tmp_path, account.url + "/accounts/{account_id}") as reader:
        reader.along(ROOT / page)
    assert reader.done
    assert account.requests.total
    assert (ROOT / page).read_text().count("```sh\n") == len(reader.done + reader.elsewhere)


@pytest.mark.parametrize("begin", ELSEWHERE)
def test_what_is_run_elsewhere_is(begin: str) -> None:
    assert "def test_" in (ROOT / ELSEWHERE[begin]).read_text()


@pytest.mark.process
@pytest.mark.parametrize("block", everywhere("sh"), ids=str)
def test_commands_are_right_for_the_shell(block: Block) -> None:
    done = subprocess.run(
        ["bash", "-n"], input=block.text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("block", everywhere("promql"), ids=str)
def test_queries_ask_for_metrics_that_there_are(block: Block) -> None:
    known = catalogued(FAMILIES) | RECORDED | BY_PROMETHEUS
    assert metrics_of(block.text) - known == set()


def _tree(block: Block) -> Any:
    return msgspec.yaml.decode(block.text)


CONFIGURATIONS = [
    block
    for block in everywhere("yaml")
    if isinstance(_tree(block), dict) and set(_tree(block)) <= set(Settings.model_fields)
]


@pytest.mark.parametrize("block", everywhere("yaml"), ids=str)
def test_yaml_can_be_read(block: Block) -> None:
    assert _tree(block)


@pytest.mark.parametrize("block", CONFIGURATIONS, ids=str)
def test_configurations_are_taken(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.startswith(("CWE_", "CLOUDFLARE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CLOUDFLARE_API_TOKEN", "token")
    (tmp_path / "config.yaml").write_text(block.text)
    workflow = {"name": "orders", "discover": {}}
    account = {"account_id": "acc", "api_token": "token", "workflows": [workflow]}
    if "accounts" not in _tree(block):
        monkeypatch.setenv("CWE_ACCOUNTS", json.dumps([account]))
    assert config.load(tmp_path / "config.yaml", {}, os.environ)


def test_some_pages_have_configurations() -> None:
    pages = {block.page.name for block in CONFIGURATIONS}
    assert {"README.md", "getting-started.md", "configuration.md"} <= pages


@pytest.mark.process
@pytest.mark.parametrize(
    "block", [b for b in everywhere("yaml") if "scrape_configs" in _tree(b)], ids=str
)
def test_scrape_configurations_are_taken_by_prometheus(block: Block, tmp_path: Path) -> None:
    promtool = requires_program("promtool", "prometheus")
    (tmp_path / "prometheus.yml").write_text(block.text)
    done = subprocess.run(
        [promtool, "check", "config", "--syntax-only", "prometheus.yml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.prometheus
def test_recipes_are_answered_by_a_real_prometheus(account: Simulator, tmp_path: Path) -> None:
    """Nor is it an error that Prometheus has each series twice, as when a pod is replaced."""
    token = {"api_token": "...", "account_id": ACCOUNT}
    workflows: list[dict[str, Any]] = [
        {"name": name, "discover": {"min_age": "0s"}} for name in ("orders", "billing")
    ]
    configuration(tmp_path, account.url + "/accounts/{account_id}", workflows=workflows, **token)
    with daemon(tmp_path) as exporter:
        exporter.wait_until_ready()
        target = f"static_configs: [{{targets: ['{exporter.address}']}}]"
        jobs = ", ".join(f"{{job_name: {name}, {target}}}" for name in ("one", "other"))
        scrape = f"global: {{scrape_interval: 1s}}\nscrape_configs: [{jobs}]\n"
        with prometheus(tmp_path, scrape) as server:
            recipes = [b.text for b in everywhere("promql")]
            assert len(recipes) > 20
            wait_until(lambda: len(server.query("up == 1")) == 2, exporter.stderr)
            # On a busy machine a scrape may take longer than Prometheus waits.
            wait_until(
                lambda: sum(bool(server.query(recipe)) for recipe in recipes) > 10,
                exporter.stderr,
            )
