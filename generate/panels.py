"""Parts of a Grafana dashboard, in the JSON that Grafana imports (types: npm `@grafana/schema`)."""

from collections.abc import Mapping, Sequence
from typing import Any

Json = dict[str, Any]

DATA_SOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24
"""Columns of Grafana's grid."""

GREEN, YELLOW, RED = "green", "yellow", "red"


def query(expr: str, legend: str = "", *, instant: bool = False, heatmap: bool = False) -> Json:
    """A query; `instant` for its value now, as in tables."""
    target: Json = {"datasource": DATA_SOURCE, "expr": expr, "editorMode": "code"}
    if legend:
        target["legendFormat"] = legend
    if instant:
        target |= {"instant": True, "range": False, "format": "table"}
    if heatmap:
        target |= {"format": "heatmap", "legendFormat": "{{le}}"}
    return target


def _panel(
    kind: str,
    title: str,
    help_: str,
    size: tuple[int, int],
    *,
    targets: Sequence[Json],
    defaults: Json,
    options: Json,
    overrides: Sequence[Json] = (),
) -> Json:
    width, height = size
    return {
        "type": kind,
        "title": title,
        "description": help_,
        "datasource": DATA_SOURCE,
        "gridPos": {"x": 0, "y": 0, "w": width, "h": height},
        "targets": [{"refId": chr(65 + n), **target} for n, target in enumerate(targets)],
        "fieldConfig": {"defaults": defaults, "overrides": list(overrides)},
        "options": options,
    }


def thresholds(*steps: tuple[str, float | None]) -> Json:
    """Colours from a value on; the first one has None, for everything below the second."""
    return {"mode": "absolute", "steps": [{"color": c, "value": v} for c, v in steps]}


def stat(
    title: str,
    help_: str,
    expr: str,
    *,
    unit: str = "short",
    colours: Json | None = None,
    legend: str = "",
    width: int = 4,
) -> Json:
    """A number, or one for each series."""
    defaults = {
        "unit": unit,
        "color": {"mode": "thresholds"},
        "thresholds": colours or thresholds((GREEN, None)),
    }
    options = {
        "colorMode": "value",
        "graphMode": "area",
        "justifyMode": "auto",
        "percentChangeColorMode": "standard",
        "showPercentChange": False,
        "textMode": "auto",
        "wideLayout": True,
        "orientation": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }
    return _panel(
        "stat",
        title,
        help_,
        (width, 4),
        targets=[query(expr, legend)],
        defaults=defaults,
        options=options,
    )


