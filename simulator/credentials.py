"""The credentials that are accepted: API tokens, and pairs of e-mail and key, each of a user."""

from collections.abc import Iterable, Mapping

from msgspec import Struct

PERMISSIONS = frozenset({"Workers Tail Read", "Workers Scripts Read", "Workers Scripts Write"})
"""Any one of these opens the Workflows endpoints."""
QUEUES_EDIT, QUEUES_READ = "Queues Edit", "Queues Read"


class AccessDenied(Exception):  # noqa: N818 - reads as what happened
    """A request without the right credential.

    Cloudflare's error is always "Authentication error" with code 10000: 401 for an unknown
    credential, 403 for one that lacks a permission.
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
        """Checks that it opens the workflows of an account.

        Raises:
            AccessDenied: it doesn't.
        """
        if not self.permissions & PERMISSIONS or not self.opens(account_id):
            raise AccessDenied(403)

    def check_queues(self, account_id: str, *, write: bool) -> None:
        """Checks that it opens the queues of an account: to pull and acknowledge is to `write`.

        Raises:
            AccessDenied: it doesn't.
        """
        wanted = {QUEUES_EDIT} if write else {QUEUES_EDIT, QUEUES_READ}
        if not self.permissions & wanted or not self.opens(account_id):
            raise AccessDenied(403)


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
        """Adds an API token."""
        opened = None if accounts is None else frozenset(accounts)
        self._tokens[secret] = Credential(user, frozenset(permissions), opened, account_owned)

    def key(self, email: str, secret: str, *, accounts: Iterable[str] | None = None) -> None:
        """Adds an email with its Global API key."""
        opened = None if accounts is None else frozenset(accounts)
        self._keys[email, secret] = Credential(email, PERMISSIONS, opened)

    def revoke(self, secret: str) -> None:
        """Removes a token or key."""
        self._tokens.pop(secret, None)
        self._keys = {pair: c for pair, c in self._keys.items() if pair[1] != secret}

    def credential(self, headers: Mapping[str, str]) -> Credential:
        """The credential of a request (header names in lower case).

        Raises:
            AccessDenied: it is unknown.
        """
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            credential = self._tokens.get(secret)
        else:
            email, key = headers.get("x-auth-email", ""), headers.get("x-auth-key", "")
            credential = self._keys.get((email, key))
        if credential is None:
            raise AccessDenied(401)
        return credential
