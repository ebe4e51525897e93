"""How requests authenticate: an API token, or the older e-mail and global API key."""

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import NamedTuple

import httpx
from pydantic import SecretStr

from exporter import logs
from exporter.config.accounts import Account
from exporter.config.errors import ConfigError
from exporter.config.files import read_file
from exporter.config.secrets import secret_of


def _unusable(source: SecretStr | Path | None, error: OSError | ValueError) -> str:
    return f"{source}: {error.strerror}" if isinstance(error, OSError) else f"{source} {error}"


class Credential(httpx.Auth):
    """Adds a credential to each request.

    A file with a secret is read at each use, since it may change. If it can't be used later, the
    last secret that was read stays in use.

    Args:
        secret: An API token or, with an e-mail, a global API key, or the file that holds it; None:
            the upstream needs none.
        email: The e-mail of the global API key.

    Attributes:
        problem: Why the file can't be used now; empty: it can.
        budget_key: Equal for credentials that share a budget: those with the same token or key.

    Raises:
        OSError: the file can't be read.
        ValueError: the secret is empty, or can't be part of a header. The message doesn't show it.
    """

    def __init__(self, secret: SecretStr | Path | None = None, *, email: str | None = None) -> None:
        self._source, self._email = secret, email
        self._secret = self._read()
        self.budget_key: object = self._secret
        self.problem = ""

    def reveal(self) -> str | None:
        """The secret; None: there is none."""
        # While somebody replaces the secret, the file may be missing or incomplete for a moment.
        try:
            self._secret, self.problem = self._read(), ""
        except (OSError, ValueError) as error:
            self.problem = _unusable(self._source, error)
        return self._secret

    def _read(self) -> str | None:
        if self._source is None:
            return None
        if isinstance(self._source, SecretStr):
            return secret_of(self._source.get_secret_value())
        # Bytes that aren't UTF-8 become characters that are refused, as they can't be in a secret.
        return secret_of(read_file(self._source).decode("utf-8-sig", "replace"))

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if secret := self.reveal():
            if self._email is None:
                request.headers["Authorization"] = f"Bearer {secret}"
            else:
                request.headers.update({"X-Auth-Email": self._email, "X-Auth-Key": secret})
        yield request

    def scrub(self, text: str) -> str:
        """The text without the secret, in case an upstream has sent it back."""
        return text.replace(self._secret, "***") if self._secret else text


class Credentials(NamedTuple):
    """The credentials of an account."""

    account: Account
    api: Credential
    events: Credential | None
    """The one for the queue of its events; None: it has no queue."""


def read_credentials(accounts: Sequence[Account]) -> list[Credentials]:
    """The credentials of each account. From now on, no line of the log shows their secrets.

    Raises:
        ConfigError: a file that holds a secret can't be used. It names every such file.
    """
    problems: list[str] = []

    def read(place: str, secret: SecretStr | Path | None, email: str | None = None) -> Credential:
        try:
            credential = Credential(secret, email=email)
        except (OSError, ValueError) as error:
            problems.append(f"{place}_file: {_unusable(secret, error)}")
            return Credential()  # never used
        logs.scrubbers.add(credential)
        return credential

    made = []
    for n, account in enumerate(accounts):
        place, events = f"accounts[{n}]", account.events
        token, key = account.api_token or account.api_token_file, account.api_key
        name = "api_token" if token else "api_key"
        secret = token or key or account.api_key_file
        api = read(f"{place}.{name}", secret, account.api_email)
        queue = events and (events.api_token or events.api_token_file)
        queued = read(f"{place}.events.api_token", queue) if queue else None
        made.append(Credentials(account, api, queued))
    if problems:
        raise ConfigError(*problems)
    return made
