"""The file of `web.config_file`: TLS, users and headers, in the format of Prometheus' exporters
(exporter-toolkit, web-configuration.md).

What that format knows and this server doesn't support is refused; nothing is ignored.
"""

from operator import not_
from pathlib import Path
from typing import Annotated, Literal, Self

from annotated_types import Len
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from exporter.config import yaml_file
from exporter.config.errors import ConfigError, line
from exporter.config.validation import must
from exporter.web.auth import checked_hash

CIPHER_SUITES = {
    f"TLS_ECDHE_{kind}_WITH_{ours}": f"ECDHE-{kind}-{openssl}"
    for kind in ("ECDSA", "RSA")
    for ours, openssl in {
        "AES_128_CBC_SHA": "AES128-SHA",
        "AES_256_CBC_SHA": "AES256-SHA",
        "AES_128_GCM_SHA256": "AES128-GCM-SHA256",
        "AES_256_GCM_SHA384": "AES256-GCM-SHA384",
        "CHACHA20_POLY1305_SHA256": "CHACHA20-POLY1305",
    }.items()
}
"""Cipher suites up to TLS 1.2 that Go considers secure: Go's names and OpenSSL's."""

_HEADERS: dict[str, tuple[str, ...]] = {
    "Content-Security-Policy": (),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-Content-Type-Options": ("nosniff",),
    "X-XSS-Protection": (),
    "Strict-Transport-Security": (),
}
"""Headers that may be set, and their allowed values where the format restricts them."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _not_null(cls, value: object) -> object:
        if value is None:
            # It may be the rest of protection that somebody wanted.
            raise ValueError("has no value; remove the key, or give it one")
        return value


def _headers(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if name not in _HEADERS:
            raise ValueError(f"only these can be set: {', '.join(_HEADERS)}")
        if _HEADERS[name] and text not in _HEADERS[name]:
            raise ValueError(f"{name} must be {' or '.join(_HEADERS[name])}")
        if not text.strip() or not (text.isascii() and text.isprintable()):
            raise ValueError(f"{name} must be printable ASCII text, and not empty")
    return value


_File = Annotated[
    Path,
    must(
        lambda path: "\n" not in str(path) and "-----BEGIN" not in str(path),
        "must be the path of a file; write the contents to one",
    ),
]
_CipherSuite = Annotated[
    str,
    must(
        CIPHER_SUITES.__contains__,
        f"must be one of {', '.join(CIPHER_SUITES)}; those of TLS 1.3 are always offered",
    ),
]
_Hash = Annotated[SecretStr, AfterValidator(checked_hash)]
_Users = Annotated[
    dict[str, _Hash],
    must(bool, "must not be empty; to let everyone in, remove it"),
    must(
        lambda users: all(name and ":" not in name for name in users),
        "a user's name must not be empty or contain a colon",
    ),
]


class Tls(_Section):
    cert_file: _File
    key_file: _File
    client_auth_type: Literal[
        "NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"
    ] = "NoClientCert"
    client_ca_file: _File | None = None
    client_allowed_sans: Annotated[list[Annotated[str, Len(1)]], Len(1)] | None = None
    min_version: Literal["TLS12", "TLS13"] = "TLS12"
    max_version: Literal["TLS12", "TLS13"] = "TLS13"
    cipher_suites: Annotated[list[_CipherSuite], Len(1)] | None = None
    prefer_server_cipher_suites: bool = True

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if (self.client_auth_type == "NoClientCert") != (self.client_ca_file is None):
            raise ValueError(
                "client_ca_file and client_auth_type need each other; "
                "write RequireAndVerifyClientCert to require certificates of that authority"
            )
        if self.client_allowed_sans and self.client_auth_type != "RequireAndVerifyClientCert":
            raise ValueError(
                "client_allowed_sans needs client_auth_type RequireAndVerifyClientCert"
            )
        if self.min_version > self.max_version:
            raise ValueError("min_version is above max_version")
        return self


class Http(_Section):
    http2: Annotated[bool, must(not_, "HTTP/2 is not supported; remove it")] = False
    headers: Annotated[dict[str, str], AfterValidator(_headers)] = {}


class WebConfig(_Section):
    """The contents of the file; paths in it are relative to the file's folder."""

    tls_server_config: Tls | None = None
    http_server_config: Http = Http()
    basic_auth_users: _Users | None = None


def read(path: Path, *, pipe: bool = False) -> WebConfig:
    """Reads a file, as `yaml_file.read` does.

    Raises:
        ConfigError: With every error; no message repeats a password hash.
    """
    keys = "tls_server_config and basic_auth_users"
    content = yaml_file.read(path, keys=keys, pipe=pipe)
    if not content:
        # An editor may empty a file before writing it; that must not disable passwords.
        raise ConfigError(f"{path}: is empty; to run without protection, remove web.config_file")
    try:
        return WebConfig(**content)
    except ValidationError as error:
        raise ConfigError(*(f"{path}: {_line(problem)}" for problem in error.errors())) from None


def _line(problem: ErrorDetails) -> str:
    # Text is not repeated: it may be a key or a password in the wrong place.
    hidden = None if isinstance(problem["input"], str) else problem["input"]
    return line({**problem, "input": hidden}, root=WebConfig)
