"""Loads the configuration, and reports everything that is wrong with it at once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from exporter.config import environment, flags, without_configuration, yaml_file
from exporter.config.errors import ConfigError, line
from exporter.config.settings import Key, Settings


def load(
    path: Path | None, given: dict[Key, str], environ: Mapping[str, str], *, pipe: bool = False
) -> Settings:
    """The settings from the file, the environment and the flags. Flags override the environment,
    and the environment overrides the file.

    If there is no file and nothing names accounts, the environment's whole account is watched.

    Args:
        path: The file; None: there is none.
        given: The settings that flags gave, by key.
        environ: The environment's variables.
        pipe: Whether it may be a pipe, which can only be read once.

    Raises:
        ConfigError: with everything that is wrong.
    """
    content = yaml_file.read(path, pipe=pipe) if path else {}
    variables = environment.variables(environ)
    texts = {key: environ[name] for key, name in variables.items()} | given
    origins: dict[Any, str] = {**variables, **{key: flags.name(key) for key in given}}
    values: dict[str, Any] = _merged(content, environment.tree(texts))
    whole = path is None and values.get("accounts") is None
    if whole:
        values["accounts"] = without_configuration.accounts(environ)
        origins |= without_configuration.VARIABLES
    values["accounts"] = environment.with_credential(values.get("accounts"), environ)
    problems = []
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        for e in error.errors():
            loc = e["loc"]
            above = (loc[:length] for length in range(len(loc), 0, -1))
            origin = next((origins[part] for part in above if part in origins), "")
            hint = f"; {without_configuration.MISSING}" if whole and loc == ("accounts",) else ""
            problems.append(line(e, origin) + hint)
    problems += environment.unknown(environ)
    if problems:
        raise ConfigError(*problems)
    return settings


def _merged(low: object, high: object) -> Any:
    """One tree made of two; `high` overrides `low`."""
    if not isinstance(high, dict) or low is None:
        return high
    if not isinstance(low, dict):
        return low  # not a section, which the model refuses
    return low | {key: _merged(low.get(key), value) for key, value in high.items()}
