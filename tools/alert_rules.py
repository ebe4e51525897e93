"""The rules of `alerts/rules.yaml` for Prometheus, for the chart and for Grafana."""

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import yaml

from tools import CHART, NOTICE, ROOT
from tools.generated_sections import table, updated

SOURCE = ROOT / "alerts" / "rules.yaml"
PARAMETERS = ROOT / "alerts" / "parameters.yaml"
GRAFANA = ROOT / "grafana" / "alerting" / "cloudflare-workflows.yaml"
PAGE = ROOT / "docs" / "alerting.md"

_GRAFANA_FOLDER = "Cloudflare Workflows"
_GRAFANA_DATA_SOURCE = "prometheus"


def urls() -> dict[str, str]:
    """The project's addresses by name, which pyproject.toml holds."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: dict[str, str] = project["urls"]
    return found


def repository() -> str:
    """The address of the project's repository."""
    return urls()["Repository"]


@cache
def parameters() -> dict[str, dict[str, Any]]:
    """Default and help of each parameter, by name."""
    found: dict[str, dict[str, Any]] = msgspec.yaml.decode(_parameters())
    return found


def _parameters() -> str:
    text = PARAMETERS.read_text(encoding="utf-8")
    body = _without_head(text, "alerts/parameters.yaml")
    return with_parameters(body, {"repository": repository()})


def with_parameters(text: str, values: Mapping[str, object]) -> str:
    """`text` with a value in the place of each `${name}`.

    Raises:
        KeyError: a name has no value.
    """
    return re.sub(r"\$\{(\w+)\}", lambda match: str(values[match[1]]), text)


@cache
def groups() -> list[dict[str, Any]]:
    """The rule groups, with the parameters' defaults."""
    found: list[dict[str, Any]] = msgspec.yaml.decode(_prometheus())["groups"]
    return found


def rules() -> list[dict[str, Any]]:
    """The alerting rules."""
    return [rule for group in groups() for rule in group["rules"] if "alert" in rule]


def records() -> dict[str, str]:
    """The expression of each recording rule, by the name it is recorded under."""
    found = (rule for group in groups() for rule in group["rules"] if "record" in rule)
    return {rule["record"]: rule["expr"].strip() for rule in found}


def without_records(expression: str, within: str = "") -> str:
    """The same expression for a server that has no recording rules: each is put in its place, but
    that one has no past values where it reads its own (`within` is its name)."""
    names = "|".join(map(re.escape, sorted(records(), key=len, reverse=True)))
    if not names:
        return expression

    def inlined(match: re.Match[str]) -> str:
        name = match["name"]
        inner = "vector(0) > 0" if name == within else without_records(records()[name], name)
        span = match["span"]
        if span is None:
            return f"({inner})"
        return f"({inner})[{span}:{'5m' if span.endswith(('d', 'w')) else '1m'}]"

    return re.sub(rf"(?P<name>{names})\b(?:\[(?P<span>\w+)\])?", inlined, expression)


def outputs() -> dict[Path, str]:
    """Each generated file with its content."""
    source = SOURCE.read_text(encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    return {
        ROOT / "alerts" / "prometheus.rules.yaml": _prometheus(),
        GRAFANA: _grafana(),
        CHART / "files" / "rules.yaml": _without_head(source, "alerts/rules.yaml"),
        CHART / "files" / "parameters.yaml": _parameters(),
        PAGE: updated(updated(page, "alerts", _alerts_table()), "parameters", _parameters_table()),
    }


def _without_head(text: str, source: str) -> str:
    """`text` with a notice in the place of the comment it starts with."""
    body = re.sub(r"\A(#.*\n)+", "", text)
    return f"{NOTICE} from {source}\n{body}"


def _prometheus() -> str:
    defaults = {name: parameter["default"] for name, parameter in parameters().items()}
    text = _without_head(SOURCE.read_text(encoding="utf-8"), "alerts/rules.yaml")
    return with_parameters(text, defaults)


def _grafana() -> str:
    tree = {
        "apiVersion": 1,
        "groups": [
            {
                "orgId": 1,
                "name": group["name"],
                "folder": _GRAFANA_FOLDER,
                "interval": "1m",
                "rules": [_grafana_rule(rule) for rule in group["rules"] if "alert" in rule],
            }
            for group in groups()
        ],
    }
    return f"{NOTICE} from alerts/rules.yaml\n" + yaml.safe_dump(tree, sort_keys=False, width=1000)


def _grafana_rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    """The rule as Grafana provisions it: the query finds what is wrong, B is true for each of it.

    A query's result may be 0 (of `up == 0`), so B asks whether it is above -1.
    """
    return {
        "uid": re.sub(r"(?<!^)(?=[A-Z])", "-", rule["alert"]).lower()[:40],
        "title": rule["alert"],
        "condition": "B",
        "data": [
            {
                "refId": "A",
                "relativeTimeRange": {"from": 600, "to": 0},
                "datasourceUid": _GRAFANA_DATA_SOURCE,
                "model": {
                    "refId": "A",
                    "expr": without_records(rule["expr"].strip()),
                    "instant": True,
                },
            },
            {
                "refId": "B",
                "datasourceUid": "__expr__",
                "model": {
                    "refId": "B",
                    "type": "threshold",
                    "expression": "A",
                    "conditions": [{"evaluator": {"type": "gt", "params": [-1]}}],
                },
            },
        ],
        # A query that finds nothing finds nothing wrong.
        "noDataState": "OK",
        "execErrState": "Error",
        "for": rule.get("for", "0s"),
        "keepFiringFor": rule.get("keep_firing_for", "0s"),
        "annotations": {name: _grafana_text(text) for name, text in rule["annotations"].items()},
        "labels": dict(rule["labels"]),
    }


def _grafana_text(text: str) -> str:
    """Grafana's $value is a text about all queries, and its templates can't query."""
    text = re.sub(r"\{\{ with query .*?\{\{/\* query \*/\}\}", "", text)
    return text.replace("$value", "$values.A.Value")


def _alerts_table() -> str:
    rows = [
        (
            f"[{rule['alert']}](runbooks/{rule['alert']}.md)",
            rule["labels"]["severity"],
            rule.get("for", "at once"),
        )
        for rule in rules()
    ]
    return table(("alert", "severity", "after"), rows)


def _parameters_table() -> str:
    rows = [
        (f"`{name}`", f"`{parameter['default']}`", parameter["help"])
        for name, parameter in parameters().items()
    ]
    return table(("parameter", "default", "meaning"), rows)
