"""URLs of the API and of a database, and addresses to listen on."""

import re
from ipaddress import AddressValueError, IPv6Address
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, SecretStr


def _api_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must start with https:// (or http://) and name a host")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("must not hold a user, a password, a query or a fragment")
    if not value.isprintable() or " " in value:
        raise ValueError("must not hold spaces or control characters")
    if re.search(r"[{}]", value.replace("{account_id}", "")):
        raise ValueError("the only placeholder is {account_id}")
    parts.port  # noqa: B018 - raises ValueError for a wrong port
    return value


def parse_address(address: str) -> tuple[str, int]:
    """Host (empty for every address) and port.

    Raises:
        ValueError: `address` isn't `host:port`; the message says what would be right.
    """
    pattern = r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<host>[^:\[\]\s]*)):(?P<port>[0-9]{1,5})"
    match = re.fullmatch(pattern, address)
    try:
        if match is not None and int(match["port"]) <= 65535:
            # In its short form, which shows whether it is `::`.
            host = str(IPv6Address(match["v6"])) if match["v6"] else match["host"]
            return host, int(match["port"])
    except AddressValueError:
        pass
    raise ValueError("not an address; write host:port or :port, as in 127.0.0.1:9734")


def _listen_address(value: str) -> str:
    parse_address(value)
    return value


_DATABASE = re.compile(
    # Of libpq's URLs: with a user and a password, several hosts with ports, and parameters.
    r"postgres(?:ql)?://(?:[^:@/?]*(?P<password>:[^@/?]*)?@)?"
    r"(?:(?:\[[^\]@/?]*\]|[^\[\]:,@/?]*)(?::[0-9]*)?(?:,(?!/|\?|$)|(?=/|\?|$)))*"
    r"(?:/[^@/?]*)?(?:\?[^@]*)?"
)


def _database_url(value: SecretStr) -> SecretStr:
    url = value.get_secret_value()
    if not re.match("postgres(?:ql)?://", url):
        raise ValueError("must start with postgresql://, as in postgresql://exporter@db/exporter")
    # libpq would take what follows a character of a password for a host, and show it.
    escaped = re.search("%(?!(?!00)[0-9a-fA-F]{2})", url) is None
    if not (_DATABASE.fullmatch(url) and escaped and url.isprintable() and " " not in url):
        raise ValueError(
            "not a URL, as in postgresql://exporter@db:5432/exporter; write the special characters "
            "of a user or password as %40 for @, %2F for /, and so on"
        )
    return value


def holds_password(url: str) -> bool:
    """Whether a database's URL holds a password."""
    match = _DATABASE.fullmatch(url)
    return match is not None and (match["password"] is not None or "password=" in url)


ApiUrl = Annotated[str, AfterValidator(_api_url)]
DatabaseUrl = Annotated[SecretStr, AfterValidator(_database_url)]
ListenAddress = Annotated[str, AfterValidator(_listen_address)]


def is_cloudflare(url: str) -> bool:
    """Whether a URL's host is Cloudflare's, whose limit is known."""
    return f".{_split(url).hostname}".endswith(".cloudflare.com")


def is_loopback(url: str) -> bool:
    """Whether a URL's host is this machine, so that plain http to it crosses no network."""
    host = _split(url).hostname or ""
    return host in ("localhost", "::1") or re.fullmatch(r"127(?:\.\d{1,3}){3}", host) is not None


def is_plain(url: str) -> bool:
    """Whether requests to a URL are unencrypted."""
    return _split(url).scheme == "http"


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")
