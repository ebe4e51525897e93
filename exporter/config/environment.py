"""Settings from the environment: `CWE_` variables, and the names that Cloudflare's tools read."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, cast

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource

from exporter.config import tree
from exporter.config.accounts import ENV_EMAIL, ENV_KEY, ENV_TOKEN
from exporter.config.settings import Settings, keys
from exporter.config.validation import Loc

FILE = "CWE_CONFIG__FILE"
"""Names the configuration file; isn't a setting."""
_PREFIX = "CWE_"


def variable(loc: Loc) -> str:
    """The environment variable of a key."""
    return _PREFIX + "__".join(map(str, loc)).upper()


class _Variables(EnvSettingsSource):
    """Variables by name in lower case. What isn't JSON where it should be is left for the model to
    refuse, with its path and all else that is wrong."""

    def __init__(self, values: Mapping[str, str]) -> None:
        super().__init__(
            cast("type[BaseSettings]", Settings),  # of which only the fields are read
            case_sensitive=True,
            env_prefix=_PREFIX.lower(),
            env_nested_delimiter="__",
        )
        self.env_vars = values

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        del field_name
        return tree.decoded(value, field)


def given(environ: Mapping[str, str]) -> dict[str, Any]:
    """The settings that `CWE_` variables give, as a tree like that of the file.

    Names may be in lower case. A whole section is given as JSON.
    """
    known = {variable(loc).lower(): (loc, field) for loc, field in keys()}
    values = {n: value for name, value in environ.items() if (n := name.lower()) in known}
    nulls = [known[n][0] for n, value in values.items() if tree.decoded(value, known[n][1]) is None]
    return tree.merge(_Variables(values)(), tree.of((loc, None) for loc in nulls))


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
    return [account | own if _lacks_credential(account) else account for account in accounts]


def _lacks_credential(account: object) -> bool:
    keys = ("api_token", "api_token_file", "api_email", "api_key", "api_key_file")
    return isinstance(account, dict) and all(account.get(key) is None for key in keys)


def unknown(environ: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with misspelt `CWE_` variables.

    A name without `__` is only reported when it is close to a known one: Kubernetes makes
    `CWE_PORT` and such for a service that is called `cwe`.
    """
    known = {variable(loc) for loc, _ in keys()}
    for name in sorted(environ):
        upper = name.upper()
        if not upper.startswith(_PREFIX) or upper in known or upper == FILE:
            continue
        near = difflib.get_close_matches(upper, known, n=1, cutoff=0.6)
        if "__" in name:
            hint = f"did you mean {near[0]}?" if near else f"write {_PREFIX}SECTION__KEY"
            yield f"{name}: unknown variable; {hint}"
        elif near and upper.replace("_", "") == near[0].replace("_", ""):
            yield f"{name}: unknown variable; did you mean {near[0]}?"
