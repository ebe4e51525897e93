"""Every alert has what a person woken at night needs, and fires when it should and only then."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import promql_parser
import pytest
import yaml
from pydantic import SecretStr

from exporter.metrics.catalogue import FAMILIES
from exporter.state.backend import DatabaseServer
from tests.alerts.cases import (
    THRESHOLDS,
    failed_scrapes,
    firing,
    hand_overs,
    of_two_targets,
    together,
)
from tests.alerts.emitted import CLOSED, TARGET, emitted
from tests.grafana.queries import annotations, expressions, filled_in
from tests.helm.chart import SMALLEST, render
from tests.postgres import PostgresServer
from tests.promql import catalogued, metrics_of
from tests.requires import requires_program
from tests.waiting import DEADLINE
from tools import ROOT, alert_rules, grafana_dashboards

RULES = alert_rules.rules()
NAMES = [rule["alert"] for rule in RULES]
TESTS = ROOT / "alerts" / "tests"
RUNBOOKS = f"{alert_rules.repository()}/blob/main/docs/runbooks"
OF_WORKFLOWS = [rule for rule in RULES if "keep_firing_for" in rule]
RECORDS = alert_rules.records()
OF_TARGETS = {"up", "process_start_time_seconds"}
KNOWN = catalogued(FAMILIES) | set(RECORDS) | THRESHOLDS | OF_TARGETS | {"ALERTS"}


def files_of(rule: dict[str, Any]) -> list[dict[str, Any]]:
    """An alert's files of tests; one of `.hours.yaml` or `.days.yaml` has fewer evaluations, one of
    `.scrapes.yaml` more."""
    paths = sorted(TESTS.glob(f"{rule['alert']}.*yaml"))
    return [msgspec.yaml.decode(path.read_text()) for path in paths]


def cases_of(rule: dict[str, Any], folder: Path) -> Iterator[dict[str, Any]]:
    """An alert's files of tests, over the rules that each needs: promtool evaluates all that are
    there at each step. The rules are written to `folder`."""
    for tests in files_of(rule):
        alerts = {at["alertname"] for case in tests["tests"] for at in case["alert_rule_test"]}
        (folder / "rules.yaml").write_text(yaml.safe_dump(published(alerts), sort_keys=False))
        yield {**tests, "rule_files": ["rules.yaml"]}


def published(names: set[str]) -> dict[str, Any]:
    """The published rules of alerts, with the recording rules that these read."""
    todo, needed = [rule["expr"] for rule in RULES if rule["alert"] in names], set(names)
    while todo:
        new = (metrics_of(todo.pop()) & RECORDS.keys()) - needed
        todo += [RECORDS[name] for name in new]
        needed |= new
    file = msgspec.yaml.decode((ROOT / "alerts" / "prometheus.rules.yaml").read_text())
    for group in file["groups"]:
        group["rules"] = [r for r in group["rules"] if (r.get("alert") or r["record"]) in needed]
    return {"groups": [group for group in file["groups"] if group["rules"]]}


def passes(tests: dict[str, Any], folder: Path) -> None:
    promtool = requires_program("promtool", "prometheus")
    (folder / "tests.yaml").write_text(yaml.dump(tests, Dumper=yaml.CSafeDumper))
    done = subprocess.run(
        [promtool, "test", "rules", folder / "tests.yaml"],
        # A quarter of its work would be to collect what it drops at its end.
        env={**os.environ, "GOGC": "off", "GOMEMLIMIT": "512MiB"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


each_alert = pytest.mark.parametrize("rule", RULES, ids=NAMES)


@each_alert
class TestEachAlert:
    def test_its_expression_is_promql_over_metrics_that_exist(self, rule: dict[str, Any]) -> None:
        assert metrics_of(rule["expr"]) - KNOWN == set()

    def test_it_has_a_severity(self, rule: dict[str, Any]) -> None:
        assert rule["labels"]["severity"] in ("critical", "warning", "info")

    def test_it_says_what_and_where_and_links_its_runbook(self, rule: dict[str, Any]) -> None:
        annotations = rule["annotations"]
        assert set(annotations) == {"summary", "description", "runbook_url"}
        assert annotations["runbook_url"] == f"{RUNBOOKS}/{rule['alert']}.md"
        assert annotations["summary"] != annotations["description"]

    def test_its_runbook_has_the_headings_that_all_have(self, rule: dict[str, Any]) -> None:
        page = (ROOT / "docs" / "runbooks" / f"{rule['alert']}.md").read_text()
        assert page.startswith(f"# {rule['alert']}\n")
        assert re.findall("^## (.*)", page, re.MULTILINE) == [
            "Meaning",
            "Diagnosis",
            "Mitigation",
            "Tuning",
        ]

    def test_its_tests_show_it_silent_firing_and_silent_again(self, rule: dict[str, Any]) -> None:
        firing = [
            [bool(at["exp_alerts"]) for at in case["alert_rule_test"]]
            for tests in files_of(rule)
            for case in tests["tests"]
            if all(at["alertname"] == rule["alert"] for at in case["alert_rule_test"])
        ]
        assert [False, True, False] in firing

    @pytest.mark.process
    @pytest.mark.slow
    def test_its_tests_pass(self, rule: dict[str, Any], tmp_path: Path) -> None:
        for tests in cases_of(rule, tmp_path):
            passes(tests, tmp_path)

    @pytest.mark.process
    @pytest.mark.slow
    def test_two_targets_failed_scrapes_or_a_hand_over_make_the_same_alerts(
        self, rule: dict[str, Any], tmp_path: Path
    ) -> None:
        for tests in cases_of(rule, tmp_path):
            cases = []
            for case in tests["tests"]:
                twice, failed = of_two_targets(case), failed_scrapes(case)
                if rule in OF_WORKFLOWS:
                    cases.append(together([twice, *failed, *hand_overs(case)]))
                else:  # an alert on an exporter has no account that would tell them apart
                    cases += [twice, *(together([variant]) for variant in failed)]
            passes({**tests, "tests": cases}, tmp_path)


def test_each_alert_on_workflows_outlasts_a_hand_over() -> None:
    """But for the one on stale data: it mutes others, and a new holder has new data."""
    lasting = "${keepFiringSeconds}s"
    source = msgspec.yaml.decode(alert_rules.SOURCE.read_text())["groups"]
    found = {
        rule["alert"]
        for group in source
        for rule in group["rules"]
        if rule.get("keep_firing_for") == lasting
    }
    on_workflows = {name for name in NAMES if not name.startswith("CloudflareWorkflowsExporter")}
    assert found == on_workflows - {"CloudflareWorkflowDataStale"}


@pytest.mark.parametrize("name", RECORDS)
def test_a_recording_rule_is_promql_over_metrics_that_exist_and_is_used(name: str) -> None:
    assert metrics_of(RECORDS[name]) - KNOWN == set()
    others = [rule["expr"] for rule in RULES] + [e for n, e in RECORDS.items() if n != name]
    boards = [board() for board in grafana_dashboards.ALL]
    others += [filled_in(e) for board in boards for e in (*expressions(board), *annotations(board))]
    assert any(name in metrics_of(expression) for expression in others)


@pytest.mark.postgres
async def test_the_series_in_the_tests_are_those_that_the_exporter_emits(
    postgres: PostgresServer,
) -> None:
    """By their label names, and by the values of labels that the exporter chooses."""
    url = SecretStr(postgres.new_url())
    real = await emitted(DatabaseServer(url, None, DEADLINE))
    wrong = []
    for path in TESTS.glob("*.yaml"):
        for case in msgspec.yaml.decode(path.read_text())["tests"]:
            for text in (series["series"] for series in case["input_series"]):
                selector = promql_parser.parse(text)
                assert isinstance(selector, promql_parser.VectorSelector)
                name = selector.name or ""
                if name in THRESHOLDS | OF_TARGETS:
                    continue
                labels = {m.name: m.value for m in selector.matchers.matchers}
                names = frozenset(labels.keys() - TARGET)
                closed = frozenset((k, v) for k, v in labels.items() if k in CLOSED)
                if (names, closed) not in real[name]:
                    wrong.append(f"{path.name}: {text}")
    assert wrong == []


def test_no_label_of_a_target_or_of_what_arrives_later_is_a_label_of_an_alert() -> None:
    """Neither does a new pod nor the error's name make another alert."""
    labels = {
        label
        for path in TESTS.glob("*.yaml")
        for case in msgspec.yaml.decode(path.read_text())["tests"]
        for at in case["alert_rule_test"]
        for alert in at["exp_alerts"]
        for label in alert["exp_labels"]
    }
    own = {"account", "workflow", "instance_id", "severity"}
    assert labels <= own | {"job", "namespace", "cluster", "release"}


