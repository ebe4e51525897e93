"""How requests authenticate: an API token, or the older e-mail and global API key."""

import os
from collections.abc import Generator, Sequence
from pathlib import Path

import httpx
from pydantic import SecretStr

from exporter import logs
from exporter.config.accounts import Account
from exporter.config.errors import ConfigError


class Secret:
    """A secret given as it is, or in a file that is read again whenever it changes.

    Raises:
        OSError: the file can't be read at first; later, the last secret read stays in use.
        ValueError: the secret is empty or can't stand in a header; it isn't repeated.
    """

    def __init__(self, source: SecretStr | Path) -> None:
        self._path = source if isinstance(source, Path) else None
        self._stamp: object = None
        self._value = ""
        if isinstance(source, SecretStr):
            self._value = _checked(source.get_secret_value(), "the value")
        else:
            self._reread(source)

    def reveal(self) -> str:
        if self._path is not None:
            try:
                self._reread(self._path)
            except (OSError, ValueError):
                # A secret is being replaced: the file may be missing or half written for a moment.
                return self._value
        return self._value

    def _reread(self, path: Path) -> None:
        status = os.stat(path)
        stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
        if stamp != self._stamp:
            # Bytes that aren't UTF-8 are refused like all else that can't be part of a secret.
            text = path.read_text(encoding="utf-8", errors="replace")
            self._value = _checked(text, str(path))
            self._stamp = stamp


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

    @property
    def budget_key(self) -> object:
        """Equal for credentials that share a budget: the same token or key, from wherever."""
        return tuple(s and s.reveal() for s in (self._token, self._key))

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


def read_credentials(accounts: Sequence[Account]) -> list[Credential]:
    """The credential of each account; no line of the log shows its secret from now on.

    Raises:
        ConfigError: a file that holds a secret can't be used; every such file is named.
    """
    made, problems = [], []
    for index, account in enumerate(accounts):
        try:
            made.append(
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
    for credential in made:
        logs.hide(credential)
    return made
