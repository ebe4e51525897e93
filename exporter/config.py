"""Reads the configuration, and says everything that is wrong with it in one go."""

import difflib
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_settings import CliSettingsSource, SettingsError

from exporter.settings import ENV_PREFIX, Settings

Loc = tuple[int | str, ...]

_SECRET_KEYS = frozenset({"api_token", "api_key", "api_email"})


class ConfigError(Exception):
    """The configuration can't be used; `mistakes` holds a line for each."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("; ".join(mistakes))
        self.mistakes = mistakes


def load(
    path: Path | None, flags: CliSettingsSource[Any] | None, environ: Mapping[str, str]
) -> Settings:
    """Settings from the file, the environment and the flags, in rising rank.

    Args:
        path: The file; None for none.
        flags: What the command line gave.
        environ: Only looked through for misspelt names; values are read by pydantic-settings.

    Raises:
        ConfigError: with every mistake.
    """
    unknown = list(_unknown_variables(environ))
    try:
        content = _read(path) if path else {}
        if flags is None:
            settings = Settings(**content)
        else:
            settings = Settings(_cli_settings_source=flags, **content)
    except ValidationError as error:
        lines = [_line(e["loc"], e["type"], e["msg"], e["input"]) for e in error.errors()]
        raise ConfigError(lines + unknown) from None
    except SettingsError as error:
        # From a variable or flag that should hold JSON; the cause repeats the value, this doesn't.
        raise ConfigError([f"{error}: it must be JSON", *unknown]) from None
    if unknown:
        raise ConfigError(unknown)
    return settings


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, which YAML forbids and PyYAML takes."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode):
                if key_node.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key_node.value!r} is there twice",
                        problem_mark=key_node.start_mark,
                    )
                seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_bytes(), Loader=_Loader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise ConfigError([f"{path}: can't be read: {error.strerror}"]) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError([f"{path}: {where}not valid YAML: {error.problem}"]) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError([f"{path}: not valid YAML: {str(error).splitlines()[0]}"]) from None
    if content is None:
        content = {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError([f"{path}: must be a mapping with keys such as accounts and poll"])
    # A section with every key commented out is an empty one.
    return {key: {} if value is None else value for key, value in content.items()}


def _line(loc: Loc, kind: str, text: str, given: object) -> str:
    where = _path(loc)
    match kind:
        case "extra_forbidden":
            return f"{where}: {_unknown(loc)}"
        case "missing":
            return f"{where}: is missing"
    text = text.removeprefix("Value error, ").removeprefix("Input ")
    text = text[:1].lower() + text[1:]
    if kind == "string_type" and isinstance(given, int | float):
        text += "; put it in quotes"
    shown = isinstance(given, str | int | float) and not _SECRET_KEYS & set(loc)
    return f"{where}: {text}" + (f" (it is {str(given)[:60]!r})" if shown else "")


def _path(loc: Loc) -> str:
    path = ""
    for part in loc:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path or "configuration"


def _unknown(loc: Loc) -> str:
    known = list(_keys(loc[:-1]))
    near = difflib.get_close_matches(str(loc[-1]), known, n=1)
    if near:
        return f"is no key; did you mean {near[0]}?"
    return f"is no key; known here are {', '.join(known)}"


def _keys(loc: Loc) -> Iterator[str]:
    """The keys that are known at a place in the tree."""
    model: type[BaseModel] | None = Settings
    for part in loc:
        if model is not None and isinstance(part, str):
            field = model.model_fields.get(part)
            model = _model(field.annotation) if field else None
    yield from model.model_fields if model is not None else ()


def _model(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and not get_origin(annotation):
        return annotation if issubclass(annotation, BaseModel) else None
    if get_origin(annotation) in (list, Union, types.UnionType):
        return next(filter(None, map(_model, get_args(annotation))), None)
    return None


def _unknown_variables(environ: Mapping[str, str]) -> Iterator[str]:
    """Misspelt CWE_ variables. Names without `__` may be Kubernetes' own, of a service `cwe`."""
    for name in sorted(environ):
        if name.startswith(ENV_PREFIX) and "__" in name and name != "CWE_CONFIG__FILE":
            loc = tuple(name.removeprefix(ENV_PREFIX).lower().split("__"))
            for depth, part in enumerate(loc):
                known = set(_keys(loc[:depth]))
                if known and part not in known:
                    yield f"{name}: {_unknown(loc[: depth + 1])}"
                    break
