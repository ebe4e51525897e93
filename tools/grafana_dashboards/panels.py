"""Panels of a Grafana dashboard, in the JSON that it imports (types: npm `@grafana/schema`)."""

from collections.abc import Mapping, Sequence
from typing import Any

Json = dict[str, Any]

DATA_SOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24
"""Columns of Grafana's grid."""

GREEN, YELLOW, RED = "green", "yellow", "red"
_REDUCE = {"calcs": ["lastNotNull"], "fields": "", "values": False}


def query(expr: str, legend: str = "", **more: object) -> Json:
    """A query over the time shown; `more` are further fields of Grafana's target."""
    return {
        "datasource": DATA_SOURCE,
        "expr": expr,
        "editorMode": "code",
        "legendFormat": legend or "__auto",
        **more,
    }


def now(expr: str, legend: str = "", format_: str = "time_series") -> Json:
    """A query for the end of the time shown alone."""
    return query(expr, legend, instant=True, range=False, format=format_)


def thresholds(*steps: tuple[str, float | None]) -> Json:
    """Colours from a value on; the first one has None, for everything below the second."""
    return {"mode": "absolute", "steps": [{"color": c, "value": v} for c, v in steps]}


def _panel(
    kind: str,
    title: str,
    help_: str,
    size: tuple[int, int],
    *,
    targets: Sequence[Json],
    options: Json,
    defaults: Json,
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


def stat(
    title: str,
    help_: str,
    expr: str,
    none: str,
    *,
    unit: str = "short",
    colours: Json | None = None,
    legend: str = "",
    width: int = 4,
) -> Json:
    """A number, or one for each series; `none` is shown where there is none."""
    defaults = {
        "unit": unit,
        "noValue": none,
        "color": {"mode": "thresholds"},
        "thresholds": colours or thresholds((GREEN, None)),
    }
    options = {
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "percentChangeColorMode": "standard",
        "showPercentChange": False,
        "textMode": "value_and_name" if legend else "auto",
        "wideLayout": True,
        "orientation": "auto",
        "reduceOptions": _REDUCE,
    }
    return _panel(
        "stat",
        title,
        help_,
        (width, 4),
        targets=[now(expr, legend)],
        options=options,
        defaults=defaults,
    )


def series(
    title: str,
    help_: str,
    targets: Sequence[Json],
    none: str,
    *,
    unit: str = "short",
    stacked: bool = False,
    limits: Json | None = None,
    width: int = 12,
) -> Json:
    """Curves over time; `limits` are drawn as lines."""
    custom: Json = {
        "drawStyle": "line",
        "lineInterpolation": "linear",
        "lineWidth": 1,
        "fillOpacity": 30 if stacked else 5,
        "showPoints": "never",
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if limits else "off"},
    }
    defaults = {
        "unit": unit,
        "min": 0,
        "noValue": none,
        "color": {"mode": "palette-classic"},
        "custom": custom,
        "thresholds": limits or thresholds((GREEN, None)),
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
        "timeseries", title, help_, (width, 8), targets=targets, options=options, defaults=defaults
    )


def heatmap(title: str, help_: str, expr: str, none: str, *, width: int = 12) -> Json:
    """How a histogram in seconds is spread over time, with its exemplars."""
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
    defaults: Json = {"noValue": none, "custom": {"scaleDistribution": {"type": "linear"}}}
    target = query(expr, "{{le}}", format="heatmap", exemplar=True)
    return _panel(
        "heatmap", title, help_, (width, 8), targets=[target], options=options, defaults=defaults
    )


def bars(title: str, help_: str, expr: str, legend: str, none: str, *, unit: str = "short") -> Json:
    """The largest, as bars."""
    defaults = {
        "unit": unit,
        "min": 0,
        "noValue": none,
        "color": {"mode": "continuous-GrYlRd"},
        "thresholds": thresholds((GREEN, None)),
    }
    legend_ = {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": False}
    options = {
        "displayMode": "gradient",
        "legend": legend_,
        "maxVizHeight": 300,
        "minVizHeight": 16,
        "minVizWidth": 8,
        "namePlacement": "auto",
        "orientation": "horizontal",
        "reduceOptions": _REDUCE,
        "showUnfilled": True,
        "sizing": "auto",
        "valueMode": "color",
    }
    return _panel(
        "bargauge",
        title,
        help_,
        (12, 8),
        targets=[now(expr, legend)],
        options=options,
        defaults=defaults,
    )


def timeline(title: str, help_: str, target: Json, none: str, *, height: int = 8) -> Json:
    """When something was there: a row for each series."""
    defaults = {
        "noValue": none,
        "color": {"mode": "palette-classic"},
        "custom": {"fillOpacity": 70, "lineWidth": 0},
    }
    options = {
        "alignValue": "left",
        "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": False},
        "mergeValues": True,
        "rowHeight": 0.8,
        "showValue": "auto",
        "tooltip": {"mode": "single", "sort": "none"},
    }
    size = (WIDTH, height)
    return _panel(
        "state-timeline", title, help_, size, targets=[target], options=options, defaults=defaults
    )


def table(
    title: str,
    help_: str,
    expr: str,
    columns: Mapping[str, str],
    none: str,
    *,
    unit: str = "short",
    width: int = WIDTH,
    links: Mapping[str, tuple[str, str]] | None = None,
) -> Json:
    """The series that a query finds now.

    Args:
        columns: Labels to show, in order, with their headings; `Value` is the value.
        links: By label, the title and address of what its cells link to.
    """
    overrides = [_override(columns["Value"], "unit", unit)] if "Value" in columns else []
    for label, (text, url) in (links or {}).items():
        link = {"title": text, "url": url, "targetBlank": not url.startswith("/d/")}
        overrides.append(_override(columns[label], "links", [link]))
    sort = [{"displayName": columns["Value"], "desc": True}] if "Value" in columns else []
    options = {"cellHeight": "sm", "frameIndex": 0, "showHeader": True, "sortBy": sort}
    targets = [now(expr, format_="table")]
    panel = _panel(
        "table",
        title,
        help_,
        (width, 8),
        targets=targets,
        options=options,
        defaults={"noValue": none},
        overrides=overrides,
    )
    order = {
        "indexByName": {label: n for n, label in enumerate(columns)},
        "renameByName": dict(columns),
    }
    panel["transformations"] = [
        {"id": "filterFieldsByName", "options": {"include": {"names": list(columns)}}},
        {"id": "organize", "options": order},
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
