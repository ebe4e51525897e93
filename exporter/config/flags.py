"""Every setting as a flag: `--poll.interval=5s`."""

import argparse
import difflib
import json
from collections.abc import Iterable, Mapping
from functools import reduce
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NoReturn, cast, get_args, get_origin

from pydantic import ByteSize
from pydantic.fields import FieldInfo

from exporter.config.settings import Settings, leaves, model_of
from exporter.config.units import Duration

Loc = tuple[str, ...]

_METAVARS = {
    bool: "true|false",
    int: "N",
    float: "N",
    str: "TEXT",
    Duration: "DURATION",
    ByteSize: "SIZE",
    Path: "FILE",
}
_SPECIAL = {"api.url": "URL", "web.listen_address": "HOST:PORT", "shard.index": "N|auto"}
# The name that Prometheus' exporters share, and the one that follows from the key.
_NAMES: dict[Loc, tuple[str, ...]] = {
    ("web", "config_file"): ("--web.config.file", "--web.config-file")
}


class Parser(argparse.ArgumentParser):
    """Reports what is wrong in one line, and never shows the value of an unknown flag."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            flag = unknown[0].partition("=")[0]
            if not flag.startswith("-"):
                self.error(f"unexpected {flag!r}; settings are given as --FLAG=VALUE")
            near = difflib.get_close_matches(flag, self._option_string_actions, n=1)
            self.error(f"unknown flag {flag}" + (f"; did you mean {near[0]}?" if near else ""))
        return options

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\nsee {self.prog} --help\n")


def name(loc: Loc) -> str:
    """The flag of a key."""
    return _NAMES.get(loc, ("--" + ".".join(loc).replace("_", "-"),))[0]


def add(parser: argparse.ArgumentParser) -> None:
    """Adds a flag for every setting."""
    groups: dict[str, Any] = {}
    for loc, field in leaves():
        if loc[0] not in groups:
            title = Settings.model_fields[loc[0]].description
            groups[loc[0]] = parser.add_argument_group(loc[0], title)
        kind = _kind(field)
        default = "required" if field.is_required() else f"default: {shown(field.default)}"
        described = field.description or ""
        if loc == ("accounts",):
            described = "As in the file, in JSON."
        options: dict[str, Any] = {"nargs": "?", "const": "true"} if kind is bool else {}
        for flag in _NAMES.get(loc, (name(loc),)):
            text = f"{described} ({default})".strip().replace("%", "%%")
            groups[loc[0]].add_argument(
                flag,
                dest=".".join(loc),
                metavar=takes(loc, field),
                default=argparse.SUPPRESS,
                help=text if flag == name(loc) else argparse.SUPPRESS,
                **options,
            )


def given(namespace: argparse.Namespace) -> dict[str, Any]:
    """The settings that flags gave, as a tree like that of the file."""
    texts = vars(namespace)
    return tree(
        (loc, decoded(texts[".".join(loc)], field))
        for loc, field in leaves()
        if ".".join(loc) in texts
    )


def tree(values: Iterable[tuple[Loc, Any]]) -> dict[str, Any]:
    """Values in the places that their paths name."""
    branches = (reduce(lambda below, key: {key: below}, loc[::-1], value) for loc, value in values)
    return reduce(merge, branches, {})


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


def _kind(field: FieldInfo) -> Any:
    kinds = [kind for kind in get_args(field.annotation) if kind is not NoneType]
    optional = NoneType in get_args(field.annotation)
    return kinds[0] if optional else field.annotation


def takes(loc: Loc, field: FieldInfo) -> str:
    """The kind of a flag's value, as help shows it: `DURATION`, say."""
    kind = _kind(field)
    if ".".join(loc) in _SPECIAL:
        text = _SPECIAL[".".join(loc)]
    elif get_origin(kind) is Literal:
        text = "|".join(get_args(kind))
    elif get_origin(kind) is list:
        text = "JSON" if model_of(kind) else "N,N,..."
    else:
        text = _METAVARS[kind]
    return f"{text}|null" if NoneType in get_args(field.annotation) else text


def shown(default: object) -> str:
    """A default as the flag's value would be written."""
    match default:
        case None:
            return "null"
        case bool():
            return str(default).lower()
        case ByteSize():
            return default.human_readable().replace(".0", "")
        case list():
            items = (f"{i:g}" if isinstance(i, int | float) else str(i) for i in default)
            return ",".join(items) or "none"
        case _:
            return str(default)
