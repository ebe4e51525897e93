"""The dashboards are what Grafana takes, and ask for what there is."""

import re
from typing import Any

import pytest

from exporter.metrics.catalogue import FAMILIES
from generate import dashboards
from tests.grafana.queries import expressions, filled_in
from tests.node import Typed, type_mistakes
from tests.promql import catalogued, metrics_of

DASHBOARDS = [dashboards.fleet(), dashboards.exporter()]
PROMETHEUS_OWN = {
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
}
"""Where npm's @grafana/schema has the options of a panel's type."""

each_dashboard = pytest.mark.parametrize("board", DASHBOARDS, ids=lambda board: board["uid"])


def options_type(panel: dict[str, Any]) -> str:
    kind, module = panel["type"], OPTIONS[panel["type"]]
    path = f"@grafana/schema/dist/esm/raw/composable/{kind}/panelcfg/x/{module}_types.gen"
    return f'import("{path}").Options'


def test_they_have_the_types_that_grafana_publishes() -> None:
    typed = [Typed('import("@grafana/schema").Dashboard', b) for b in DASHBOARDS]
    typed += [
        Typed(options_type(panel), panel["options"])
        for board in DASHBOARDS
        for panel in board["panels"]
        if panel["type"] != "row"
    ]
    assert type_mistakes(typed) == ""


@each_dashboard
class TestEachDashboard:
    def test_its_queries_are_promql_over_metrics_that_exist(self, board: dict[str, Any]) -> None:
        read = set().union(*(metrics_of(filled_in(e)) for e in expressions(board)))
        assert read - catalogued(FAMILIES) - PROMETHEUS_OWN == set()

    def test_it_lets_people_choose_data_source_account_and_workflow(
        self, board: dict[str, Any]
    ) -> None:
        names = [variable["name"] for variable in board["templating"]["list"]]
        assert names[:3] == ["datasource", "account", "workflow"]

    def test_its_queries_use_the_variables_and_no_others(self, board: dict[str, Any]) -> None:
        names = {variable["name"] for variable in board["templating"]["list"]}
        used = {n for e in expressions(board) for n in re.findall(r"\$(\w+)", e)}
        assert used - {"__range", "__rate_interval"} == names - {"datasource"}

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

    def test_tables_link_instances_to_cloudflares_dashboard(self, board: dict[str, Any]) -> None:
        for panel in board["panels"]:
            if panel["type"] == "table":
                links = [
                    link["url"]
                    for override in panel["fieldConfig"]["overrides"]
                    if override["matcher"]["options"] == "Instance"
                    for property_ in override["properties"]
                    for link in property_["value"]
                ]
                assert links == [
                    "https://dash.cloudflare.com/?to=/:account/workers/workflows/"
                    "${__data.fields.Workflow}/instance/${__value.raw}"
                ]


class TestTypes:
    """The check itself."""

    def test_a_field_that_grafana_does_not_know_is_a_mistake(self) -> None:
        panel = next(p for p in DASHBOARDS[0]["panels"] if p["type"] == "stat")
        wrong = {**panel["options"], "colourMode": "value"}
        assert "colourMode" in type_mistakes([Typed(options_type(panel), wrong)])

    def test_a_value_that_grafana_does_not_know_is_a_mistake(self) -> None:
        wrong = {**DASHBOARDS[0], "graphTooltip": 7, "time": "now"}
        found = type_mistakes([Typed('import("@grafana/schema").Dashboard', wrong)])
        assert "'7' is not assignable" in found
        assert "'string' is not assignable" in found
