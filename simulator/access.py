"""Who may call: API tokens, and pairs of email and key, each belonging to a user."""

from collections.abc import Iterable, Mapping

from msgspec import Struct

PERMISSIONS = frozenset({"Workers Tail Read", "Workers Scripts Read", "Workers Scripts Write"})
"""Any one of these opens the Workflows endpoints."""


class RefusedError(Exception):
    """A call that isn't let through.

    Cloudflare says "Authentication error" with code 10000 whatever is wrong: 401 when it doesn't
    know the caller, 403 when the caller may not do this.
    """

    def __init__(self, status: int) -> None:
        super().__init__("Authentication error")
        self.status = status


class Credential(Struct, frozen=True):
    """A user's credential, or one that an account owns. `accounts` None opens all of them; a key
    has every permission."""

    user: str
    permissions: frozenset[str] = PERMISSIONS
    accounts: frozenset[str] | None = None
    account_owned: bool = False

    def opens(self, account_id: str) -> bool:
        return self.accounts is None or account_id in self.accounts

    def check(self, account_id: str) -> None:
        """Whether it opens the workflows of an account.

        Raises:
            RefusedError: it doesn't.
        """
        if not self.permissions & PERMISSIONS or not self.opens(account_id):
            raise RefusedError(403)


class Access:
    """The credentials a world accepts."""

    def __init__(self) -> None:
        self._tokens: dict[str, Credential] = {}
        self._keys: dict[tuple[str, str], Credential] = {}

    def token(
        self,
        secret: str,
        *,
        user: str = "user@example.com",
        permissions: Iterable[str] = PERMISSIONS,
        accounts: Iterable[str] | None = None,
        account_owned: bool = False,
    ) -> None:
        """Accept an API token."""
        opened = None if accounts is None else frozenset(accounts)
        self._tokens[secret] = Credential(user, frozenset(permissions), opened, account_owned)

    def key(self, email: str, secret: str, *, accounts: Iterable[str] | None = None) -> None:
        """Accept an email with its Global API key."""
        opened = None if accounts is None else frozenset(accounts)
        self._keys[email, secret] = Credential(email, PERMISSIONS, opened)

    def revoke(self, secret: str) -> None:
        """Accept that token or key no longer."""
        self._tokens.pop(secret, None)
        self._keys = {pair: c for pair, c in self._keys.items() if pair[1] != secret}

    def caller(self, headers: Mapping[str, str]) -> Credential:
        """The credential of a request (header names in lower case).

        Raises:
            RefusedError: the caller is unknown.
        """
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            credential = self._tokens.get(secret)
        else:
            email, key = headers.get("x-auth-email", ""), headers.get("x-auth-key", "")
            credential = self._keys.get((email, key))
        if credential is None:
            raise RefusedError(401)
        return credential
