"""The dashboards are what Grafana takes, and ask for what there is."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from exporter.metrics.catalogue import FAMILIES
from tests.alerts.test_rules import passes
from tests.grafana.queries import INTERVALS, annotations, expressions, filled_in
from tests.node import Typed, type_errors
from tests.promql import catalogued, metrics_of
from tools import alert_rules, grafana_dashboards

DASHBOARDS = [board() for board in grafana_dashboards.ALL]
PROMETHEUS_OWN = {
    "ALERTS",
    "scrape_samples_scraped",
    "scrape_duration_seconds",
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
}
OPTIONS = {
    "stat": "StatPanelCfg",
    "timeseries": "TimeSeriesPanelCfg",
    "heatmap": "HeatmapPanelCfg",
    "bargauge": "BarGaugePanelCfg",
    "table": "TablePanelCfg",
    "state-timeline": "StateTimelinePanelCfg",
}
"""Where npm's @grafana/schema has the options of a panel's type."""

ANNOTATION = (
    'import("@grafana/schema").AnnotationQuery<import("@grafana/schema").DataQuery & '
    "{ expr: string; interval: string; editorMode: string; legendFormat: string; "
    "titleFormat: string; textFormat: string }>"
)
"""With a target of Prometheus, whose own fields the package leaves open."""

each_dashboard = pytest.mark.parametrize("board", DASHBOARDS, ids=lambda board: board["uid"])


def options_type(panel: dict[str, Any]) -> str:
    kind, module = panel["type"], OPTIONS[panel["type"]]
    folder = kind.replace("-", "")
    path = f"@grafana/schema/dist/esm/raw/composable/{folder}/panelcfg/x/{module}_types.gen"
    return f'import("{path}").Options'


@pytest.mark.process
def test_they_have_the_types_that_grafana_publishes() -> None:
    typed = [
        Typed('import("@grafana/schema").Dashboard', {**board, "annotations": {"list": []}})
        for board in DASHBOARDS
    ]
    typed += [
        Typed(ANNOTATION, annotation)
        for board in DASHBOARDS
        for annotation in board["annotations"]["list"]
    ]
    typed += [
        Typed(options_type(panel), panel["options"])
        for board in DASHBOARDS
        for panel in board["panels"]
        if panel["type"] != "row"
    ]
    assert type_errors(typed) == ""


@each_dashboard
class TestEachDashboard:
    def test_its_queries_are_promql_over_metrics_that_exist(self, board: dict[str, Any]) -> None:
        asked = (*expressions(board), *annotations(board))
        read = set().union(*(metrics_of(filled_in(e)) for e in asked))
        known = catalogued(FAMILIES) | set(alert_rules.records()) | PROMETHEUS_OWN
        assert read - known == set()

    def test_every_panel_honours_every_variable(self, board: dict[str, Any]) -> None:
        """Each selector of each query names all of them, but those of its own target alone."""
        variables = {v["name"] for v in board["templating"]["list"]} - {"datasource"}
        for expression in expressions(board):
            for selector in re.findall(r"\{([^{}]*)\}", expression):
                used = set(re.findall(r"\$(\w+)", selector))
                assert used == variables, expression
            bare = re.findall(r"cloudflare_\w+(?![\w:{])", expression)
            assert [name for name in bare if f"{name}:" not in expression] == [], expression

    def test_a_value_that_grafana_does_not_escape_is_no_regular_expression(
        self, board: dict[str, Any]
    ) -> None:
        """As of `interpolateQueryExpr` in its data source of Prometheus."""
        variables = [v for v in board["templating"]["list"] if v["type"] == "query"]
        escaped = {v["name"] for v in variables if v["multi"] or v["includeAll"]}
        for expression in expressions(board):
            assert set(re.findall(r'=~"\$(\w+)', expression)) <= escaped, expression

    def test_workflows_of_one_name_in_two_accounts_stay_apart(self, board: dict[str, Any]) -> None:
        targets = [target for panel in board["panels"] for target in panel.get("targets", [])]
        for target in targets:
            by = re.findall(r"by \(([^()]*\bworkflow\b[^()]*)\)", target["expr"])
            assert [labels for labels in by if "account" not in labels] == []
            legend = target["legendFormat"]
            assert "{{account}}" in legend or "{{workflow}}" not in legend

    def test_it_uses_no_variable_that_it_does_not_have(self, board: dict[str, Any]) -> None:
        names = {variable["name"] for variable in board["templating"]["list"]}
        asked = (*expressions(board), *annotations(board))
        used = {n for e in asked for n in re.findall(r"\$(\w+)", e)}
        assert used - set(INTERVALS) <= names

    def test_each_panel_says_what_it_means_when_there_is_nothing(
        self, board: dict[str, Any]
    ) -> None:
        panels = [panel for panel in board["panels"] if panel["type"] != "row"]
        assert [p["title"] for p in panels if not p["fieldConfig"]["defaults"]["noValue"]] == []

    def test_no_number_is_shown_where_none_is_known(self, board: dict[str, Any]) -> None:
        """While no exporter is scraped, 0 errored instances would be no more than a guess."""
        stats = [panel for panel in board["panels"] if panel["type"] == "stat"]
        shown = {panel["title"]: panel["fieldConfig"]["defaults"]["noValue"] for panel in stats}
        assert [t for t, none in shown.items() if none in ("0", "None", "Not blocked")] == []

    def test_totals_are_asked_for_once(self, board: dict[str, Any]) -> None:
        for panel in board["panels"]:
            if panel["type"] in ("stat", "bargauge", "table"):
                assert all(target["instant"] for target in panel["targets"]), panel["title"]

    def test_graphs_of_durations_show_exemplars(self, board: dict[str, Any]) -> None:
        """Of families that have them: those of workflows."""
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                over_time = panel["type"] in ("timeseries", "heatmap")
                if over_time and re.search(r"cloudflare_workflow_\w+_bucket", target["expr"]):
                    assert target["exemplar"] is True, panel["title"]

    def test_graphs_over_time_read_no_series_of_each_instance(self, board: dict[str, Any]) -> None:
        """Prometheus would refuse them at 10,000 instances, except of a single one."""
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                if "instant" not in target and "$instance_id" not in target["expr"]:
                    assert "cloudflare_workflow_instance_" not in target["expr"], panel["title"]

    def test_it_marks_alerts_and_new_versions(self, board: dict[str, Any]) -> None:
        names = [annotation["name"] for annotation in board["annotations"]["list"]]
        assert names[0] == "Alerts"
        assert "New versions" in names or board["uid"] == "cloudflare-workflows-instance"

    def test_each_panel_says_what_it_shows(self, board: dict[str, Any]) -> None:
        panels = [panel for panel in board["panels"] if panel["type"] != "row"]
        assert [p["title"] for p in panels if not p["description"].endswith(".")] == []
        assert all(p["datasource"]["uid"] == "${datasource}" for p in panels)

    def test_no_panel_covers_another(self, board: dict[str, Any]) -> None:
        cells = [
            (x, y)
            for position in (panel["gridPos"] for panel in board["panels"])
            for x in range(position["x"], position["x"] + position["w"])
            for y in range(position["y"], position["y"] + position["h"])
        ]
        assert len(set(cells)) == len(cells)
        assert max(x for x, _ in cells) < 24

    def test_tables_link_each_instance_to_its_dashboard(self, board: dict[str, Any]) -> None:
        for panel in board["panels"]:
            names = panel.get("transformations", [{"options": {"include": {"names": []}}}])[0]
            columns = names["options"]["include"]["names"]
            if "instance_id" in columns and board["uid"] == "cloudflare-workflows":
                links = [
                    link["url"]
                    for override in panel["fieldConfig"]["overrides"]
                    if override["matcher"]["options"] == "Instance"
                    for property_ in override["properties"]
                    for link in property_["value"]
                ]
                assert [link.partition("?")[0] for link in links] == [
                    "/d/cloudflare-workflows-instance"
                ]
                assert {f"var-{v}=" for v in ("account", "workflow", "instance_id")} <= set(
                    re.findall(r"var-\w+=", links[0])
                )


@each_dashboard
def test_links_hold_any_account_and_instance(board: dict[str, Any]) -> None:
    """An account may be called R&D."""
    for url in re.findall(r'"url": "([^"]*)"', json.dumps(board)):
        for value in re.findall(r"[?&](?!var-workflow|workflow)[\w-]+=\$\{(\w[^}]*)\}", url):
            assert value.endswith(":percentencode"), url


def test_the_dashboard_of_an_instance_links_cloudflare_and_the_exporters_page() -> None:
    board = grafana_dashboards.instance.board()
    assert any("dash.cloudflare.com" in link["url"] for link in board["links"])
    assert "/instance?account=" in str(board["panels"])


def by_title(*boards: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The panels of dashboards."""
    return {panel["title"]: panel for board in boards for panel in board["panels"]}


