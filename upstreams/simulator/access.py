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
    """A user's credential. `accounts` None opens all of them; a key has every permission."""

    user: str
    permissions: frozenset[str] = PERMISSIONS
    accounts: frozenset[str] | None = None


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
    ) -> None:
        """Accept an API token."""
        opened = None if accounts is None else frozenset(accounts)
        self._tokens[secret] = Credential(user, frozenset(permissions), opened)

    def key(self, email: str, secret: str, *, accounts: Iterable[str] | None = None) -> None:
        """Accept an email with its Global API key."""
        opened = None if accounts is None else frozenset(accounts)
        self._keys[email, secret] = Credential(email, PERMISSIONS, opened)

    def revoke(self, secret: str) -> None:
        """Accept that token or key no longer."""
        self._tokens.pop(secret, None)
        self._keys = {pair: c for pair, c in self._keys.items() if pair[1] != secret}

    def check(self, headers: Mapping[str, str], account_id: str) -> str:
        """The user who calls (header names in lower case).

        Raises:
            RefusedError: the caller is unknown or may not read this account's workflows.
        """
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            credential = self._tokens.get(secret)
        else:
            email, key = headers.get("x-auth-email", ""), headers.get("x-auth-key", "")
            credential = self._keys.get((email, key))
        if credential is None:
            raise RefusedError(401)
        if not credential.permissions & PERMISSIONS:
            raise RefusedError(403)
        if credential.accounts is not None and account_id not in credential.accounts:
            raise RefusedError(403)
        return credential.user
