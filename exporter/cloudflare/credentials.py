"""How requests authenticate: an API token, or the older e-mail and global API key."""

import contextlib
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from pydantic import SecretStr

from exporter import logs
from exporter.config.accounts import Account
from exporter.config.errors import ConfigError


class Secret:
    """A secret given as it is, or in a file that is read at each use, since it may change.

    Raises:
        OSError: the file can't be read at first; later, the last secret read stays in use.
        ValueError: the secret is empty or can't stand in a header; it isn't repeated.
    """

    def __init__(self, source: SecretStr | Path) -> None:
        self._source = source
        self._value = self._read()

    def reveal(self) -> str:
        # While a secret is being replaced, its file may be missing or half written for a moment.
        with contextlib.suppress(OSError, ValueError):
            self._value = self._read()
        return self._value

    def _read(self) -> str:
        if isinstance(self._source, SecretStr):
            return _checked(self._source.get_secret_value(), "the value")
        # Bytes that aren't UTF-8 are refused like all else that can't be part of a secret.
        text = self._source.read_text(encoding="utf-8", errors="replace")
        return _checked(text, str(self._source))


def _checked(secret: str, where: str) -> str:
    secret = secret.strip()
    if not secret:
        raise ValueError(f"{where} is empty; an API token or key is expected")
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        raise ValueError(f"{where} holds characters that no API token or key has")
    return secret


class Credential(httpx.Auth):
    """Puts a credential on each request; none at all for an upstream that asks for none."""

    def __init__(
        self,
        *,
        token: SecretStr | Path | None = None,
        email: str | None = None,
        key: SecretStr | Path | None = None,
    ) -> None:
        self._token = Secret(token) if token else None
        self._key = Secret(key) if key else None
        self._email = email
        self.budget_key: object = tuple(s and s.reveal() for s in (self._token, self._key))
        """Equal for credentials that share a budget: the same token or key, from wherever."""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {self._token.reveal()}"
        elif self._key is not None:
            request.headers["X-Auth-Email"] = self._email or ""
            request.headers["X-Auth-Key"] = self._key.reveal()
        yield request

    def scrub(self, text: str) -> str:
        """`text` without the secret, should an upstream have sent it back."""
        for secret in (self._token, self._key):
            if secret is not None:
                text = text.replace(secret.reveal(), "***")
        return text


class Credentials(NamedTuple):
    """Those of an account."""

    account: Account
    api: Credential
    events: Credential | None
    """For the queue of its events, if it has one."""


def read_credentials(accounts: Sequence[Account]) -> list[Credentials]:
    """The credentials of each account; no line of the log shows their secrets from now on.

    Raises:
        ConfigError: a file that holds a secret can't be used; every such file is named.
    """
    problems: list[str] = []

    def read(place: str, **given: Any) -> Credential:
        try:
            credential = Credential(**given)
        except OSError as error:
            problems.append(f"{place}: {error.filename}: {error.strerror}")
        except ValueError as error:
            problems.append(f"{place}: {error}")
        else:
            logs.hide(credential)
            return credential
        return Credential()  # never used

    made = []
    for n, account in enumerate(accounts):
        place, events = f"accounts[{n}]", account.events
        token, key = account.api_token or account.api_token_file, account.api_key
        api = read(place, token=token, email=account.api_email, key=key or account.api_key_file)
        queue = events and (events.api_token or events.api_token_file)
        pulls = read(f"{place}.events", token=queue) if queue else None
        made.append(Credentials(account, api, pulls))
    if problems:
        raise ConfigError(problems)
    return made