def meets(
    series: Mapping[str, str], expectations: Sequence[Mapping[str, object]], folder: Path
) -> None:
    """Series with these values, a minute apart, meet expectations, in promtool's words."""
    case = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": expectations,
    }
    passes({"tests": [case]}, folder)


@pytest.mark.process
def test_the_table_of_errored_instances_has_those_whose_error_differs_or_is_unknown(
    tmp_path: Path,
) -> None:
    """Of order-1 one target knows the step, another one not yet; of order-2 no error is known."""
    panels = by_title(grafana_dashboards.fleet.board())
    (target,) = panels["Errored"]["targets"]
    one, other = (f'account="a", workflow="w", instance_id="order-{n}"' for n in (1, 2))
    name = "cloudflare_workflow_instance"
    series = {
        f'{name}_status{{{one}, status="errored"}}': "1",
        f"{name}_end_timestamp_seconds{{{one}}}": "60",
        f'{name}_error_info{{{one}, error_name="E", step="", pod="a"}}': "1",
        f'{name}_error_info{{{one}, error_name="E", step="pay", pod="b"}}': "1",
        f'{name}_status{{{other}, status="errored"}}': "1",
        f"{name}_end_timestamp_seconds{{{other}}}": "90",
    }
    found = {f"{one}, error_name='E'": 60_000, f"{one}, error_name='E', step='pay'": 60_000}
    samples = {**found, other: 90_000}
    expectation = {
        "expr": filled_in(target["expr"]),
        "eval_time": "0m",
        "exp_samples": [{"labels": f"{{{k}}}", "value": v} for k, v in samples.items()],
    }
    meets(series, [expectation], tmp_path)


