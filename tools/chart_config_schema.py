"""The JSON schema of the chart's value `config`, from the exporter's settings."""

from collections.abc import Mapping
from typing import Any

from exporter.config.settings import Settings

CHARTS_OWN = ("web", "config")
"""Sections of the configuration that other values of the chart set."""

_NULL = {"type": "null"}
_UNUSED = ("$ref", "$defs", "anyOf", "title", "default", "format", "writeOnly")
"""Keys of pydantic's schema that Helm doesn't need, or that are resolved."""


def config_schema() -> dict[str, Any]:
    """What the value `config` may hold: the exporter's settings without those of the chart's own.

    Without references and alternatives, so that Helm's message is one line with the key's path.
    """
    made = Settings.model_json_schema()
    plain: dict[str, Any] = _inlined(made, made["$defs"])
    for name in CHARTS_OWN:
        del plain["properties"][name]
    # A template has a better message for a missing one (templates/_helpers.tpl).
    del plain["required"]
    return {**plain, "description": "The exporter's configuration"}


def _inlined(node: dict[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """A schema of pydantic's with its references resolved, each key that may be left out nullable,
    as the exporter takes it, and no more than Helm needs."""
    if reference := node.get("$ref"):
        node = {**definitions[reference.rpartition("/")[2]], **node}
    plain = {key: value for key, value in node.items() if key not in _UNUSED}
    if "description" in plain:
        plain["description"] = " ".join(plain["description"].split())
    if alternatives := node.get("anyOf"):
        kinds = [_inlined(kind, definitions) for kind in alternatives if kind != _NULL]
        plain |= kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
        plain = _nullable(plain) if _NULL in alternatives else plain
    if "items" in node:
        plain["items"] = _inlined(node["items"], definitions)
    if "properties" in node:
        plain["properties"] = {
            name: below if name in node.get("required", ()) else _nullable(below)
            for name, child in node["properties"].items()
            for below in (_inlined(child, definitions),)
        }
    return plain


def _nullable(node: dict[str, Any]) -> dict[str, Any]:
    if "anyOf" in node:
        return {**node, "anyOf": [*node["anyOf"], _NULL]}
    if not isinstance(node["type"], str):
        return node
    more = {"enum": [*node["enum"], None]} if "enum" in node else {}
    return {**node, "type": [node["type"], "null"], **more}
