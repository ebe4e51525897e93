"""API tokens and keys in the configuration: their form, and where they may stand."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, SecretStr

from exporter.config.validation import Problem

# What may follow "Bearer" (RFC 6750): no quotes, and no ${VARIABLE} that nothing has expanded.
_SECRET = re.compile(r"[A-Za-z0-9._~+/-]+=*")
LIKE_A_SECRET = re.compile(r"[A-Za-z0-9_-]{37,}")
"""What may be an API token or key; only ids of instances are as long."""


def secret_of(text: str) -> str:
    """The API token or key in a text, without the white space around it.

    Raises:
        ValueError: there is none, or it can't stand in a header; it isn't repeated.
    """
    secret = text.strip()
    if not secret:
        raise ValueError("is empty; an API token or key is expected")
    if not _SECRET.fullmatch(secret):
        raise ValueError("holds characters that no API token or key has, such as quotes or spaces")
    return secret


Secret = Annotated[
    SecretStr, AfterValidator(lambda value: SecretStr(secret_of(value.get_secret_value())))
]


def gives_credential(account: Mapping[str, Any]) -> bool:
    """Whether an account holds a credential, or a part of one."""
    keys = ("api_token", "api_token_file", "api_email", "api_key", "api_key_file")
    return any(account.get(key) is not None for key in keys)


def one_secret(given: Mapping[str, Any], secret: str) -> Iterator[Problem]:
    """What is wrong where a secret, or the file that holds it, is given by these keys."""
    if {secret, f"{secret}_file"} <= given.keys():
        yield (), f"give one of {secret} and {secret}_file"
    if LIKE_A_SECRET.fullmatch(str(given.get(f"{secret}_file"))):
        # Refused here, before it is opened as a file and reported as missing.
        yield (), f"{secret}_file must name a file; its value looks like the secret itself"