@pytest.mark.process
def test_the_labels_to_keep_are_one_parameter(tmp_path: Path) -> None:
    """Two clusters watch workflows of the same names: with `cluster`, each has its alert."""
    defaults = {name: parameter["default"] for name, parameter in alert_rules.parameters().items()}
    source = alert_rules.SOURCE.read_text().replace("${name}", "")
    for labels, count in (("account", 1), ("cluster, namespace, account", 2)):
        rules = alert_rules.with_parameters(source, {**defaults, "labels": labels})
        (tmp_path / "rules.yaml").write_text(rules)
        series = [
            {
                "series": f'{name}{{account="a", workflow="w", cluster="{cluster}"{more}}}',
                "values": v,
            }
            for cluster in ("eu", "us")
            for name, more, v in (
                ("cloudflare_workflow_up", "", "0x60"),
                (
                    "cloudflare_workflow_instance_status",
                    ', instance_id="i", status="running"',
                    "1x100",
                ),
                (
                    "cloudflare_workflow_instance_last_change_timestamp_seconds",
                    ', instance_id="i"',
                    "0x100",
                ),
            )
        ]
        expectations = {
            "CloudflareWorkflowUpdatesFailing": "30m",
            "CloudflareWorkflowInstanceStuck": "90m",
        }
        case = {
            "interval": "1m",
            "input_series": series,
            "promql_expr_test": [
                {
                    "expr": f'count(ALERTS{{alertname="{name}", alertstate="firing"}})',
                    "eval_time": at,
                    "exp_samples": [{"value": count}],
                }
                for name, at in expectations.items()
            ],
        }
        test = {"rule_files": ["rules.yaml"], "evaluation_interval": "5m", "tests": [case]}
        passes(test, tmp_path)


