"""Passwords of HTTP Basic authentication, checked against bcrypt hashes."""

import asyncio
import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping

import bcrypt
from pydantic import SecretStr

_HASH = re.compile(r"\$2[aby]\$(?P<cost>[0-9]{2})\$[./A-Za-z0-9]{53}")
_LEAST_COST, _MOST_COST = 4, 14
_WAITING = 16
"""Checks that may wait for the one under way."""
_USED = 72
"""Bytes of a password that bcrypt looks at."""


class BusyError(Exception):
    """Too many passwords are being checked; try later."""


def checked_hash(value: SecretStr) -> SecretStr:
    """`value` if it is a bcrypt hash whose check takes a few seconds at most.

    Raises:
        ValueError: it isn't; it isn't repeated.
    """
    found = _HASH.fullmatch(value.get_secret_value())
    if found is None:
        raise ValueError("not a bcrypt hash; make one with: htpasswd -nBC 10 NAME")
    if not _LEAST_COST <= int(found["cost"]) <= _MOST_COST:
        raise ValueError(f"its cost must be from {_LEAST_COST} to {_MOST_COST}; 10 is usual")
    return value


class Users:
    """Who may ask.

    A right password is remembered, so that bcrypt's work (70 ms at cost 10) is done once and not
    for each scrape: as a hash under a key that only this process knows, one a user. Wrong ones
    aren't, so that they can neither fill anything nor push anything out.

    Args:
        hashes: The bcrypt hash of each user's password.
    """

    def __init__(self, hashes: Mapping[str, SecretStr]) -> None:
        self._hashes = {
            name.encode(): value.get_secret_value().encode() for name, value in hashes.items()
        }
        self._key = secrets.token_bytes(32)
        self._known: dict[bytes, bytes] = {}
        self._one_at_a_time = asyncio.Lock()
        self._waiting = 0

    async def admits(self, authorization: str) -> bool:
        """Whether a header `Authorization` names a user and the user's password.

        Raises:
            BusyError: that would have to wait for too many others.
        """
        name, password = _credentials(authorization)
        if name is None:
            return False
        mark = hashlib.blake2b(password, key=self._key).digest()
        if hmac.compare_digest(self._known.get(name, b""), mark):
            return True
        if self._waiting > _WAITING:
            raise BusyError
        self._waiting += 1
        try:
            # Each check keeps a core busy.
            async with self._one_at_a_time:
                matches = await asyncio.to_thread(
                    bcrypt.checkpw, password[:_USED], self.hash_for(name)
                )
        finally:
            self._waiting -= 1
        if matches and name in self._hashes:
            self._known[name] = mark
            return True
        return False

    def hash_for(self, name: bytes) -> bytes:
        """What a password is checked against.

        For a name that is no user's: the hash of one, always the same one. So it takes the time
        that it takes for a user, whatever costs there are, and the time doesn't tell who is one.
        """
        if name in self._hashes:
            return self._hashes[name]
        choice = hashlib.blake2b(name, key=self._key, digest_size=8).digest()
        return list(self._hashes.values())[int.from_bytes(choice) % len(self._hashes)]


def _credentials(authorization: str) -> tuple[bytes | None, bytes]:
    """User and password (RFC 7617); no user where the header is none of that kind."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None, b""
    try:
        name, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return None, b""
    return (name, password) if colon else (None, b"")
