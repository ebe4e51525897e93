"""The table of values in the chart's README, from `values.yaml` and its comments."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from generate import CHART
from generate.sections import table, updated

VALUES = CHART / "values.yaml"
PAGE = CHART / "README.md"


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
    root = yaml.compose(text, Loader=yaml.SafeLoader)
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
    return yaml.safe_load(yaml.serialize(node, Dumper=yaml.SafeDumper))


def outputs() -> dict[Path, str]:
    """Each generated file with its content."""
    rows = [(f"`{v.path}`", f"`{json.dumps(v.default)}`", v.help) for v in values()]
    page = PAGE.read_text(encoding="utf-8")
    return {PAGE: updated(page, "values", table(("value", "default", "meaning"), rows))}
