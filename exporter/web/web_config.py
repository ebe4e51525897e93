"""The file of `web.config_file`: TLS, passwords and headers, in the format that Prometheus'
exporters share (exporter-toolkit, web-configuration.md).

What that format knows and this server can't do is refused; nothing is ignored.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from exporter.config import yaml_file
from exporter.config.errors import ConfigError, line
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
"""Go's names of the suites that it counts as secure up to TLS 1.2, and OpenSSL's."""

_HEADERS: dict[str, tuple[str, ...]] = {
    "Content-Security-Policy": (),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-Content-Type-Options": ("nosniff",),
    "X-XSS-Protection": (),
    "Strict-Transport-Security": (),
}
"""Headers that may be set, and their only values where the format names some."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _not_null(cls, value: object) -> object:
        if value is None:
            # It may be what is left of protection that somebody asked for.
            raise ValueError("has nothing after it; leave the key out, or say what it shall be")
        return value


def _refused(why: str) -> BeforeValidator:
    def refuse(_: object) -> object:
        raise ValueError(why)

    return BeforeValidator(refuse)


def _file(value: Path) -> Path:
    if "\n" in str(value) or "-----BEGIN" in str(value):
        raise ValueError("must be the path of a file; put what it holds into one")
    return value


def _cipher_suite(value: str) -> str:
    if value.startswith("TLS_") and "_WITH_" not in value:
        raise ValueError("those of TLS 1.3 can't be chosen: all of them are offered; leave it out")
    if value not in CIPHER_SUITES:
        raise ValueError(f"not a cipher suite; known are {', '.join(CIPHER_SUITES)}")
    return value


def _version(value: str) -> str:
    if value in ("TLS10", "TLS11"):
        raise ValueError("TLS 1.0 and 1.1 aren't served; write TLS12 or TLS13")
    return value


def _client_auth_type(value: str) -> str:
    if value in ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert"):
        raise ValueError("accepts certificates that anyone made; write RequireAndVerifyClientCert")
    return value


def _http2(value: bool) -> bool:
    if value:
        raise ValueError("HTTP/2 isn't served; write false, or leave it out")
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


def _users(value: dict[str, SecretStr]) -> dict[str, SecretStr]:
    if not value:
        raise ValueError("must not be empty: that would let everyone in; leave it out for that")
    if not all(name and ":" not in name for name in value):
        raise ValueError("a user's name must not be empty, and can't hold a colon")
    return value


_File = Annotated[Path, AfterValidator(_file)]
_Version = Annotated[Literal["TLS12", "TLS13"], BeforeValidator(_version)]
_Hash = Annotated[SecretStr, AfterValidator(checked_hash)]


class Tls(_Section):
    cert_file: _File
    key_file: _File
    client_auth_type: Annotated[
        Literal["NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"],
        BeforeValidator(_client_auth_type),
    ] = "NoClientCert"
    client_ca_file: _File | None = None
    client_allowed_sans: list[Annotated[str, StringConstraints(min_length=1)]] | None = Field(
        None, min_length=1
    )
    min_version: _Version = "TLS12"
    max_version: _Version = "TLS13"
    cipher_suites: list[Annotated[str, AfterValidator(_cipher_suite)]] | None = Field(
        None, min_length=1
    )
    prefer_server_cipher_suites: bool = True
    curve_preferences: Annotated[None, _refused("curves can't be chosen; leave it out")] = None
    cert: Annotated[None, _refused("put it into a file, and name that in cert_file")] = None
    key: Annotated[None, _refused("put it into a file, and name that in key_file")] = None
    client_ca: Annotated[None, _refused("put it into a file, and name that in client_ca_file")] = (
        None
    )

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if (self.client_auth_type == "NoClientCert") != (self.client_ca_file is None):
            raise ValueError(
                "client_ca_file and client_auth_type go together; "
                "write RequireAndVerifyClientCert to demand certificates of that authority"
            )
        if self.client_allowed_sans and self.client_auth_type != "RequireAndVerifyClientCert":
            raise ValueError(
                "client_allowed_sans needs client_auth_type RequireAndVerifyClientCert"
            )
        if self.min_version > self.max_version:
            raise ValueError("min_version is above max_version")
        return self


class Http(_Section):
    http2: Annotated[bool, AfterValidator(_http2)] = False
    headers: Annotated[dict[str, str], AfterValidator(_headers)] = {}


class WebConfig(_Section):
    """What the file says; paths in it are relative to the file's folder."""

    tls_server_config: Tls | None = None
    http_server_config: Http = Http()
    basic_auth_users: Annotated[dict[str, _Hash], AfterValidator(_users)] | None = None
    rate_limit: Annotated[
        None, _refused("requests can't be limited by rate here; leave it out")
    ] = None


def read(path: Path) -> WebConfig:
    """What a file says.

    Raises:
        ConfigError: with every mistake; no password hash is repeated.
    """
    content = yaml_file.read(path)
    if not content:
        # An editor empties a file before it writes it: that must not switch passwords off.
        raise ConfigError([f"{path}: is empty; leave web.config_file out to protect nothing"])
    try:
        return WebConfig(**content)
    except ValidationError as error:
        raise ConfigError([f"{path}: {_line(problem)}" for problem in error.errors()]) from None


def _line(problem: ErrorDetails) -> str:
    # Text isn't repeated: it may be a key or a password, at the wrong place.
    given = None if isinstance(problem["input"], str) else problem["input"]
    return line(problem["loc"], problem["type"], problem["msg"], given, root=WebConfig)
