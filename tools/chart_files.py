"""The chart's generated files: Chart.yaml, the table of its values, and their schema."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import yaml

from exporter import __version__
from tools import CHART, ROOT, alert_rules
from tools.chart_config_schema import config_schema
from tools.generated_sections import table, updated

VALUES = CHART / "values.yaml"
PAGE = CHART / "README.md"
ICON = ROOT / "exporter" / "web" / "page" / "assets" / "icon.svg"
SCHEMA = ROOT / "tools" / "values.schema.yaml"


class Value(NamedTuple):
    """A value of the chart: its dotted path, default, and the comment above it."""

    path: str
    default: Any
    help: str


def values() -> list[Value]:
    """Every documented value, in the file's order.

    Raises:
        ValueError: a value has no comment above it, nor have all those below it.
    """
    text = VALUES.read_text(encoding="utf-8")
    root = yaml.compose(text, Loader=yaml.CSafeLoader)
    assert isinstance(root, yaml.MappingNode)
    return list(_walk(root, text.splitlines(), ()))


def _walk(node: yaml.MappingNode, lines: list[str], path: tuple[str, ...]) -> Iterator[Value]:
    for key, child in node.value:
        here = (*path, key.value)
        if comment := _comment_above(lines, key.start_mark.line):
            yield Value(".".join(here), _data(child), comment)
        elif isinstance(child, yaml.MappingNode) and child.value:
            yield from _walk(child, lines, here)
        else:
            raise ValueError(f"{'.'.join(here)} has no comment above it")


def _comment_above(lines: list[str], line: int) -> str:
    words: list[str] = []
    while line and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        words.insert(0, lines[line].lstrip(" #"))
    return " ".join(words)


def _data(node: yaml.Node) -> Any:
    return msgspec.yaml.decode(yaml.serialize(node, Dumper=yaml.CSafeDumper))


def schema() -> dict[str, Any]:
    """`values.schema.json`: the source with what the exporter and the alerts define."""
    whole: dict[str, Any] = msgspec.yaml.decode(SCHEMA.read_text(encoding="utf-8"))
    whole["properties"]["config"] = config_schema()
    rule = whole["properties"]["prometheusRule"]["properties"]["parameters"]["properties"]
    for name, parameter in alert_rules.parameters().items():
        if name not in rule:
            rule[name] = _threshold(parameter["default"])
    _close(whole)
    return {"$comment": f"Made by `make docs` from {SCHEMA.relative_to(ROOT)}", **whole}


def _threshold(default: object) -> dict[str, Any]:
    if isinstance(default, float):
        return {"type": "number", "exclusiveMinimum": 0, "maximum": 1}
    if isinstance(default, int):
        return {"type": "integer", "minimum": 1}
    raise TypeError(f"{default!r}: {SCHEMA.name} must have the type of this parameter")


def _close(node: Any) -> None:
    """Forbids keys beyond the `properties` of each object, unless it has a rule of its own."""
    if isinstance(node, dict):
        if isinstance(node.get("properties"), dict) and "type" in node:
            node.setdefault("additionalProperties", False)
        for child in node.values():
            _close(child)
    elif isinstance(node, list):
        for child in node:
            _close(child)


def project() -> str:
    """The project in Chart.yaml, from pyproject.toml."""
    repository = alert_rules.repository()
    image = msgspec.yaml.decode(VALUES.read_text(encoding="utf-8"))["image"]["repository"]
    images = [
        {
            "name": "exporter",
            "image": f"{image}:{__version__}",
            "platforms": ["linux/amd64", "linux/arm64"],
        }
    ]
    urls = alert_rules.urls()
    links = [{"name": n, "url": url} for n, url in urls.items() if url != repository]
    tree = {
        # The image's tag, unless image.tag says otherwise.
        "appVersion": __version__,
        "home": repository,
        "sources": [repository],
        "icon": f"{repository}/raw/main/{ICON.relative_to(ROOT)}",
        "maintainers": [{"name": repository.rpartition("/")[2], "url": repository}],
        "annotations": {
            "artifacthub.io/category": "monitoring-logging",
            "artifacthub.io/images": _dumped(images),
            "artifacthub.io/license": "Apache-2.0",
            "artifacthub.io/links": _dumped(links),
        },
    }
    return _dumped(tree).rstrip()


def _dumped(tree: object) -> str:
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, width=1000)


class _Dumper(yaml.SafeDumper):
    """Writes a text of several lines as one."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    ),
)


def outputs() -> dict[Path, str]:
    """Each generated file with its content."""
    rows = [(f"`{v.path}`", f"`{json.dumps(v.default)}`", v.help) for v in values()]
    page = PAGE.read_text(encoding="utf-8")
    sheet = CHART / "Chart.yaml"
    return {
        sheet: updated(sheet.read_text(encoding="utf-8"), "project", project()),
        PAGE: updated(page, "values", table(("value", "default", "meaning"), rows)),
        CHART / "values.schema.json": json.dumps(schema(), indent=2, ensure_ascii=False) + "\n",
    }
