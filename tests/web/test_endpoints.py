"""The endpoints, asked as Prometheus, Kubernetes and people ask."""

import gzip
from collections.abc import AsyncIterator

import httpx
import pytest

from exporter.clock import Clock
from exporter.config.metrics import Metrics
from exporter.metrics.exposition import OPENMETRICS, TEXT, Exposition
from exporter.metrics.store import Store
from exporter.web.endpoints import endpoints
from exporter.web.middleware import RequestChecks
from exporter.web.page.view import WatchView
from exporter.web.web_config_reload import Protection
from tests.exposed import show_at_once

# What Prometheus 2 and 3 send.
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
# The same with `scrape_native_histograms` on.
PROMETHEUS_3_HISTOGRAMS = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;"
    f"q=0.7,{PROMETHEUS_3}"
)
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


class Site:
    """The application, and what its checks find wrong."""

    def __init__(self) -> None:
        self.unhealthy: list[str] = []
        self.unready: list[str] = []
        store = Store(Metrics())
        exposition = Exposition(store)
        show_at_once(exposition, store.take())
        app = endpoints(
            exposition,
            WatchView([], clock=Clock()),
            unhealthy=lambda: self.unhealthy,
            unready=lambda: self.unready,
        )
        checked = RequestChecks(app, Protection)
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(checked), base_url="http://exporter", headers={}
        )

    async def get(self, path: str, method: str = "GET", **headers: str) -> httpx.Response:
        sent = {"Accept": "", "Accept-Encoding": ""}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.request(method, path, headers=sent)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    async with site.http:
        yield site


class TestFormat:
    @pytest.mark.parametrize(
        ("accept", "content_type"),
        [
            ("", TEXT),
            ("*/*", TEXT),
            ("text/plain", TEXT),
            (BROWSER, TEXT),
            (PROMETHEUS_2, OPENMETRICS),
            (PROMETHEUS_3, OPENMETRICS),
            ("application/openmetrics-text", OPENMETRICS),
            ("Application/OpenMetrics-Text; Version=1.0.0", OPENMETRICS),
            ("application/openmetrics-text ; q=0.5 , text/plain ; q=0.4", OPENMETRICS),
            ("application/openmetrics-text;q=0.4,text/plain;q=0.5", TEXT),
            ("application/openmetrics-text;q=0", TEXT),
            ("application/openmetrics-text;q=0.000,*/*;q=0", TEXT),
            ("application/openmetrics-text;q=much", TEXT),
            ("application/openmetrics-text;q=nan", TEXT),
            ("application/openmetrics-textual", TEXT),
            (",;,=;q", TEXT),
            ("application/json", TEXT),
            (PROMETHEUS_3_HISTOGRAMS, OPENMETRICS),
            # Only what can be served is compared, the closest range for each.
            ("application/vnd.google.protobuf;q=1,application/openmetrics-text;q=0.1", OPENMETRICS),
            ("application/vnd.google.protobuf,text/plain;q=0.2,*/*;q=0.1", TEXT),
            ("text/html,application/openmetrics-text;q=0.5", OPENMETRICS),
            ("text/*;q=0.6,application/openmetrics-text;q=0.5", TEXT),
            ("text/*;q=0.5,application/*;q=0.6", OPENMETRICS),
            ("text/plain;q=0.3,application/openmetrics-text;q=0.5,*/*;q=0.9", OPENMETRICS),
            ("text/plain;q=0.1,*/*;q=0.9", TEXT),
            ("application/openmetrics-text;version=2.0.0,text/plain;q=0.5", TEXT),
            ('application/openmetrics-text;version="1.0.0",text/plain;q=0.5', OPENMETRICS),
            ("application/openmetrics-text;q=2,text/plain;q=0.5", TEXT),
        ],
    )
    async def test_negotiation(self, site: Site, accept: str, content_type: str) -> None:
        response = await site.get("/metrics", Accept=accept)
        assert (response.status_code, response.headers["content-type"]) == (200, content_type)
        assert response.text.endswith("# EOF\n") == (content_type == OPENMETRICS)
        assert "cloudflare_workflows_exporter_build_info" in response.text

    async def test_it_may_come_in_several_headers(self, site: Site) -> None:
        headers = [("Accept", "text/plain;q=0.5"), ("Accept", "application/openmetrics-text")]
        response = await site.http.get("/metrics", headers=headers)
        assert response.headers["content-type"] == OPENMETRICS

    async def test_vary_names_what_it_depends_on(self, site: Site) -> None:
        assert (await site.get("/metrics")).headers["vary"] == "Accept, Accept-Encoding"


