"""How the API is reached with what the settings say: connections, credentials, clients."""

import httpx

from exporter import logs
from exporter.cloudflare.budget import Budget
from exporter.cloudflare.client import Client, OnIgnored, OnRequest
from exporter.cloudflare.connections import http_client
from exporter.cloudflare.credentials import Credential
from exporter.cloudflare.proxy import proxy_for
from exporter.config.errors import ConfigError
from exporter.config.settings import Account, Settings
from exporter.config.validation import is_loopback


def connections(
    settings: Settings, transport: httpx.AsyncBaseTransport | None = None
) -> httpx.AsyncClient:
    """The connections that all accounts share.

    Args:
        settings: All of them.
        transport: In place of sockets.

    Raises:
        ConfigError: the environment's proxy or certificates can't be used.
    """
    try:
        return http_client(
            timeout=settings.api.timeout,
            # A proxy of the environment is no way to this machine itself.
            proxy=None if is_loopback(settings.api.url) else proxy_for(settings.api.url),
            transport=transport,
        )
    except ValueError as error:
        raise ConfigError([str(error)]) from None


def credentials(accounts: list[Account]) -> list[Credential]:
    """The credential of each account.

    Raises:
        ConfigError: a file that holds a secret can't be used; every such file is named.
    """
    credentials, problems = [], []
    for index, account in enumerate(accounts):
        try:
            credentials.append(
                Credential(
                    token=account.api_token or account.api_token_file,
                    email=account.api_email,
                    key=account.api_key or account.api_key_file,
                )
            )
        except OSError as error:
            problems.append(f"accounts[{index}]: {error.filename}: {error.strerror}")
        except ValueError as error:
            problems.append(f"accounts[{index}]: {error}")
    if problems:
        raise ConfigError(problems)
    for credential in credentials:
        logs.hide(credential)
    return credentials


def client(
    settings: Settings,
    account: Account,
    *,
    http: httpx.AsyncClient,
    credential: Credential,
    budget: Budget,
    on_request: OnRequest,
    on_ignored: OnIgnored = lambda *_: None,
) -> Client:
    """The client of one account."""
    return Client(
        http,
        settings.api.url.replace("{account_id}", account.account_id or ""),
        credential,
        timeout=settings.api.timeout,
        max_body=settings.api.max_body,
        budget=budget,
        on_request=on_request,
        on_ignored=on_ignored,
    )
