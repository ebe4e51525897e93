"""The HTTP connections to the API, and why a request failed on one."""

import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpx

from exporter import __version__
from exporter.cloudflare import resolver
from exporter.cloudflare.errors import RequestFailed
from exporter.cloudflare.json_filter import InvalidBody
from exporter.cloudflare.models import corrected, unix
from exporter.cloudflare.proxy import proxy_for
from exporter.config.errors import ConfigError
from exporter.config.settings import Api

_DNS_ADVICE = (
    "check api.url, HTTPS_PROXY and the machine's DNS (in a cluster, CoreDNS and network policies)"
)


def http_client(
    api: Api,
    transport: httpx.AsyncBaseTransport | None = None,
    on_date: Callable[[float], object] = lambda _: None,
) -> httpx.AsyncClient:
    """The connections that all accounts share.

    Redirects are not followed, so credentials only go to the configured host.

    Args:
        api: The settings: its `timeout` limits connecting, sending, and waiting for bytes, each.
        transport: In place of sockets.
        on_date: Called with the `Date` of each response, in Unix time.

    Raises:
        ConfigError: the environment's proxy or certificates can't be used.
    """

    async def read_date(response: httpx.Response) -> None:
        if (date := http_date(response.headers.get("date", ""))) is not None:
            on_date(date)

    try:
        certificates = httpx.create_ssl_context() if transport is None else True
    except OSError:
        path = os.environ.get("SSL_CERT_FILE", "")
        text = (
            f"SSL_CERT_FILE={path}: can't be used; it must name a file of certificates in PEM, or "
            "be unset"
        )
        raise ConfigError([text]) from None
    limits = httpx.Limits(max_connections=10, max_keepalive_connections=10, keepalive_expiry=60)
    try:
        return httpx.AsyncClient(
            timeout=api.timeout,
            verify=certificates,
            proxy=proxy_for(api.url),
            # See `proxy.py`: httpx refuses to start at entries of NO_PROXY that it can't parse.
            trust_env=False,
            transport=transport,
            follow_redirects=False,
            limits=limits,
            event_hooks={"response": [read_date]},
            headers={
                "User-Agent": f"cloudflare-workflows-exporter/{__version__}",
                "Accept": "application/json",
                # What `ResponseBody` can decompress.
                "Accept-Encoding": "gzip",
            },
        )
    except (ImportError, ValueError, httpx.InvalidURL):
        # Without the URL, which may hold a password.
        text = (
            "HTTPS_PROXY, HTTP_PROXY or ALL_PROXY: can't be used; a proxy must be a URL with "
            "http:// or https://, or be unset"
        )
        raise ConfigError([text]) from None


def http_date(text: str) -> float | None:
    """Unix time of an HTTP date, in UTC unless it says otherwise; None where it is invalid."""
    try:
        return unix(corrected(parsedate_to_datetime(text)))
    except (ValueError, TypeError, OverflowError):
        return None


class ReusedConnectionLost(Exception):  # noqa: N818 - reads as what happened
    """A kept-alive connection was lost before the first byte of a response."""


@asynccontextmanager
async def request(
    http: httpx.AsyncClient, url: str, auth: httpx.Auth, content: object
) -> AsyncIterator[httpx.Response]:
    """The response to a GET or, with content that is sent as JSON, a POST; its body not yet read.

    Raises:
        ReusedConnectionLost: most likely the server has not seen the request.
        httpx.TransportError: any other problem of the connection.
    """
    events = set[str]()  # see `trace` in httpcore's documentation of extensions

    async def record(event: str, _: object) -> None:
        events.add(event)

    method = "GET" if content is None else "POST"
    trace = {"trace": record}
    try:
        async with http.stream(method, url, json=content, auth=auth, extensions=trace) as response:
            yield response
    except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
        begun = "http11.send_request_headers.started" in events
        fresh = any(event.startswith("connection.connect_tcp") for event in events)
        if begun and not fresh and "http11.receive_response_headers.complete" not in events:
            raise ReusedConnectionLost from None
        raise


def failure_of(error: Exception, url: str, allowed: float) -> RequestFailed:
    """The failure that an error stands for, of a request to a URL that may take `allowed`
    seconds."""
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        if resolver.is_waiting():
            text = f"no name server responded within {allowed:g} s"
            return RequestFailed("dns", text, _DNS_ADVICE)
        text = f"no complete response within {allowed:g} s"
        advice = "raise api.timeout, or check the network between here and Cloudflare"
        return RequestFailed("timeout", text, advice)
    if isinstance(error, InvalidBody):
        return RequestFailed("invalid_answer", f"unreadable body: {error}")
    if isinstance(error, httpx.InvalidURL):
        return RequestFailed("invalid_answer", f"a cursor that can't be requested: {error}")
    chain = list(_chain(error))
    # h11 gives up when headers (or trailers) exceed 100 KiB; httpx reports that as a lost
    # connection. Source: `MAX_INCOMPLETE_EVENT_SIZE` in httpcore, `error_status_hint` in h11's
    # documentation.
    if any(getattr(cause, "error_status_hint", None) == 431 for cause in chain):
        return RequestFailed("invalid_answer", "headers too long")
    root = chain[-1]
    message = f"{_destination(url)}: {_message(root)}"
    if isinstance(root, socket.gaierror):
        return RequestFailed("dns", message, _DNS_ADVICE)
    return RequestFailed("connection", message, _advice(root))


def _destination(url: str) -> str:
    """The host of a URL, and the proxy to it, if any, without the proxy's user and password."""
    host, proxy = urlsplit(url).netloc, proxy_for(url)
    via = "" if proxy is None else urlsplit(proxy).netloc.rpartition("@")[2]
    return f"{host} through the proxy {via}" if via else host


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes, the root cause last."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _advice(root: BaseException) -> str:
    if isinstance(root, ssl.SSLError):
        return (
            "api.url must name a host and port that speak TLS, with a certificate that this "
            "machine trusts; SSL_CERT_FILE names a file of others to trust"
        )
    return "check api.url, firewalls and proxies"


def _message(root: BaseException) -> str:
    if isinstance(root, socket.gaierror):
        return root.strerror or str(root)
    if isinstance(root, OSError) and not isinstance(root, ssl.SSLError):
        # The system's message: asyncio's is "Connect call failed" for every cause.
        return os.strerror(root.errno) if root.errno else str(root) or type(root).__name__
    return str(root) or type(root).__name__
