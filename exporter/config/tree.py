"""Settings as a tree of plain values, put together from files, environment variables and flags."""

import json
from collections.abc import Iterable, Mapping
from types import NoneType
from typing import Any, cast, get_args, get_origin

from pydantic.fields import FieldInfo

from exporter.config.settings import model_of
from exporter.config.validation import Loc


def of(values: Iterable[tuple[Loc, Any]]) -> dict[str, Any]:
    """Values in the places that their paths name."""
    made: dict[str, Any] = {}
    for loc, value in values:
        made = merge(made, _nested(loc, value))
    return made


def _nested(loc: Loc, value: Any) -> Any:
    return {loc[0]: _nested(loc[1:], value)} if loc else value


def merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """Two trees in one; where both have a value, that of `high` stands."""
    merged = dict(low)
    for key, value in high.items():
        below = merged.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(cast("Any", below), value) if both else value
    return merged


def decoded(text: str, field: FieldInfo) -> Any:
    """A flag's or variable's text as the file would give it; unchanged when it can't be read.

    Lists are written as JSON, or those of plain values with commas; `null` is null.
    """
    if text == "null" and NoneType in get_args(field.annotation):
        return None
    is_list, holds_keys = get_origin(field.annotation) is list, model_of(field.annotation)
    if is_list and not holds_keys and not text.lstrip().startswith("["):
        return [item.strip() for item in text.split(",")]
    if is_list or holds_keys:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass  # refused by the model, with its path and all else that is wrong
    return text
