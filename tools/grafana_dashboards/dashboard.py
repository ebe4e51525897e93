"""A Grafana dashboard around its panels: variables, annotations, links."""

from collections.abc import Sequence

from tools.grafana_dashboards.panels import DATA_SOURCE, WIDTH, Json, query

_TAG = "cloudflare-workflows"


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


def label_variable(name: str, label: str, selector: str, *, several: bool = True) -> Json:
    """A choice of values of the label `name` that series of a selector have.

    With `several`, any number of them, all by default; one otherwise.
    """
    text = f"label_values({selector}, {name})"
    variable = {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": DATA_SOURCE,
        "query": {"query": text, "refId": name},
        "refresh": 2,
        "hide": 0,
        "includeAll": several,
        "multi": several,
        "options": [],
        "regex": "",
        "sort": 1,
    }
    if several:
        everything = {"text": ["All"], "value": ["$__all"], "selected": True}
        variable |= {"allValue": ".*", "current": everything}
    return variable


def annotation(name: str, colour: str, expr: str, title: str, text: str) -> Json:
    """Marks on every graph where a query finds something."""
    target = {
        **query(expr, interval="60s"),
        "refId": "Annotation",
        "titleFormat": title,
        "textFormat": text,
    }
    return {
        "name": name,
        "datasource": DATA_SOURCE,
        "enable": True,
        "hide": False,
        "iconColor": colour,
        "target": target,
    }


def link(title: str, url: str) -> Json:
    """A link beside those to the other dashboards."""
    return {**_link(title), "type": "link", "url": url, "targetBlank": True, "includeVars": False}


def _link(title: str) -> Json:
    return {
        "type": "dashboards",
        "title": title,
        "tags": [_TAG],
        "asDropdown": False,
        "icon": "external link",
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "tooltip": "",
        "url": "",
    }


def dashboard(
    uid: str,
    title: str,
    help_: str,
    variables: list[Json],
    panels: list[Json],
    *,
    annotations: Sequence[Json] = (),
    links: Sequence[Json] = (),
) -> Json:
    """A whole dashboard; each one links the others."""
    return {
        "uid": uid,
        "title": title,
        "description": help_,
        "tags": [_TAG],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "1m",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "",
        "links": [_link("Cloudflare Workflows"), *links],
        "annotations": {"list": list(annotations)},
        "templating": {"list": [data_source_variable(), *variables]},
        "panels": laid_out(panels),
    }
