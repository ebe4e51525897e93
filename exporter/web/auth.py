"""HTTP Basic authentication: which requests need a password, and whether it is correct."""

import asyncio
import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping

import bcrypt
from pydantic import SecretStr
from starlette.responses import PlainTextResponse, Response
from starlette.types import Scope

_HASH = re.compile(r"\$2[aby]\$(?P<cost>[0-9]{2})\$[./A-Za-z0-9]{53}")
_MIN_COST, _MAX_COST = 4, 14
_MAX_WAITING = 16
"""Maximum checks that wait for the one that is running."""
_BCRYPT_BYTES = 72
"""Bytes of a password that bcrypt uses."""


class BusyError(Exception):
    """Too many passwords are being checked; try again later."""


def checked_hash(value: SecretStr) -> SecretStr:
    """Returns `value` if it is a bcrypt hash whose check takes a few seconds at most.

    Raises:
        ValueError: It isn't. The message doesn't repeat it.
    """
    found = _HASH.fullmatch(value.get_secret_value())
    if found is None:
        raise ValueError("must be a bcrypt hash; make one with: htpasswd -nBC 10 NAME")
    if not _MIN_COST <= int(found["cost"]) <= _MAX_COST:
        raise ValueError(f"cost must be from {_MIN_COST} to {_MAX_COST}; 10 is usual")
    return value


class Users:
    """Users and their passwords.

    The correct password of each user is cached, as a hash under a key that only this process knows.
    So bcrypt's work (70 ms at cost 10) is done once, and not for each scrape. Wrong passwords are
    not cached, so they can't fill the cache, or evict anything from it.

    Args:
        hashes: The bcrypt hash of each user's password, by user name.
    """

    def __init__(self, hashes: Mapping[str, SecretStr]) -> None:
        self._hashes = {
            name.encode(): value.get_secret_value().encode() for name, value in hashes.items()
        }
        self._key = secrets.token_bytes(32)
        self._correct: dict[bytes, bytes] = {}
        self._places = asyncio.Semaphore(1 + _MAX_WAITING)
        self._one_at_a_time = asyncio.Lock()

    async def admits(self, authorization: str) -> bool:
        """Whether an `Authorization` header holds a user's name and password.

        Raises:
            BusyError: Too many other checks are waiting.
        """
        name, colon, password = _decoded(authorization).partition(b":")
        if not colon:
            return False
        mark = hashlib.blake2b(password, key=self._key).digest()
        if hmac.compare_digest(self._correct.get(name, b""), mark):
            return True
        if self._places.locked():
            raise BusyError
        # Each check uses a whole core.
        async with self._places, self._one_at_a_time:
            matches = await asyncio.to_thread(
                bcrypt.checkpw, password[:_BCRYPT_BYTES], self.hash_for(name)
            )
        if matches and name in self._hashes:
            self._correct[name] = mark
            return True
        return False

    def hash_for(self, name: bytes) -> bytes:
        """The hash that a password is checked against.

        For an unknown name, it is the hash of some user, always of the same one. So the check takes
        as long as that of a user, and its duration doesn't show which names exist.
        """
        if name in self._hashes:
            return self._hashes[name]
        choice = hashlib.blake2b(name, key=self._key, digest_size=8).digest()
        return list(self._hashes.values())[int.from_bytes(choice) % len(self._hashes)]


async def check_password(scope: Scope, users: Users | None) -> Response | None:
    """The refusal of a request without a valid password; None: it may pass.

    Passwords protect every endpoint, health included, as in all of Prometheus' exporters.

    Args:
        scope: The request.
        users: Who may send requests; None for everyone.
    """
    if users is None:
        return None
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    try:
        if len(given) == 1 and await users.admits(given[0].decode("latin-1")):
            return None
    except BusyError:
        headers = {"Connection": "close", "Retry-After": "1"}
        return PlainTextResponse("Too many passwords to check; try again\n", 503, headers=headers)
    # The realm is fixed, so that it discloses nothing about what is protected.
    challenge = {"WWW-Authenticate": 'Basic realm="metrics", charset="UTF-8"'}
    return PlainTextResponse("Unauthorized\n", 401, headers=challenge)


def _decoded(authorization: str) -> bytes:
    """A user's name, a colon and the password (RFC 7617); empty where the header isn't of that
    scheme."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return b""
    try:
        return base64.b64decode(encoded.strip(), validate=True)
    except ValueError:
        return b""
