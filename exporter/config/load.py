"""Loads the configuration, and reports everything that is wrong with it at once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from exporter.config import environment, flags, without_configuration, yaml_file
from exporter.config.errors import ConfigError, line
from exporter.config.settings import Settings
from exporter.config.validation import Loc


def load(path: Path | None, given: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """Settings from the file, the environment and the flags, in rising rank.

    Where none of them names accounts and there is no file, all of the environment's account is
    watched.

    Args:
        path: The file; None for none.
        given: What the command line gave, as a tree like that of the file.
        environ: The environment's variables.

    Raises:
        ConfigError: with everything that is wrong.
    """
    content = yaml_file.read(path) if path else {}
    values = _merged(_merged(content, environment.given(environ)), given)
    whole = path is None and values.get("accounts") is None
    if whole:
        values["accounts"] = without_configuration.accounts(environ)
    values["accounts"] = environment.with_credential(values.get("accounts"), environ)
    problems = []
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        for e in error.errors():
            loc = e["loc"]
            variables = without_configuration.VARIABLES if whole else {}
            origin = variables.get(loc) or _origin(loc, given, environ)
            hint = f"; {without_configuration.MISSING}" if whole and loc == ("accounts",) else ""
            problems.append(line(e, origin) + hint)
    problems += environment.unknown(environ)
    if problems:
        raise ConfigError(problems)
    return settings


def _merged(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """Two trees in one; where both have a value, that of `high` stands."""
    merged = dict(low)
    for key, value in high.items():
        below = merged.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = _merged(cast("Any", below), value) if both else value
    return merged


def _origin(loc: Loc, given: Mapping[str, Any], environ: Mapping[str, str]) -> str:
    """The flag or variable that a value came from; empty for the file."""
    names = {name.upper(): name for name in environ}
    for length in range(len(loc), 0, -1):
        part = loc[:length]
        value: Any = given
        for key in part:
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None and not isinstance(value, Mapping):
            return flags.name(tuple(map(str, part)))
        if environment.variable(part) in names:
            return names[environment.variable(part)]
    return ""
