"""Reads the configuration, and says everything that is wrong with it in one go."""

import difflib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource

from exporter.config import flags, whole_account, yaml_file
from exporter.config.errors import ConfigError, line
from exporter.config.settings import ENV_PREFIX, Settings, leaves, model_of
from exporter.config.validation import Loc


def load(path: Path | None, given: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """Settings from the file, the environment and the flags, in rising rank.

    Where none of them names accounts and there is no file, all of the environment's account is
    watched.

    Args:
        path: The file; None for none.
        given: What the command line gave, as a tree like that of the file.
        environ: Names of variables, and the id of the account; other values are read by
            pydantic-settings.

    Raises:
        ConfigError: with every mistake.
    """
    misspelt = dict(_misspelt(environ))
    content = yaml_file.read(path) if path else {}
    tree = _merge(_merge(content, _Environment(Settings)()), given)
    whole = path is None and tree.get("accounts") is None
    if whole:
        tree["accounts"] = whole_account.accounts(environ)
    variables = whole_account.VARIABLES if whole else {}
    problems = []
    try:
        settings = Settings(**tree)
    except ValidationError as error:
        for e in error.errors():
            loc, kind = e["loc"], e["type"]
            if not _is_of(misspelt, loc, kind):
                origin = variables.get(loc) or _origin(loc, given, environ)
                hint = f"; {whole_account.MISSING}" if whole and loc == ("accounts",) else ""
                problems.append(line(loc, kind, e["msg"], e["input"], origin) + hint)
    problems += misspelt.values()
    if problems:
        raise ConfigError(problems)
    return settings


class _Environment(EnvSettingsSource):
    """The environment. What isn't JSON where it should be is left for the model to refuse, with
    its path and all else that is wrong."""

    def __call__(self) -> dict[str, Any]:
        tree = super().__call__()
        if isinstance(section := tree.get("config"), dict):
            # CWE_CONFIG__FILE names the file, and is none of the settings.
            section.pop("file", None)
        return tree

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        del field_name
        if model_of(field.annotation) is None:
            return flags.decoded(value, field)
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value


def _merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """Two trees in one; where both have a value, that of `high` stands."""
    merged = dict(low)
    for key, value in high.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[key] = _merge(below, value)
        else:
            merged[key] = value
    return merged


def _is_of(misspelt: Mapping[str, str], loc: Loc, kind: str) -> bool:
    """Whether a mistake only follows from the name of a variable, which is reported itself."""
    own = variable(loc)
    return kind in ("extra_forbidden", "list_type") and any(
        name == own or name.startswith(f"{own}__") for name in misspelt
    )


def variable(loc: Loc) -> str:
    """The environment variable of a key."""
    return ENV_PREFIX + "__".join(map(str, loc)).upper()


def _origin(loc: Loc, given: Mapping[str, Any], environ: Mapping[str, str]) -> str:
    """The flag or variable that a value came from; empty for the file."""
    names = {name.upper(): name for name in environ}
    for length in range(len(loc), 0, -1):
        part = loc[:length]
        tree: Any = given
        for key in part:
            tree = tree.get(key) if isinstance(tree, Mapping) else None
        if tree is not None and not isinstance(tree, Mapping):
            return flags.name(tuple(map(str, part)))
        if variable(part) in names:
            return names[variable(part)]
    return ""


def _misspelt(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Misspelt CWE_ variables, each with what is wrong.

    Names without `__` are only looked at when they are near a right one: Kubernetes makes
    `CWE_PORT` and such for a service that is called `cwe`.
    """
    right = {variable(loc[:length]) for loc, _ in leaves() for length in range(1, len(loc) + 1)}
    for name in sorted(environ):
        upper = name.upper()
        if not upper.startswith(ENV_PREFIX) or upper in right or upper == "CWE_CONFIG__FILE":
            continue
        near = difflib.get_close_matches(upper, right, n=1, cutoff=0.6)
        if "__" in name:
            hint = f"did you mean {near[0]}?" if near else "known are CWE_ and a key's path"
            yield upper, f"{name}: is no setting; {hint}"
        elif near and upper.replace("_", "") == near[0].replace("_", ""):
            yield upper, f"{name}: is no setting; did you mean {near[0]}?"
