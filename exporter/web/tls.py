"""The TLS context that the web configuration describes, and the names in client certificates."""

import ipaddress
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from exporter.config.errors import ConfigError
from exporter.config.files import read_file
from exporter.web.web_config import CIPHER_SUITES, Tls

_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_NO_PAIR = "cert_file must be a certificate and key_file its key, both in PEM"
_VERIFY = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}


def files(tls: Tls, folder: Path) -> dict[str, Path]:
    """The files that the configuration names, by key; relative paths start at `folder`."""
    named = tls.model_dump(include={"cert_file", "key_file", "client_ca_file"}, exclude_none=True)
    return {key: folder / path for key, path in named.items()}


def context(tls: Tls, config_file: Path) -> ssl.SSLContext:
    """The TLS context for new connections.

    Args:
        tls: The configuration.
        config_file: The file that it is from.

    Raises:
        ConfigError: A file can't be used. The message doesn't repeat what it holds.
    """
    place, paths = f"{config_file}: tls_server_config", files(tls, config_file.parent)
    tls_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls_context.minimum_version = _VERSIONS[tls.min_version]
    tls_context.maximum_version = _VERSIONS[tls.max_version]
    # Python's defaults prefer the server's cipher order and forbid compression; OpenSSL's forbid
    # renegotiation only since 3.0.
    tls_context.options |= ssl.OP_NO_RENEGOTIATION
    if not tls.prefer_server_cipher_suites:
        tls_context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if tls.cipher_suites:
        tls_context.set_ciphers(":".join(CIPHER_SUITES[name] for name in tls.cipher_suites))
    tls_context.set_alpn_protocols(["http/1.1"])
    if problems := list(_unreadable(paths)):
        raise ConfigError(*(f"{place}.{problem}" for problem in problems))
    try:
        # Without a password OpenSSL would ask for one on the terminal.
        tls_context.load_cert_chain(paths["cert_file"], paths["key_file"], password=_no_password)
    except (OSError, ValueError) as error:
        text = f"cert_file and key_file can't be used together: {_reason(error)}"
        raise ConfigError(f"{place}: {text}") from None
    if "client_ca_file" in paths:
        try:
            tls_context.load_verify_locations(paths["client_ca_file"])
        except OSError as error:
            text = f"client_ca_file: {paths['client_ca_file']}: holds no certificates"
            raise ConfigError(f"{place}.{text}: {_reason(error)}") from None
        tls_context.verify_mode = _VERIFY[tls.client_auth_type]
    return tls_context


def _no_password() -> str:
    raise ValueError("the key is encrypted; store it without a password")


def _unreadable(paths: Mapping[str, Path]) -> Iterator[str]:
    for key, path in paths.items():
        try:
            read_file(path)
        except OSError as error:
            yield f"{key}: {path}: can't be read: {error.strerror}"


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        # OpenSSL has no reason for a file that holds something else, such as the other one.
        reason = error.reason
        return reason.replace("_", " ").lower() if reason else _NO_PAIR
    return str(error)


def allowed_sans(tls: Tls) -> frozenset[str] | None:
    """The names of which a client's certificate must have one; None for any."""
    allowed = tls.client_allowed_sans
    return None if allowed is None else frozenset(map(_comparable, allowed))


def sans(certificate: Mapping[str, Any] | None) -> set[str]:
    """DNS, IP, e-mail and URI names in a peer's certificate, as `ssl` returns it."""
    return {_comparable(name) for _, name in (certificate or {}).get("subjectAltName", ())}


def _comparable(name: str) -> str:
    """An IP address in its canonical form; any other name unchanged."""
    try:
        return str(ipaddress.ip_address(name.strip()))
    except ValueError:
        return name