def series(
    title: str,
    help_: str,
    targets: Sequence[Json],
    *,
    unit: str = "short",
    stacked: bool = False,
    width: int = 12,
) -> Json:
    """Curves over time."""
    defaults = {
        "unit": unit,
        "min": 0,
        "color": {"mode": "palette-classic"},
        "custom": {
            "drawStyle": "line",
            "lineInterpolation": "linear",
            "lineWidth": 1,
            "fillOpacity": 30 if stacked else 5,
            "showPoints": "never",
            "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        },
    }
    options = {
        "legend": {
            "displayMode": "table",
            "placement": "right",
            "showLegend": True,
            "calcs": ["lastNotNull", "max"],
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return _panel(
        "timeseries", title, help_, (width, 8), targets=targets, defaults=defaults, options=options
    )


def heatmap(title: str, help_: str, expr: str, *, width: int = 12) -> Json:
    """How a histogram in seconds is spread over time."""
    options = {
        "calculate": False,
        "cellGap": 1,
        "color": {
            "mode": "scheme",
            "scheme": "Oranges",
            "fill": "dark-orange",
            "scale": "exponential",
            "exponent": 0.5,
            "steps": 64,
            "reverse": False,
        },
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "tooltip": {"mode": "single", "showColorScale": False, "yHistogram": False},
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": "s"},
    }
    defaults: Json = {"custom": {"scaleDistribution": {"type": "linear"}}}
    targets = [query(expr, heatmap=True)]
    return _panel(
        "heatmap", title, help_, (width, 8), targets=targets, defaults=defaults, options=options
    )


def bars(title: str, help_: str, expr: str, legend: str, *, unit: str, width: int = 12) -> Json:
    """The largest, as bars."""
    defaults = {
        "unit": unit,
        "min": 0,
        "color": {"mode": "continuous-GrYlRd"},
        "thresholds": thresholds((GREEN, None)),
    }
    options = {
        "displayMode": "gradient",
        "legend": {
            "calcs": [],
            "displayMode": "list",
            "placement": "bottom",
            "showLegend": False,
        },
        "maxVizHeight": 300,
        "minVizHeight": 16,
        "minVizWidth": 8,
        "namePlacement": "auto",
        "orientation": "horizontal",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "showUnfilled": True,
        "sizing": "auto",
        "valueMode": "color",
    }
    target = {**query(expr, legend), "instant": True, "range": False}
    return _panel(
        "bargauge", title, help_, (width, 8), targets=[target], defaults=defaults, options=options
    )


def table(
    title: str,
    help_: str,
    expr: str,
    columns: Mapping[str, str],
    *,
    unit: str = "short",
    width: int = WIDTH,
) -> Json:
    """The series that a query finds now.

    Args:
        columns: Labels to show, in order, with their headings; `Value` is the value. An
            `instance_id` links to the instance in Cloudflare's dashboard.
    """
    link = {
        "title": "In Cloudflare's dashboard",
        "url": "https://dash.cloudflare.com/?to=/:account/workers/workflows"
        "/${__data.fields.Workflow}/instance/${__value.raw}",
        "targetBlank": True,
    }
    overrides = [
        _override(columns["Value"], "unit", unit),
        *(
            _override(heading, "links", [link])
            for label, heading in columns.items()
            if label == "instance_id"
        ),
    ]
    options = {
        "cellHeight": "sm",
        "frameIndex": 0,
        "showHeader": True,
        "sortBy": [{"displayName": columns["Value"], "desc": True}],
    }
    panel = _panel(
        "table",
        title,
        help_,
        (width, 8),
        targets=[query(expr, instant=True)],
        defaults={},
        options=options,
        overrides=overrides,
    )
    panel["transformations"] = [
        {"id": "filterFieldsByName", "options": {"include": {"names": list(columns)}}},
        {
            "id": "organize",
            "options": {
                "indexByName": {label: n for n, label in enumerate(columns)},
                "renameByName": dict(columns),
            },
        },
    ]
    return panel


def _override(field: str, property_: str, value: object) -> Json:
    return {
        "matcher": {"id": "byName", "options": field},
        "properties": [{"id": property_, "value": value}],
    }


def row(title: str) -> Json:
    """A heading."""
    position = {"x": 0, "y": 0, "w": WIDTH, "h": 1}
    return {"type": "row", "title": title, "collapsed": False, "gridPos": position, "panels": []}


def laid_out(panels: Sequence[Json]) -> list[Json]:
    """The panels from left to right and top to bottom, numbered."""
    x = y = height = 0
    placed = []
    for number, panel in enumerate(panels, start=1):
        size = panel["gridPos"]
        if x + size["w"] > WIDTH:
            x, y, height = 0, y + height, 0
        placed.append({"id": number, **panel, "gridPos": {**size, "x": x, "y": y}})
        x, height = x + size["w"], max(height, size["h"])
    return placed


def data_source_variable() -> Json:
    return {
        "type": "datasource",
        "name": "datasource",
        "label": "Data source",
        "query": "prometheus",
        "refresh": 1,
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "options": [],
        "regex": "",
    }


def label_variable(name: str, label: str, selector: str) -> Json:
    """A choice of values of the label `name` that series of a selector have; all by default."""
    text = f"label_values({selector}, {name})"
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": DATA_SOURCE,
        "query": {"query": text, "refId": name},
        "refresh": 2,
        "hide": 0,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": ["All"], "value": ["$__all"], "selected": True},
        "options": [],
        "regex": "",
        "sort": 1,
    }


def dashboard(uid: str, title: str, help_: str, variables: list[Json], panels: list[Json]) -> Json:
    """A whole dashboard; each one links the others."""
    return {
        "uid": uid,
        "title": title,
        "description": help_,
        "tags": ["cloudflare-workflows"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "1m",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "",
        "links": [
            {
                "type": "dashboards",
                "title": "Cloudflare Workflows",
                "tags": ["cloudflare-workflows"],
                "asDropdown": False,
                "icon": "external link",
                "includeVars": True,
                "keepTime": True,
                "targetBlank": False,
                "tooltip": "",
                "url": "",
            }
        ],
        "annotations": {"list": []},
        "templating": {"list": [data_source_variable(), *variables]},
        "panels": laid_out(panels),
    }
