"""Settings from the environment: `CWE_` variables, and the names that Cloudflare's tools read."""

import contextlib
import difflib
import json
from collections.abc import Iterator, Mapping
from types import NoneType
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo

from exporter.config.accounts import ENV_EMAIL, ENV_KEY, ENV_TOKEN, gives_credential
from exporter.config.settings import Key, keys, model_of

FILE = "CWE_CONFIG__FILE"
"""Names the configuration file; isn't a setting."""
_PREFIX = "CWE_"


def variable(key: Key) -> str:
    """The environment variable of a key."""
    return _PREFIX + "__".join(key).upper()


def variables(environ: Mapping[str, str]) -> dict[Key, str]:
    """The variables that give settings, by key; their names may be in lower case."""
    known = {variable(key): key for key, _ in keys()}
    return {known[name.upper()]: name for name in environ if name.upper() in known}


def tree(texts: Mapping[Key, str]) -> dict[str, Any]:
    """The settings that variables and flags give, as a tree like that of the file.

    A whole section is given as JSON, and a key in it ranks above it; `null` is null.
    """
    fields = dict(keys())
    values: dict[str, Any] = {}
    for key in sorted(texts):  # a section comes before its keys
        value = _value(texts[key], fields[key])
        for name in reversed(key):
            value = {name: value}
        values = merged(values, value)
    return values


def _value(text: str, field: FieldInfo) -> Any:
    """A list or section is given as JSON, a list of plain values also with commas."""
    is_list, below = get_origin(field.annotation) is list, model_of(field.annotation)
    if text == "null" and NoneType in get_args(field.annotation):
        return None
    if is_list and below is None and not text.lstrip().startswith("["):
        return [item.strip() for item in text.split(",")]
    if is_list or below is not None:
        # Other text is refused by the model, with its path and all else that is wrong.
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(text)
    return text


def merged(low: Any, high: Any) -> Any:
    """Two trees in one; where both have a value, that of `high` stands."""
    if not isinstance(high, dict) or low is None:
        return high
    if not isinstance(low, dict):
        return low  # no section: refused by the model
    return low | {key: merged(low.get(key), value) for key, value in high.items()}


def credential(environ: Mapping[str, str]) -> dict[str, str]:
    """The credential under the names that Cloudflare's tools read, as keys of an account; empty
    where there is none."""
    if environ.get(ENV_TOKEN):
        return {"api_token": environ[ENV_TOKEN]}
    if environ.get(ENV_EMAIL) and environ.get(ENV_KEY):
        return {"api_email": environ[ENV_EMAIL], "api_key": environ[ENV_KEY]}
    return {}


def with_credential(accounts: object, environ: Mapping[str, str]) -> object:
    """Accounts of any shape, with the environment's credential in each that gives none itself."""
    if not isinstance(accounts, list):
        return accounts
    own = credential(environ)
    return [
        account | own if isinstance(account, dict) and not gives_credential(account) else account
        for account in accounts
    ]


def unknown(environ: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with misspelt `CWE_` variables.

    A name without `__` is only reported when it is close to a known one: Kubernetes makes
    `CWE_PORT` and such for a service that is called `cwe`.
    """
    known = {variable(key) for key, _ in keys()}
    for name in sorted(environ):
        upper = name.upper()
        if not upper.startswith(_PREFIX) or upper in known or name == FILE:
            continue
        near = difflib.get_close_matches(upper, {FILE, *known}, n=1, cutoff=0.6)
        misspelt = bool(near) and near[0].replace("_", "") == upper.replace("_", "")
        if "__" in name or misspelt:
            hint = f"did you mean {near[0]}?" if near else f"write {_PREFIX}SECTION__KEY"
            yield f"{name}: unknown variable; {hint}"