@pytest.mark.process
def test_two_releases_of_one_name_raise_two_alerts_of_one_namespace(tmp_path: Path) -> None:
    """An AlertmanagerConfig needs it: rules fail where two alerts have the same labels."""
    values = {"prometheusRule": {"enabled": True, "alertLabels": {"namespace": "monitoring"}}}
    spec = render(SMALLEST, values).the("PrometheusRule")["spec"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": spec["groups"][-1:]}))
    series = [
        {"series": f'{name}{{instance="i", job="exporter", namespace="{namespace}"}}', "values": v}
        for namespace in ("a", "b")
        for name, v in (
            ("up", "1x9 0x20"),
            ("cloudflare_workflows_exporter_build_info", "1x9 stale"),
        )
    ]
    name = "CloudflareWorkflowsExporterDown"
    labels = {"namespace": "monitoring", "job": "exporter", "severity": "critical"}
    expected = [firing(name, exported_namespace=namespace, **labels) for namespace in ("a", "b")]
    at = {
        "expr": f'ALERTS{{alertname="{name}", alertstate="firing"}}',
        "eval_time": "20m",
        "exp_samples": [{"labels": alert, "value": 1} for alert in expected],
    }
    case = {"interval": "1m", "input_series": series, "promql_expr_test": [at]}
    passes({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [case]}, tmp_path)


@pytest.mark.process
def test_a_namespace_among_alert_labels_ends_no_alert_early(tmp_path: Path) -> None:
    """An alert that lasts while it fires finds itself by the namespace of its targets, if they have
    one, whatever namespace releases give it; that may be a template."""
    parameters = {
        "labels": "namespace, account",
        "erroredInstances": 2,
        "erroredForSeconds": 600,
        "keepFiringSeconds": 60,
    }
    releases = {"one": "one", "other": "{{ `other` }}"}
    for release, namespace in releases.items():
        rule = {"enabled": True, "alertLabels": {"namespace": namespace}, "parameters": parameters}
        spec = render(SMALLEST, {"prometheusRule": rule}).the("PrometheusRule")["spec"]
        (tmp_path / f"{release}.yaml").write_text(yaml.safe_dump({"groups": spec["groups"][1:2]}))
    series = [
        {
            "series": f'cloudflare_workflow_instance_{name}{{account="a", workflow="w", '
            f'instance_id="{end}"{where}{more}}}',
            "values": values,
        }
        for where in ("", ', namespace="apps"')
        for end in (0, 300)
        for name, more, values in (
            ("status", ', status="errored"', "1x30"),
            ("end_timestamp_seconds", "", f"{end}x30"),
        )
    ]
    name = "CloudflareWorkflowInstancesErrored"
    labels = {"severity": "warning", "account": "a", "workflow": "w"}
    expected = [
        firing(name, namespace=release, **where, **labels)
        for where in ({}, {"exported_namespace": "apps"})
        for release in releases
    ]
    at = {
        "expr": f'ALERTS{{alertname="{name}", alertstate="firing"}}',
        "eval_time": "14m",  # one of the two errored more than 10 minutes ago
        "exp_samples": [{"labels": alert, "value": 1} for alert in expected],
    }
    case = {"interval": "1m", "input_series": series, "promql_expr_test": [at]}
    files = ["one.yaml", "other.yaml"]
    passes({"rule_files": files, "evaluation_interval": "1m", "tests": [case]}, tmp_path)


@pytest.mark.process
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
    tests = {path.name.partition(".")[0] for path in TESTS.glob("*.yaml")}
    assert tests == set(NAMES)


def test_each_parameter_is_used() -> None:
    rules = yaml.safe_dump(msgspec.yaml.decode(alert_rules.SOURCE.read_text()))
    used = set(re.findall(r"\$\{(\w+)\}", rules))
    assert used == set(alert_rules.parameters())


GRAFANA = [
    rule
    for group in msgspec.yaml.decode(alert_rules.GRAFANA.read_text())["groups"]
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

    def test_it_needs_no_recording_rule_and_no_query_in_a_text(self) -> None:
        for rule in GRAFANA:
            read = metrics_of(rule["data"][0]["model"]["expr"])
            assert read & set(RECORDS) == set()
            assert not any("query" in text for text in rule["annotations"].values())

    def test_it_prints_the_value_of_the_query(self) -> None:
        texts = [text for rule in GRAFANA for text in rule["annotations"].values()]
        assert any("$values.A.Value" in text for text in texts)
        assert not any(re.search(r"\$value\b", text) for text in texts)