class TestGzip:
    @pytest.mark.parametrize(
        ("header", "zipped"),
        [
            ("", False),
            ("identity", False),
            ("br, deflate", False),
            ("gzip", True),
            ("GZIP", True),
            ("deflate, gzip;q=0.5", True),
            ("gzip;q=1.0", True),
            ("gzip ; q=0.001", True),
            ("gzip;q=0", False),
            ("gzip; q=0.000", False),
            ("gzip;q=0., *", False),
            ("gzip;q=x", False),
            ("*", True),
            ("*;q=0", False),
            ("*;q=0, gzip", True),
            ("gzip;q=0, *;q=1", False),
            ("gzippy", False),
            (",;,", False),
        ],
    )
    async def test_decision(self, site: Site, header: str, zipped: bool) -> None:
        response = await site.get("/metrics", Accept_Encoding=header)
        assert (response.headers.get("content-encoding") == "gzip") == zipped
        assert response.text.startswith("# HELP")  # unpacked by httpx

    async def test_the_length_is_that_of_what_is_sent(self, site: Site) -> None:
        async with site.http.stream(
            "GET", "/metrics", headers={"Accept-Encoding": "gzip"}
        ) as response:
            sent = b"".join([chunk async for chunk in response.aiter_raw()])
        assert len(sent) == int(response.headers["content-length"])
        assert gzip.decompress(sent).startswith(b"# HELP")


class TestHealth:
    @pytest.mark.parametrize(
        ("path", "check", "well"),
        [("/-/healthy", "unhealthy", "healthy\n"), ("/-/ready", "unready", "ready\n")],
    )
    async def test_200_and_a_word_or_503_and_what_is_wrong(
        self, site: Site, path: str, check: str, well: str
    ) -> None:
        response = await site.get(path)
        assert (response.status_code, response.text) == (200, well)
        setattr(site, check, ["acc/orders: the first round isn't over", "acc/billing: too"])
        response = await site.get(path)
        assert response.status_code == 503
        assert response.text == "acc/orders: the first round isn't over\nacc/billing: too\n"
        assert response.headers["content-type"] == "text/plain; charset=utf-8"


async def test_the_page_links_what_there_is(site: Site) -> None:
    """By relative addresses, so that it works behind a path of a proxy."""
    response = await site.get("/")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    for path in ("metrics", "-/healthy", "-/ready"):
        assert f'<a href="{path}">' in response.text
        assert (await site.get(f"/{path}")).status_code == 200


PATHS = ["/", "/metrics", "/-/healthy", "/-/ready"]


class TestEverywhere:
    @pytest.mark.parametrize("path", [*PATHS, "/none"])
    async def test_security_headers(self, site: Site, path: str) -> None:
        headers = (await site.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["referrer-policy"] == "no-referrer"

    @pytest.mark.parametrize("path", PATHS)
    async def test_head_is_get_without_the_body(self, site: Site, path: str) -> None:
        get, head = await site.get(path), await site.get(path, "HEAD")
        assert head.status_code == get.status_code
        assert head.headers.keys() == get.headers.keys()

    @pytest.mark.parametrize("path", PATHS)
    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
    async def test_nothing_can_be_changed(self, site: Site, path: str, method: str) -> None:
        response = await site.get(path, method)
        assert response.status_code == 405
        assert set(response.headers["allow"].split(", ")) == {"GET", "HEAD"}

    @pytest.mark.parametrize("path", ["/none", "/metrics/x", "/-/none", "/-/", "/%00"])
    async def test_other_paths_are_404(self, site: Site, path: str) -> None:
        assert (await site.get(path)).status_code == 404
