"""Asks the API for the id of the account to watch, if neither a file nor the environment has it."""

from exporter.cloudflare.client import ApiClient
from exporter.cloudflare.connections import http_client
from exporter.cloudflare.credentials import read_credentials
from exporter.cloudflare.errors import RequestFailed
from exporter.cloudflare.models import ListedAccount
from exporter.config.accounts import ENV_ACCOUNT
from exporter.config.errors import ConfigError
from exporter.config.settings import Settings
from exporter.logs import printable

_FIX = "set it to the id that Cloudflare's dashboard shows"
_LARGEST_PAGE = 50
"""Maximum accounts in one response of Cloudflare's."""


async def find_account_id(settings: Settings) -> str:
    """The id of the only account that the credential can read.

    Raises:
        ConfigError: it can read none, or several, whose names the error has; or `api.url` doesn't
            show where accounts are listed.
        RequestFailed: the request failed, and may succeed later.
    """
    if not settings.api.url.endswith("/accounts/{account_id}"):
        raise ConfigError(f"{ENV_ACCOUNT}: is missing")
    [(_, credential, _)] = read_credentials(settings.accounts)
    async with http_client(settings.api) as http:
        client = ApiClient(http, settings.api, None, credential)  # one request needs no budget
        url = f"{client.base_url}?per_page={_LARGEST_PAGE}"
        try:
            listed = (await client.send("accounts", url, list[ListedAccount])).result or []
        except RequestFailed as failure:
            if failure.reason not in ("unauthorized", "http_4xx"):
                raise
            first = "check the credential, then " if failure.reason == "unauthorized" else ""
            text = f"{ENV_ACCOUNT}: is missing, and the API lists no accounts: {failure}"
            raise ConfigError(f"{text}; {first}{_FIX}") from None
    found = {account.id: account.name or "" for account in listed if account.id}
    if len(found) == 1:
        return next(iter(found))
    missing = f"{ENV_ACCOUNT}: is missing, and the credential can read"
    if not found:
        raise ConfigError(f"{missing} no account; {_FIX}")
    first = f" (the first {_LARGEST_PAGE})" if len(found) == _LARGEST_PAGE else ""
    lines = [printable(f"  {i}  {name}").replace("\n", "\\n") for i, name in found.items()]
    raise ConfigError(f"{missing} several; set it to the id of one of them{first}:", *lines)
