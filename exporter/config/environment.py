"""Settings from the environment: `CWE_` variables, and the names that Cloudflare's tools read."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from exporter.config import tree
from exporter.config.accounts import ENV_EMAIL, ENV_KEY, ENV_TOKEN
from exporter.config.settings import keys
from exporter.config.validation import Loc

FILE = "CWE_CONFIG__FILE"
"""Names the configuration file; isn't a setting."""
_PREFIX = "CWE_"


def variable(loc: Loc) -> str:
    """The environment variable of a key."""
    return _PREFIX + "__".join(map(str, loc)).upper()


def given(environ: Mapping[str, str]) -> dict[str, Any]:
    """The settings that `CWE_` variables give, as a tree like that of the file.

    Names may be in lower case. A whole section is given as JSON.
    """
    values = {name.upper(): value for name, value in environ.items()}
    return tree.of(
        (loc, tree.decoded(values[variable(loc)], field))
        for loc, field in keys()
        if variable(loc) in values
    )


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
