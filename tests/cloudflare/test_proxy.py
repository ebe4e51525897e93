"""Which proxy of the environment is used; entries that nobody can parse cover nothing."""

import asyncio
import gc
from collections.abc import Iterator

import httpx
import pytest

from exporter.cloudflare.connections import http_client
from exporter.cloudflare.credentials import Credential
from exporter.cloudflare.errors import RequestFailed
from exporter.cloudflare.proxy import proxy_for
from exporter.cloudflare.workflows_client import WorkflowsClient
from exporter.config.errors import ConfigError
from exporter.config.settings import Api
from tests.cloudflare.conftest import unlimited
from tests.ports import reserved_port
from tests.waiting import DEADLINE

API = "https://api.cloudflare.com/client/v4/accounts/acc"
PROXY = "http://proxy.example:3128"


@pytest.mark.parametrize(
    ("environment", "proxy"),
    [
        ({}, None),
        ({"HTTPS_PROXY": PROXY}, PROXY),
        ({"https_proxy": PROXY}, PROXY),
        ({"ALL_PROXY": PROXY}, PROXY),
        ({"HTTP_PROXY": PROXY}, None),
        ({"HTTPS_PROXY": "proxy.example:3128"}, PROXY),
    ],
)
def test_the_proxy_of_the_url_s_scheme(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], proxy: str | None
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(API) == proxy


@pytest.mark.parametrize(
    ("entries", "url", "covered"),
    [
        ("*", API, True),
        ("api.cloudflare.com", API, True),
        ("cloudflare.com", API, True),
        (".cloudflare.com", API, True),
        ("*.cloudflare.com", API, True),
        ("CLOUDFLARE.COM", API, True),
        ("api.cloudflare.com:443", API, True),
        ("flare.com", API, False),
        ("fd00::/8", API, False),
        ("[::1]", API, False),
        ("*.svc, .cluster.local,10.0.0.0/8 [::1]:8080 localhost:", API, False),
        ("10.0.0.0/33, ::::, [, *.*, http://x/", API, False),
        ("", "http://127.0.0.1:8787/api", True),
        ("fd00::/8", "https://[fd00::5]/api", True),
        ("[fd00::5]:8443", "https://[fd00::5]:8443/api", True),
        ("fd00::5", "https://[fd00::5]/api", True),
        ("10.0.0.0/8", "https://10.1.2.3:8443/api", True),
        ("10.1.2.3", "https://10.1.2.3/api", True),
        ("10.1.2.3:80", "https://10.1.2.3:8443/api", False),
        ("*.svc", "https://gateway.infra.svc/api", True),
        ("gateway.infra.svc:8443", "https://gateway.infra.svc:8443/api", True),
        ("gateway.infra.svc:1", "https://gateway.infra.svc:8443/api", False),
    ],
)
def test_no_proxy(monkeypatch: pytest.MonkeyPatch, entries: str, url: str, covered: bool) -> None:
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", entries)
    assert proxy_for(url) == (None if covered else PROXY)


@pytest.mark.parametrize("entries", ["fd00::/8", "[::1]", "*.svc", "[", "::::", "a b:c"])
async def test_whatever_no_proxy_holds_connections_can_be_made(
    monkeypatch: pytest.MonkeyPatch, entries: str
) -> None:
    monkeypatch.setenv("NO_PROXY", entries)
    async with http_client(Api(url=API)):
        pass


@pytest.mark.parametrize(
    "proxy", ["http://", "http://proxy.example:99999", "http://:3128", "socks5://p:1"]
)
def test_one_that_cannot_be_used_is_a_wrong_configuration(
    monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(ConfigError, match="a proxy must be a URL with http:// or https://"):
        http_client(Api(url=API))


@pytest.mark.parametrize(
    ("host", "reason"), [("127.0.0.1", "connection"), ("nowhere.invalid", "dns")]
)
async def test_a_failure_on_the_way_names_the_proxy(
    monkeypatch: pytest.MonkeyPatch, host: str, reason: str
) -> None:
    """But not its password."""
    with reserved_port() as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:hidden@{host}:{port}")
        api = Api(url=API)
        async with http_client(api) as http:
            client = WorkflowsClient(http, api, "acc", Credential(), budget=unlimited())
            with pytest.raises(RequestFailed) as caught:
                await client.instance("orders", "order-1")
    assert caught.value.reason == reason
    assert str(caught.value).startswith(f"api.cloudflare.com through the proxy {host}:{port}: ")


@pytest.fixture
def no_garbage_collection() -> Iterator[None]:
    """It would close what nobody refers to, sooner or later."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_garbage_collection")
@pytest.mark.parametrize("ends", ["failing", "cut off"])
@pytest.mark.parametrize("proxy", [False, True], ids=["without a proxy", "behind a proxy"])
async def test_no_connection_stays_whose_handshake_does_not_succeed(
    monkeypatch: pytest.MonkeyPatch, proxy: bool, ends: str
) -> None:
    """A proxy may connect to what doesn't respond, and a firewall may drop large packets: after
    1,000 such requests, there would be no file descriptor left for scrapes either."""
    begun, closed = asyncio.Event(), asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if proxy:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await reader.read(1)
        begun.set()
        if ends == "failing":
            writer.close()
        while await reader.read(1024):
            pass
        writer.close()
        closed.set()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = API if proxy else f"https://127.0.0.1:{port}"
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        async with http_client(Api(url=url)) as http:
            request = asyncio.create_task(http.get(url))
            await begun.wait()
            if ends == "cut off":
                request.cancel()
            await asyncio.gather(request, return_exceptions=True)
            async with asyncio.timeout(DEADLINE):
                await closed.wait()
            sockets = http._transport_for_url(httpx.URL(url))
            assert isinstance(sockets, httpx.AsyncHTTPTransport)
            assert sockets._pool.connections == []


async def test_there_is_none_on_the_way_to_what_takes_the_place_of_sockets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    transport = httpx.MockTransport(lambda _: httpx.Response(200))
    async with http_client(Api(url=API), transport) as http:
        assert (await http.get(API)).status_code == 200
