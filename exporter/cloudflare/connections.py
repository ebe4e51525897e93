"""Connections to the API, and what can go wrong with them."""

import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx

from exporter import __version__
from exporter.cloudflare import resolver
from exporter.cloudflare.errors import RequestFailed
from exporter.cloudflare.proxy import proxy_for
from exporter.config.addresses import is_loopback
from exporter.config.errors import ConfigError
from exporter.config.settings import Api


def http_client(api: Api, transport: httpx.AsyncBaseTransport | None = None) -> httpx.AsyncClient:
    """The connections that all accounts share.

    Redirects are not followed, so a credential goes to the configured host alone. A proxy of the
    environment is not used for a loopback address.

    Args:
        api: Names the host, and how long each of connecting, sending, and waiting for bytes may
            take.
        transport: In place of sockets.

    Raises:
        ConfigError: the environment's proxy or certificates can't be used.
    """
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
            proxy=None if is_loopback(api.url) else proxy_for(api.url),
            # See `proxy.py`: httpx refuses to start at entries of NO_PROXY that it can't parse.
            trust_env=False,
            transport=transport,
            follow_redirects=False,
            limits=limits,
            headers={
                "User-Agent": f"cloudflare-workflows-exporter/{__version__}",
                "Accept": "application/json",
                # What `Body` can read.
                "Accept-Encoding": "gzip",
            },
        )
    except (ImportError, ValueError, httpx.InvalidURL):
        # Not repeated: a proxy's URL may hold a password.
        text = (
            "HTTPS_PROXY, HTTP_PROXY or ALL_PROXY: can't be used; a proxy must be a URL with "
            "http:// or https://, or be unset"
        )
        raise ConfigError([text]) from None


class LostOnKeptConnection(Exception):  # noqa: N818 - reads as what happened
    """A kept-alive connection was lost before the first byte of a response."""


def noting(events: set[str]) -> Callable[[str, object], Awaitable[None]]:
    """Notes the steps of a request, as httpcore names them (its page on extensions, `trace`)."""

    async def note(event: str, _: object) -> None:
        events.add(event)

    return note


def was_lost(error: Exception, events: set[str]) -> bool:
    """Whether a request was lost on a connection that had served others, and nothing came back."""
    lost = isinstance(error, httpx.RemoteProtocolError | httpx.ReadError | httpx.WriteError)
    sent = "http11.send_request_headers.started" in events
    fresh = any(event.startswith("connection.connect_tcp") for event in events)
    return lost and sent and not fresh and "http11.receive_response_headers.complete" not in events


@asynccontextmanager
async def streamed(
    http: httpx.AsyncClient, request: httpx.Request, auth: httpx.Auth
) -> AsyncIterator[httpx.Response]:
    """A response whose body is still to come."""
    with resolver.within(http.timeout.connect or 5.0):
        response = await http.send(request, auth=auth, stream=True)
    try:
        yield response
    finally:
        await response.aclose()


def failure_of(error: Exception, host: str) -> RequestFailed:
    """The failure that an error of a connection to a host stands for."""
    if _has_endless_headers(error):
        return RequestFailed("invalid_answer", "headers too long")
    if isinstance(_root(error), socket.gaierror):
        return RequestFailed(
            "dns",
            f"{host}: {_reason(error)}",
            "check api.url and the machine's DNS (in a cluster, CoreDNS and network policies)",
        )
    return RequestFailed("connection", f"{host}: {_reason(error)}", _advice(error))


def _has_endless_headers(error: BaseException | None) -> bool:
    """Whether h11 gave up on headers (or trailers), past 100 KiB: httpx calls it a lost connection.

    Source: `MAX_INCOMPLETE_EVENT_SIZE` in httpcore, `error_status_hint` in h11's documentation.
    """
    while error is not None:
        if getattr(error, "error_status_hint", None) == 431:
            return True
        error = error.__cause__ or error.__context__
    return False


def _root(error: BaseException) -> BaseException:
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return error


def _advice(error: BaseException) -> str:
    if isinstance(_root(error), ssl.SSLError):
        return (
            "api.url must name a host and port that speak TLS, with a certificate that this "
            "machine trusts; SSL_CERT_FILE names a file of others to trust"
        )
    return "check api.url, firewalls and proxies"


def _reason(error: BaseException) -> str:
    error = _root(error)
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError | socket.gaierror):
        # The system's words: asyncio says "Connect call failed" whatever it was.
        return os.strerror(error.errno) if error.errno else str(error) or type(error).__name__
    return str(error) or type(error).__name__
