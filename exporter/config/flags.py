"""Every setting as a flag: `--poll.interval=5s`."""

import argparse
import difflib
import json
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NoReturn, get_args, get_origin

from pydantic.fields import FieldInfo

from exporter.config.durations import Duration
from exporter.config.settings import Settings, leaves, model_of
from exporter.config.sizes import Size

Loc = tuple[str, ...]

_METAVARS = {
    bool: "true|false",
    int: "N",
    float: "N",
    str: "TEXT",
    Duration: "DURATION",
    Size: "SIZE",
    Path: "FILE",
}
_SPECIAL = {"api.url": "URL", "web.listen_address": "HOST:PORT", "shard.index": "N|auto"}
# The name that Prometheus' exporters share, and the one that follows from the key.
_NAMES: dict[Loc, tuple[str, ...]] = {
    ("web", "config_file"): ("--web.config.file", "--web.config-file")
}


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and never shows the value of a flag it doesn't know."""

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
            described = "As in the file, written as JSON."
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
    tree: dict[str, Any] = {}
    for loc, field in leaves():
        text = getattr(namespace, ".".join(loc), None)
        if text is not None:
            section = tree
            for part in loc[:-1]:
                section = section.setdefault(part, {})
            section[loc[-1]] = decoded(text, field)
    return tree


def decoded(text: str, field: FieldInfo) -> Any:
    """A flag's or variable's text as the file would give it; as it is when it can't be read.

    Lists are written as JSON, or those of plain values with commas; `null` is null.
    """
    if text == "null" and NoneType in get_args(field.annotation):
        return None
    if get_origin(field.annotation) is not list:
        return text
    if text.lstrip().startswith("["):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    if model_of(field.annotation) is not None:
        return text
    return [item.strip() for item in text.split(",")]


def _kind(field: FieldInfo) -> Any:
    kinds = [kind for kind in get_args(field.annotation) if kind is not NoneType]
    optional = NoneType in get_args(field.annotation)
    return kinds[0] if optional else field.annotation


def takes(loc: Loc, field: FieldInfo) -> str:
    """What a flag takes, for people: `DURATION`, say."""
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
    """A default as a flag would be given it."""
    match default:
        case None:
            return "null"
        case bool():
            return str(default).lower()
        case list():
            items = (f"{i:g}" if isinstance(i, int | float) else str(i) for i in default)
            return ",".join(items) or "none"
        case _:
            return str(default)
