"""Settings from the environment: `CWE_` variables, and the names that Cloudflare's tools read."""

import difflib
import json
from collections.abc import Iterator, Mapping
from typing import Any, cast

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource
from pydantic_settings.sources.types import EnvNoneType

from exporter.config.accounts import ENV_EMAIL, ENV_KEY, ENV_TOKEN
from exporter.config.secrets import gives_credential
from exporter.config.settings import Key, Settings, keys, model_of

FILE = "CWE_CONFIG__FILE"
"""The variable that names the configuration file; that isn't a setting."""
_PREFIX = "CWE_"


def variable(key: Key) -> str:
    """The environment variable of a key."""
    return _PREFIX + "__".join(key).upper()


_KNOWN = {variable(key): key for key, _ in keys()}
"""The keys by their variables."""


class _Texts(EnvSettingsSource):
    """Settings as texts, each with its path joined by `__`."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """Parses a list or section, which is JSON; a list of plain values may also be separated by
        commas."""
        del field_name
        if not model_of(field.annotation) and not value.lstrip().startswith("["):
            return [item.strip() for item in value.split(",")]
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value  # the model refuses it, together with everything else that is wrong


def variables(environ: Mapping[str, str]) -> dict[Key, str]:
    """The variables that give settings, by key; their names may be in lower case."""
    return {_KNOWN[name.upper()]: name for name in environ if name.upper() in _KNOWN}


def tree(texts: Mapping[Key, str]) -> dict[str, Any]:
    """The settings that variables and flags give, as a tree like that of the file.

    A whole section is given as JSON. A key of it that is given by itself overrides that. `null`
    stands for null.
    """
    source = _Texts(
        cast("type[BaseSettings]", Settings),  # of which only the fields are read
        case_sensitive=True,
        env_nested_delimiter="__",
        env_parse_none_str="null",
    )
    source.env_vars = {
        "__".join(key): EnvNoneType(text) if text == "null" else text
        for key, text in sorted(texts.items())
    }
    return source()


def credential(environ: Mapping[str, str]) -> dict[str, str]:
    """The credential that the environment has under the names of Cloudflare's tools, as keys of an
    account; empty: there is none."""
    if environ.get(ENV_TOKEN):
        return {"api_token": environ[ENV_TOKEN]}
    if environ.get(ENV_EMAIL) and environ.get(ENV_KEY):
        return {"api_email": environ[ENV_EMAIL].strip(), "api_key": environ[ENV_KEY]}
    return {}


def with_credential(accounts: object, environ: Mapping[str, str]) -> object:
    """The accounts, which may have any shape, with the environment's credential added to each that
    has none."""
    if not isinstance(accounts, list):
        return accounts
    own = credential(environ)
    return [
        account | own if isinstance(account, dict) and not gives_credential(account) else account
        for account in accounts
    ]


def unknown(environ: Mapping[str, str]) -> Iterator[str]:
    """Problems with misspelt `CWE_` variables.

    A name without `__` is only reported if it is close to a known one, since Kubernetes sets
    `CWE_PORT` and the like for a service that is called `cwe`.
    """
    for name in sorted(environ):
        upper = name.upper()
        if not upper.startswith(_PREFIX) or upper in _KNOWN or name == FILE:
            continue
        near = difflib.get_close_matches(upper, {FILE, *_KNOWN}, n=1, cutoff=0.6)
        misspelt = bool(near) and near[0].replace("_", "") == upper.replace("_", "")
        if "__" in name or misspelt:
            hint = f"did you mean {near[0]}?" if near else f"write {_PREFIX}SECTION__KEY"
            yield f"{name}: unknown variable; {hint}"
