"""URLs and addresses: what is taken, and the error of each wrong one."""

import pytest
from pydantic import TypeAdapter, ValidationError

from exporter.config.urls import (
    ApiUrl,
    DatabaseUrl,
    holds_password,
    is_cloudflare,
    is_loopback,
    is_plain,
    parse_address,
)

API = TypeAdapter[str](ApiUrl)
DATABASE = TypeAdapter[object](DatabaseUrl)


@pytest.mark.parametrize(
    "url",
    [
        "https://api.cloudflare.com/client/v4/accounts/{account_id}",
        "http://127.0.0.1:8787/cdn-cgi/local/explorer/api",
        "https://[::1]:8443",
    ],
)
def test_an_api_url(url: str) -> None:
    assert API.validate_python(url) == url


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("ftp://api.example", "must start with https://"),
        ("api.example/v4", "must start with https://"),
        ("https:///v4", "must start with https:// (or http://) and name a host"),
        ("https://user@api.example", "must not hold a user"),
        ("https://api.example?account=1", "must not hold a user, a password, a query"),
        ("https://api.example#v4", "must not hold a user, a password, a query or a fragment"),
        ("https://api.example/v 4", "must not hold spaces"),
        ("https://api.example/\x7f", "must not hold spaces or control characters"),
        ("https://api.example/{account}", "the only placeholder is {account_id}"),
        ("https://api.example/{account_id", "the only placeholder is {account_id}"),
        ("https://api.example:port", "Port could not be cast"),
        ("https://api.example:65536", "Port out of range"),
    ],
)
def test_a_wrong_api_url(url: str, problem: str) -> None:
    with pytest.raises(ValidationError) as caught:
        API.validate_python(url)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("address", "parsed"),
    [
        ("127.0.0.1:9734", ("127.0.0.1", 9734)),
        (":0", ("", 0)),
        (":65535", ("", 65535)),
        ("localhost:80", ("localhost", 80)),
        ("[::]:9734", ("::", 9734)),
        ("[0:0:0:0:0:0:0:0]:9734", ("::", 9734)),
    ],
)
def test_an_address(address: str, parsed: tuple[str, int]) -> None:
    assert parse_address(address) == parsed


@pytest.mark.parametrize(
    "address", ["9734", "host", "host:", ":65536", "::1:80", "[::g]:80", "a b:80", "host:80x"]
)
def test_a_wrong_address(address: str) -> None:
    with pytest.raises(ValueError, match="not an address; write host:port or :port"):
        parse_address(address)


@pytest.mark.parametrize(
    ("url", "password"),
    [
        ("postgresql://exporter@db/exporter", False),
        ("postgres://exporter:secret@db:5432/exporter", True),
        ("postgresql://exporter:@db/exporter", True),
        ("postgresql://db1:5432,db2:5433/exporter?target_session_attrs=read-write", False),
        ("postgresql://db/exporter?password=secret", True),
        ("postgresql:///exporter", False),
        ("postgresql://exporter:p%40ss@[::1]:5432/exporter", True),
    ],
)
def test_a_database(url: str, *, password: bool) -> None:
    DATABASE.validate_python(url)
    assert holds_password(url) is password


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("mysql://db/exporter", "must start with postgresql://"),
        ("postgresql://exporter:p@ss@db/exporter", "write the special characters"),
        ("postgresql://exporter:p/ss@db/exporter", "write the special characters"),
        ("postgresql://exporter:100%@db/exporter", "write the special characters"),
        ("postgresql://exporter:%00@db/exporter", "write the special characters"),
        ("postgresql://exporter:se cret@db/exporter", "write the special characters"),
        ("postgresql://exporter:se\x7fcret@db/exporter", "write the special characters"),
        ("postgresql://db1,/exporter", "not a URL"),
    ],
)
def test_a_wrong_database_is_not_repeated(url: str, problem: str) -> None:
    with pytest.raises(ValidationError) as caught:
        DATABASE.validate_python(url)
    (error,) = caught.value.errors(include_input=False)
    assert problem in error["msg"]
    assert "ss@" not in error["msg"]


@pytest.mark.parametrize(
    ("url", "cloudflare", "loopback", "plain"),
    [
        ("https://api.cloudflare.com/client/v4", True, False, False),
        ("https://cloudflare.com", True, False, False),
        ("https://notcloudflare.com", False, False, False),
        ("http://localhost:8787", False, True, True),
        ("http://127.1.2.3", False, True, True),
        ("http://127.0.0.1.example", False, False, True),
        ("http://[::1]:8787", False, True, True),
        ("http://[::2]", False, False, True),
        ("http://[broken", False, False, False),
        ("", False, False, False),
    ],
)
def test_what_is_known_of_a_url(url: str, cloudflare: bool, loopback: bool, plain: bool) -> None:
    assert (is_cloudflare(url), is_loopback(url), is_plain(url)) == (cloudflare, loopback, plain)
