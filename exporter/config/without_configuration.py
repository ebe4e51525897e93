"""What is watched without any configuration: every workflow of the environment's account.

The credential and the account's id are in the environment, under the names that Cloudflare's own
tools read.
"""

from collections.abc import Mapping
from typing import Any

from exporter.config import environment
from exporter.config.accounts import ENV_ACCOUNT, ENV_EMAIL, ENV_KEY, ENV_TOKEN, Discover, Workflow
from exporter.config.settings import Settings
from exporter.config.validation import Loc

_EVERY = Workflow(name="*", discover=Discover())
VARIABLES: dict[Loc, str] = {
    ("accounts", 0, "account_id"): ENV_ACCOUNT,
    ("accounts", 0, "api_token"): ENV_TOKEN,
    ("accounts", 0, "api_email"): ENV_EMAIL,
    ("accounts", 0, "api_key"): ENV_KEY,
}
"""The keys of the account, and the variable that each comes from."""
MISSING = f"set {ENV_TOKEN} to watch a whole account, or name a file with --config.file"
_UNKNOWN = "-"
"""Stands for the account's id until that is known."""


def accounts(environ: Mapping[str, str]) -> list[dict[str, Any]] | None:
    """The value of `accounts` where nothing is configured; None: there is no credential."""
    if not environment.credential(environ):
        return None
    account_id = environ.get(ENV_ACCOUNT, "").strip()
    name = {} if account_id else {"name": "the account of the credential"}
    workflows = [{"name": _EVERY.name, "discover": {}}]
    return [{**name, "account_id": account_id or _UNKNOWN, "workflows": workflows}]


def is_watched(settings: Settings) -> bool:
    """Whether these settings watch everything of a single account."""
    return len(settings.accounts) == 1 and settings.accounts[0].workflows == [_EVERY]


def lacks_id(settings: Settings) -> bool:
    """Whether the account's id is still to be requested from the API."""
    return settings.accounts[0].account_id == _UNKNOWN
