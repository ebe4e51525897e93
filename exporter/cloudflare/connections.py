"""The HTTP connections to the API."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, TypeVar

import httpcore
import httpx

from exporter import __version__
from exporter.cloudflare.proxy import proxy_for
from exporter.cloudflare.response_headers import http_date
from exporter.config.errors import ConfigError
from exporter.config.settings import Api

_Opened = TypeVar("_Opened", httpcore.AsyncConnectionInterface, httpcore.AsyncNetworkStream)


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

    # Python would log the keys of all connections there, and fail where it can't.
    os.environ.pop("SSLKEYLOGFILE", None)
    try:
        return httpx.AsyncClient(
            timeout=api.timeout,
            transport=transport or _sockets(api),
            # See `proxy.py`: httpx refuses to start at entries of NO_PROXY that it can't parse.
            trust_env=False,
            follow_redirects=False,
            # None is taken: it would be sent with the credentials of other accounts too.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            event_hooks={"response": [read_date]},
            headers={
                "User-Agent": f"cloudflare-workflows-exporter/{__version__}",
                "Accept": "application/json",
                # What `ResponseBody` can decompress.
                "Accept-Encoding": "gzip",
            },
        )
    except OSError:
        path = os.environ.get("SSL_CERT_FILE", "")
        raise ConfigError(
            f"SSL_CERT_FILE={path}: can't be used; it must name a file of certificates in PEM, or "
            "be unset"
        ) from None
    except (ImportError, ValueError, httpx.InvalidURL):
        # Without the URL, which may hold a password.
        raise ConfigError(
            "HTTPS_PROXY, HTTP_PROXY or ALL_PROXY: can't be used; a proxy must be a URL with "
            "http:// or https://, or be unset"
        ) from None


def _sockets(api: Api) -> httpx.AsyncBaseTransport:
    """Sockets to the API, through a proxy if the environment names one.

    Raises:
        OSError: the environment's certificates can't be used.
        ImportError, ValueError, httpx.InvalidURL: its proxy can't be used.
    """
    # The number of connections isn't limited here, since queues limit that of requests. A request
    # that waited here for others, which may take minutes, would time out without being sent.
    transport = httpx.AsyncHTTPTransport(
        verify=httpx.create_ssl_context(),
        limits=httpx.Limits(keepalive_expiry=60),
        proxy=proxy_for(api.url),
        trust_env=False,
    )
    pool, backend = transport._pool, transport._pool._network_backend
    create, connect = pool.create_connection, backend.connect_tcp

    async def connect_tcp(*args: Any, **kwargs: Any) -> httpcore.AsyncNetworkStream:
        return _closed_on_failure(await connect(*args, **kwargs), "start_tls")

    backend.connect_tcp = connect_tcp  # type: ignore[method-assign]
    pool.create_connection = lambda origin: _closed_on_failure(  # type: ignore[method-assign]
        create(origin), "handle_async_request"
    )
    return transport


def _closed_on_failure(opened: _Opened, method: str) -> _Opened:
    """A connection, or its socket, that is closed when a method of it fails.

    httpcore doesn't close the socket of a TLS handshake that is cut off; the garbage collector may
    find it late. A connection through a proxy whose TLS handshake fails would stay in its pool for
    good. A thousand of either leave none for scrapes.
    """
    act = getattr(opened, method)

    async def act_or_close(*args: Any, **kwargs: Any) -> Any:
        try:
            return await act(*args, **kwargs)
        except httpcore.ConnectionNotAvailable:
            raise  # another request uses it
        except BaseException:
            await opened.aclose()
            raise

    setattr(opened, method, act_or_close)
    return opened


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
