"""Every setting as a flag: `--poll.interval=5s`."""

import argparse
import difflib
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NoReturn, get_args, get_origin

from pydantic import ByteSize
from pydantic.fields import FieldInfo

from exporter.config.settings import Key, Settings, leaves, model_of
from exporter.config.units import Duration

_METAVARS = {
    bool: "true|false",
    int: "N",
    float: "N",
    str: "TEXT",
    Duration: "DURATION",
    ByteSize: "SIZE",
    Path: "FILE",
}
_KINDS = {("api", "url"): "URL", ("state", "url"): "URL", ("web", "listen_address"): "HOST:PORT"}
"""What a flag's value is, where its type doesn't say that."""
_SHARED_NAMES = {("web", "config_file"): "--web.config.file"}
"""Names that Prometheus' exporters share; those that follow from the key work too."""


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


def name(key: Key) -> str:
    """The flag of a key."""
    return _names(key)[0]


def _names(key: Key) -> list[str]:
    own = "--" + ".".join(key).replace("_", "-")
    return [_SHARED_NAMES[key], own] if key in _SHARED_NAMES else [own]


def add(parser: argparse.ArgumentParser) -> None:
    """Adds a flag for every setting."""
    sections = Settings.model_fields.items()
    groups = {name: parser.add_argument_group(name, s.description) for name, s in sections}
    for key, field in leaves():
        kind = _kind(field)
        default = "required" if field.is_required() else f"default: {shown(field.default)}"
        described = "As in the file, in JSON." if key == ("accounts",) else field.description
        options: dict[str, Any] = {"nargs": "?", "const": "true"} if kind is bool else {}
        groups[key[0]].add_argument(
            *_names(key),
            dest=".".join(key),
            metavar=takes(key, field),
            default=argparse.SUPPRESS,
            help=f"{described} ({default})".replace("%", "%%"),
            **options,
        )


def given(namespace: argparse.Namespace) -> dict[Key, str]:
    """The settings that flags gave, by key."""
    flags = vars(namespace)
    return {key: flags[dest] for key, _ in leaves() if (dest := ".".join(key)) in flags}


def _kind(field: FieldInfo) -> Any:
    kinds = [kind for kind in get_args(field.annotation) if kind is not NoneType]
    optional = NoneType in get_args(field.annotation)
    return kinds[0] if optional else field.annotation


def takes(key: Key, field: FieldInfo) -> str:
    """The kind of a flag's value, as help shows it: `DURATION`, say."""
    kind = _kind(field)
    if key in _KINDS:
        text = _KINDS[key]
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
