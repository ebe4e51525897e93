"""Every alert has what a person woken at night needs, and fires when it should and only then."""

import re
import subprocess
from typing import Any

import promql_parser
import pytest
import yaml

from exporter.metrics.catalogue import FAMILIES
from generate import ROOT, alerts
from tests.promql import catalogued, metrics_of
from tests.requires import requires_program

RULES = alerts.rules()
NAMES = [rule["alert"] for rule in RULES]
TESTS = ROOT / "alerts" / "tests"
RECORDED = {"cloudflare_workflow:stuck_after:seconds", "cloudflare_workflow:waiting_after:seconds"}
"""Thresholds of single workflows, which people record themselves."""

each_alert = pytest.mark.parametrize("rule", RULES, ids=NAMES)


@each_alert
class TestEachAlert:
    def test_its_expression_is_promql_over_metrics_that_exist(self, rule: dict[str, Any]) -> None:
        unknown = metrics_of(rule["expr"]) - catalogued(FAMILIES) - RECORDED - {"up"}
        assert unknown == set()

    def test_it_has_a_severity(self, rule: dict[str, Any]) -> None:
        assert rule["labels"]["severity"] in ("critical", "warning", "info")

    def test_it_says_what_and_where_and_links_its_runbook(self, rule: dict[str, Any]) -> None:
        annotations = rule["annotations"]
        assert set(annotations) == {"summary", "description", "runbook_url"}
        assert annotations["runbook_url"] == f"docs/runbooks/{rule['alert']}.md"
        assert annotations["summary"] != annotations["description"]

    def test_its_runbook_says_what_to_look_at_and_what_to_do(self, rule: dict[str, Any]) -> None:
        page = (ROOT / rule["annotations"]["runbook_url"]).read_text()
        assert page.startswith(f"# {rule['alert']}\n")
        assert re.findall("^## (.*)", page, re.MULTILINE) == [
            "Look at",
            "Do",
            "If it comes too often or too late",
        ]

    def test_its_tests_show_it_silent_firing_and_silent_again(self, rule: dict[str, Any]) -> None:
        cases = yaml.safe_load((TESTS / f"{rule['alert']}.yaml").read_text())["tests"]
        firing = [
            [bool(at["exp_alerts"]) for at in case["alert_rule_test"]]
            for case in cases
            if all(at["alertname"] == rule["alert"] for at in case["alert_rule_test"])
        ]
        assert [False, True, False] in firing

    def test_its_tests_pass(self, rule: dict[str, Any]) -> None:
        promtool = requires_program("promtool", "prometheus")
        file = TESTS / f"{rule['alert']}.yaml"
        done = subprocess.run(
            [promtool, "test", "rules", file], check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_has_nothing_to_say_about_the_rules() -> None:
    promtool = requires_program("promtool", "prometheus")
    file = ROOT / "alerts" / "prometheus.rules.yaml"
    done = subprocess.run(
        [promtool, "check", "rules", "--lint-fatal", file],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_alert_has_the_name_of_another() -> None:
    assert len(set(NAMES)) == len(NAMES)


def test_no_runbook_and_no_test_is_left_of_an_alert_that_is_gone() -> None:
    assert {path.stem for path in (ROOT / "docs" / "runbooks").glob("*.md")} == set(NAMES)
    assert {path.stem for path in TESTS.glob("*.yaml")} == set(NAMES)


def test_each_parameter_is_used() -> None:
    rules = yaml.safe_dump(yaml.safe_load(alerts.SOURCE.read_text()))
    used = set(re.findall(r"\$\{(\w+)\}", rules))
    assert used == set(alerts.parameters())


GRAFANA = [
    rule
    for group in yaml.safe_load(alerts.outputs()[alerts.GRAFANA])["groups"]
    for rule in group["rules"]
]


class TestGrafana:
    def test_it_has_the_same_alerts(self) -> None:
        assert [rule["title"] for rule in GRAFANA] == NAMES

    def test_each_has_an_id_that_grafana_takes_and_of_its_own(self) -> None:
        ids = [rule["uid"] for rule in GRAFANA]
        assert len(set(ids)) == len(ids)
        assert [i for i in ids if not re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", i)] == []

    def test_nothing_but_annotations_has_a_dollar(self) -> None:
        """Grafana puts environment variables everywhere else."""
        bare = [{**rule, "annotations": None} for rule in GRAFANA]
        assert "$" not in yaml.safe_dump(bare)

    def test_its_condition_is_true_of_whatever_the_query_finds(self) -> None:
        for rule in GRAFANA:
            query, condition = rule["data"]
            promql_parser.parse(query["model"]["expr"])
            assert query["model"]["instant"]
            assert condition["model"]["expression"] == query["refId"]
            assert condition["refId"] == rule["condition"]
            (evaluator,) = (c["evaluator"] for c in condition["model"]["conditions"])
            assert evaluator == {"type": "gt", "params": [-1]}

    def test_it_prints_the_value_of_the_query(self) -> None:
        texts = [text for rule in GRAFANA for text in rule["annotations"].values()]
        assert any("$values.A.Value" in text for text in texts)
        assert not any(re.search(r"\$value\b", text) for text in texts)