@pytest.mark.process
def test_totals_are_0_while_all_is_well_and_unknown_while_nothing_is_scraped(
    tmp_path: Path,
) -> None:
    """An error budget of a workflow without runs is unknown, too."""
    panels = by_title(grafana_dashboards.fleet.board(), grafana_dashboards.exporter.board())
    of = '{account="a", workflow="w"}'
    series = {
        f"cloudflare_workflow_up{of}": "1 1 stale",
        f"cloudflare_workflow:data_timestamp:seconds{of}": "60 60 stale",
        f"cloudflare_workflow:runs_errored:max{of}": "0 0 stale",
        f"cloudflare_workflow:runs_ended:max{of}": "0 0 stale",
        "cloudflare_workflow:error_budget:ratio": "0.01 0.01 stale",
    }
    zero = {"Stuck": [0], "Workflows that fail": [0], "Error budget left": []}
    expectations = [
        {
            "expr": filled_in(panels[title]["targets"][0]["expr"]),
            "eval_time": at,
            "exp_samples": [{"labels": "{}", "value": value} for value in found],
        }
        for title in zero
        for at, found in (("1m", zero[title]), ("2m", []))
    ]
    meets(series, expectations, tmp_path)


@pytest.mark.process
class TestTypes:
    """The check itself."""

    def test_a_field_that_grafana_does_not_know_is_an_error(self) -> None:
        panel = next(p for p in DASHBOARDS[0]["panels"] if p["type"] == "stat")
        wrong = {**panel["options"], "colourMode": "value"}
        assert "colourMode" in type_errors([Typed(options_type(panel), wrong)])

    def test_a_value_that_grafana_does_not_know_is_an_error(self) -> None:
        wrong = {**DASHBOARDS[0], "graphTooltip": 7, "time": "now"}
        found = type_errors([Typed('import("@grafana/schema").Dashboard', wrong)])
        assert "'7' is not assignable" in found
        assert "'string' is not assignable" in found
