"""What is watched without any configuration: every workflow of the environment's account.

The credential and the account's id are in the environment, under the names that Cloudflare's own
tools read. Where the id is missing, the API lists the accounts that the credential can read.
"""

from collections.abc import Mapping
from typing import Any

from exporter.clock import Clock
from exporter.cloudflare import access
from exporter.cloudflare.budget import Budget
from exporter.cloudflare.errors import RequestFailed
from exporter.config.errors import ConfigError
from exporter.config.settings import Discover, Settings, Workflow
from exporter.config.validation import (
    ENV_ACCOUNT,
    ENV_EMAIL,
    ENV_KEY,
    ENV_TOKEN,
    Loc,
    credential_of,
)
from exporter.logs import printable

_EVERY = Workflow(name="*", discover=Discover())
VARIABLES: dict[Loc, str] = {
    ("accounts", 0, "account_id"): ENV_ACCOUNT,
    ("accounts", 0, "api_token"): ENV_TOKEN,
    ("accounts", 0, "api_email"): ENV_EMAIL,
    ("accounts", 0, "api_key"): ENV_KEY,
}
"""The keys of the account, each with the variable that it came from."""
MISSING = f"set {ENV_TOKEN} to watch a whole account, or name a file with --config.file"
_UNKNOWN = "-"
"""Stands for the id of an account until it is known."""
_SET = "set it to the id that Cloudflare's dashboard shows"
_MOST = 50
"""The largest page that Cloudflare gives of accounts."""


def accounts(environ: Mapping[str, str]) -> list[dict[str, Any]] | None:
    """The key `accounts` for a configuration without any; None where there is no credential."""
    if not credential_of(environ):
        return None
    account_id = environ.get(ENV_ACCOUNT)
    name = {} if account_id else {"name": "the account of the credential"}
    workflows = [{"name": _EVERY.name, "discover": {}}]
    return [{**name, "account_id": account_id or _UNKNOWN, "workflows": workflows}]


def is_watched(settings: Settings) -> bool:
    """Whether nothing narrows down what is watched of the only account."""
    return len(settings.accounts) == 1 and settings.accounts[0].workflows == [_EVERY]


def lacks_id(settings: Settings) -> bool:
    """Whether the account's id has to be asked for."""
    return settings.accounts[0].account_id == _UNKNOWN


async def find_id(settings: Settings) -> str:
    """The id of the only account that the credential can read.

    Raises:
        ConfigError: it can read none or several, each of which is named, or `api.url` doesn't say
            where accounts are listed.
        RequestFailed: the API could not be asked; another time it may.
    """
    if not settings.api.url.endswith("/accounts/{account_id}"):
        raise ConfigError([f"{ENV_ACCOUNT}: is missing"])
    account = settings.accounts[0].model_copy(update={"account_id": None})
    (credential,) = access.credentials([account])
    async with access.connections(settings) as http:
        client = access.client(
            settings,
            account,
            http=http,
            credential=credential,
            budget=Budget(settings.requests_per_5m, reserve=settings.api.reserve, clock=Clock()),
            on_request=lambda *_: None,
        )
        try:
            listed = await client.accounts(_MOST)
        except RequestFailed as failure:
            if failure.reason not in ("unauthorized", "http_4xx"):
                raise
            text = f"{ENV_ACCOUNT}: is missing, and the API lists no accounts: {failure}; {_SET}"
            raise ConfigError([text]) from None
    found = {account.id: account.name or "" for account in listed if account.id}
    if len(found) == 1:
        return next(iter(found))
    missing = f"{ENV_ACCOUNT}: is missing, and the credential can list"
    if not found:
        raise ConfigError([f"{missing} no account; {_SET}"])
    most = f" (the first {_MOST})" if len(found) == _MOST else ""
    lines = [printable(f"  {i}  {name}").replace("\n", "\\n") for i, name in found.items()]
    raise ConfigError([f"{missing} several; set it to the id of one of them{most}:", *lines])
