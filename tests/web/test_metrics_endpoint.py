"""Scrapes over real sockets: by several at once, by slow ones, by those who go away."""

import asyncio
import base64
import gzip
import random
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from prometheus_client.parser import text_string_to_metric_families as parse_text
from starlette.applications import Starlette
from starlette.routing import Mount

from exporter.clock import Clock
from exporter.config.metrics import Metrics
from exporter.instances.run import FinishedAttempt, FinishedRun, FinishedStep, Observations
from exporter.metrics import catalogue
from exporter.metrics.catalogue import WorkflowKey
from exporter.metrics.exposition import Exposition
from exporter.metrics.series import Changes, SeriesData
from exporter.metrics.store import Store
from exporter.web.endpoints import endpoints
from exporter.web.page.view import WatchView
from exporter.web.server import Server, listen
from tests.exposed import show_at_once
from tests.metrics.random_changes import changes
from tests.prometheus import Prometheus, prometheus
from tests.requires import requires_program
from tests.waiting import DEADLINE, until, wait_until
from tests.web.serving import limits

ORDERS = WorkflowKey("acc", "orders")
AT_ONCE = 8
# More than what sockets and the server hold together, so that a reader who waits makes it wait.
HUGE = 20


@asynccontextmanager
async def serving(app: Starlette, **given: float) -> AsyncIterator[int]:
    """Runs the server with limits that are given; its port."""
    with listen("127.0.0.1", 0) as listener:
        server = Server(app, limits=limits(**given))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        await until(lambda: server.started)
        yield listener.getsockname()[1]
        server.should_exit = True
        await task


def empty() -> Exposition:
    return Exposition(Store(Metrics()))


def show(exposition: Exposition, number: int, *, instances: int = 3, size: int = 1) -> None:
    """Makes everything show that number. A name of `size` bytes stands beside each."""
    show_at_once(
        exposition,
        Changes(
            {(catalogue.DETAILS_SKIPPED, ORDERS): SeriesData(float(number))},
            instances={
                ORDERS: {
                    f"order-{n}": [
                        (catalogue.RETRIES, (), number),
                        (catalogue.CURRENT_STEP_ATTEMPTS, ("x" * size, "step"), number),
                        (catalogue.LAST_CHANGE, (), number),
                    ]
                    for n in range(instances)
                }
            },
        ),
    )


def numbers(body: bytes) -> set[float]:
    """What the samples show: one number, if they are all of one moment."""
    lines = body.decode().splitlines()
    return {float(line.rpartition(" ")[2]) for line in lines if line.startswith("cloudflare")}


def site(exposition: Exposition) -> Starlette:
    view = WatchView([], clock=Clock())
    return endpoints(exposition, view, unhealthy=list, unready=list)


async def ask(port: int, path: str = "/metrics", **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, verify=False, timeout=DEADLINE) as http:
        return await http.get(f"http://127.0.0.1:{port}{path}", headers=headers)


class Reader:
    """A client that has read the head of a response, and continues when it is asked to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.status = 0
        self.length = 0

    async def rest(self) -> bytes:
        return await self.reader.readexactly(self.length)


@asynccontextmanager
async def reading(port: int, **headers: str) -> AsyncIterator[Reader]:
    # The least that it takes in advance.
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    try:
        lines = ["GET /metrics HTTP/1.1", "Host: x", *(f"{k}: {v}" for k, v in headers.items())]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        head = await reader.readuntil(b"\r\n\r\n")
        client = Reader(reader, writer)
        client.status = int(head.split()[1])
        if found := re.search(rb"content-length: (\d+)", head, re.IGNORECASE):
            client.length = int(found[1])
        yield client
    finally:
        writer.transport.abort()


async def eventually_answered(port: int) -> None:
    async with asyncio.timeout(DEADLINE):
        while True:
            with suppress(httpx.TransportError):  # on a busy machine its own time may be over
                if (await ask(port, "/metrics?name[]=none")).status_code == 200:
                    return
            await asyncio.sleep(0.01)


class TestSlowReaders:
    @pytest.mark.slow
    async def test_they_hold_up_nobody_and_see_the_moment_they_came(self) -> None:
        exposition = empty()
        show(exposition, 1, instances=HUGE, size=1_000_000)
        async with serving(site(exposition)) as port, reading(port) as slow:
            assert slow.length > HUGE * 1_000_000
            show(exposition, 2, instances=HUGE)
            assert numbers((await ask(port)).content) == {2}
            assert numbers(await slow.rest()) == {1}

    @pytest.mark.slow
    async def test_one_too_many_is_refused_until_another_is_gone(self) -> None:
        exposition = empty()
        show(exposition, 1, instances=HUGE, size=1_000_000)
        async with serving(site(exposition)) as port, AsyncExitStack() as slow:
            async with reading(port) as first:
                assert first.status == 200
                for _ in range(AT_ONCE - 1):
                    assert (await slow.enter_async_context(reading(port))).status == 200
                refusal = await ask(port)
                assert (refusal.status_code, refusal.text) == (503, "too many scrapes at once\n")
                assert refusal.headers["retry-after"] == "1"
                assert refusal.headers["x-content-type-options"] == "nosniff"
                assert (await ask(port, "/-/healthy")).status_code == 200
            await eventually_answered(port)

    @pytest.mark.slow
    async def test_all_who_go_away_leave_room(self) -> None:
        exposition = empty()
        show(exposition, 1, instances=HUGE, size=1_000_000)
        async with serving(site(exposition)) as port:
            for _ in range(2 * AT_ONCE):
                async with reading(port):
                    pass
                await eventually_answered(port)

    @pytest.mark.slow
    async def test_those_who_never_get_through_are_cut_off(self) -> None:
        exposition = empty()
        show(exposition, 1, instances=HUGE, size=1_000_000)
        async with serving(site(exposition), response=0.5) as port, AsyncExitStack() as slow:
            readers = [await slow.enter_async_context(reading(port)) for _ in range(AT_ONCE)]
            await eventually_answered(port)
            with pytest.raises(asyncio.IncompleteReadError):
                await readers[0].rest()


class TestAnotherReplicaMayCount:
    """From one moment on, what is counted of workflows may be another replica's to show."""

    async def test_gauges_are_shown_without_counts(self) -> None:
        exposition = empty()
        show(exposition, 1)
        exposition.counts_shown = lambda: False
        async with serving(site(exposition)) as port:
            response = await ask(port)
        shown = {sample.name for f in parse_text(response.text) for sample in f.samples}
        assert "cloudflare_workflow_instance_retries" in shown
        assert "cloudflare_workflow_details_skipped_total" not in shown

    @pytest.mark.slow
    @pytest.mark.parametrize("encoding", ["gzip", "identity"])
    async def test_a_response_under_way_is_cut(
        self, encoding: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        exposition = empty()
        show(exposition, 1, instances=HUGE, size=1_000_000)
        # What can't be compressed.
        noise = base64.b64encode(random.Random(1).randbytes(2**24)).decode()
        row = [(catalogue.CURRENT_STEP_ATTEMPTS, (noise, "step"), 1)]
        show_at_once(exposition, Changes(instances={ORDERS: {"noise": row}}))
        shown = True
        exposition.counts_shown = lambda: shown
        headers = {"Accept-Encoding": encoding}
        async with serving(site(exposition)) as port, reading(port, **headers) as slow:
            shown = False
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await slow.rest()
            assert (await ask(port)).status_code == 200
        assert caplog.records == []


@pytest.mark.slow
async def test_each_scrape_is_one_moment_while_everything_changes() -> None:
    """Plain and compressed, several at once: no instance half updated, no counter gone back."""
    exposition = empty()
    show(exposition, 0, instances=500)
    stop = asyncio.Event()

    async def change() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            show(exposition, number, instances=500)
            await asyncio.sleep(0)

    async def scrape(port: int, encoding: str) -> None:
        last = -1.0
        for _ in range(3):
            (number,) = numbers((await ask(port, **{"Accept-Encoding": encoding})).content)
            assert number >= last
            last = number

    async with serving(site(exposition)) as port:
        changing = asyncio.create_task(change())
        await asyncio.gather(*(scrape(port, encoding) for encoding in ("gzip", "identity") * 3))
        stop.set()
        await changing


class TestGzipIsReadBy:
    """Readers that would stop after the first member, were there several."""

    @pytest.fixture
    async def port(self) -> AsyncIterator[int]:
        exposition = empty()
        show(exposition, 7, instances=100)
        async with serving(site(exposition)) as port:
            yield port

    async def test_httpx(self, port: int) -> None:
        response = await ask(port, **{"Accept-Encoding": "gzip"})
        assert response.headers["content-encoding"] == "gzip"
        assert response.text.count('instance_id="order-') == 300

    async def test_python(self, port: int) -> None:
        async with reading(port, **{"Accept-Encoding": "gzip"}) as client:
            assert gzip.decompress(await client.rest()).count(b'instance_id="order-') == 300

    @pytest.mark.process
    async def test_curl(self, port: int) -> None:
        curl = requires_program("curl", "curl")
        process = await asyncio.create_subprocess_exec(
            *(curl, "--compressed", "--silent", "--show-error", "--noproxy", "*"),
            f"http://127.0.0.1:{port}/metrics",
            stdout=asyncio.subprocess.PIPE,
        )
        text, _ = await process.communicate()
        assert process.returncode == 0
        assert text.count(b'instance_id="order-') == 300


class TestHeadAndNames:
    async def test_head_shows_the_length(self) -> None:
        exposition = empty()
        show(exposition, 1, instances=100)
        async with (
            serving(site(exposition)) as port,
            httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=DEADLINE, verify=False
            ) as http,
        ):
            path = "/metrics?name[]=cloudflare_workflow_instance_retries"
            head, get = await http.head(path), await http.get(path)
            assert head.headers["content-length"] == get.headers["content-length"]
            assert (head.status_code, head.content) == (200, b"")
            # The connection continues.
            assert (await http.get(path)).content == get.content

    async def test_families_by_name(self) -> None:
        exposition = empty()
        show(exposition, 1)
        async with serving(site(exposition)) as port:
            names = ("cloudflare_workflow_instance_retries", "cloudflare_workflow_up")
            response = await ask(port, "/metrics?" + "&".join(f"name[]={name}" for name in names))
            assert {family.name for family in parse_text(response.text)} == set(names)
            assert response.text.count("instance_id=") == 3


async def scraped(
    folder: Path, port: int, targets: Mapping[str, str], *flags: str
) -> AsyncIterator[Prometheus]:
    """A Prometheus that has scraped paths of that port, each a job of its own.

    On a busy machine a scrape may take longer than it waits: one of each path has to succeed.
    """
    jobs = "".join(
        f"- {{job_name: {job}, metrics_path: {path}, "
        f"static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}\n"
        for job, path in targets.items()
    )
    config = f"global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n{jobs}"
    with prometheus(folder, config, *flags) as server:
        up = "max_over_time(up[5m]) == 1"
        await asyncio.to_thread(
            wait_until,
            lambda: len(server.query(up)) == len(targets),
            lambda: f"not taken: {targets.keys() - {job['job'] for job, _ in server.query(up)}}",
        )
        yield server


@pytest.mark.prometheus
class TestPrometheus:
    async def test_it_takes_random_contents(self, tmp_path: Path) -> None:
        """In OpenMetrics and compressed, as it asks for them: every sample."""
        expositions: list[Exposition] = []

        @settings(
            max_examples=40,
            deadline=None,
            database=None,
            suppress_health_check=[HealthCheck.too_slow],
        )
        @given(changes())
        def make(random: Changes) -> None:
            exposition = empty()
            show_at_once(exposition, random)
            expositions.append(exposition)

        make()
        app = Starlette(
            routes=[Mount(f"/{n}", site(exposition)) for n, exposition in enumerate(expositions)]
        )
        targets = {f"job-{n}": f"/{n}/metrics" for n in range(len(expositions))}
        async with serving(app) as port:
            async for server in scraped(tmp_path, port, targets):
                query = "max_over_time(scrape_samples_scraped[5m])"
                counts = await asyncio.to_thread(server.query, query)
        taken = {labels["job"]: value for labels, value in counts}
        for n, exposition in enumerate(expositions):
            body, _ = exposition.render("application/openmetrics-text")
            lines = body.split(b"\n")[:-1]
            assert taken[f"job-{n}"] == sum(not line.startswith(b"#") for line in lines)

    async def test_it_finds_the_instance_behind_an_observation(self, tmp_path: Path) -> None:
        """Exemplars, on finished runs and on all durations."""
        store = Store(Metrics())
        store.attached(ORDERS)
        observations = Observations(
            run=FinishedRun("errored", 12.0),
            queue_duration=0.5,
            steps=[FinishedStep("pay-1", "step", "failure", 11.0, 2)],
            attempts=[FinishedAttempt("pay-1", "failure", 5.0)],
        )
        store.counted(ORDERS, "order-17", observations)
        exposition = Exposition(store)
        show_at_once(exposition, store.take())
        app = site(exposition)
        flag = "--enable-feature=exemplar-storage"
        async with serving(app) as port:
            async for server in scraped(tmp_path, port, {"exporter": "/metrics"}, flag):
                found = await asyncio.to_thread(
                    server.http.get,
                    "/api/v1/query_exemplars",
                    params={"query": '{job="exporter"}', "start": 0, "end": 1e11},
                )
        exemplars = {
            (series["seriesLabels"]["__name__"], *(e["value"] for e in series["exemplars"]))
            for series in found.json()["data"]
            if all(e["labels"] == {"instance_id": "order-17"} for e in series["exemplars"])
        }
        assert exemplars == {
            ("cloudflare_workflow_runs_finished_total", "1"),
            ("cloudflare_workflow_run_duration_seconds_bucket", "12"),
            ("cloudflare_workflow_queue_duration_seconds_bucket", "0.5"),
            ("cloudflare_workflow_step_duration_seconds_bucket", "11"),
            ("cloudflare_workflow_step_attempt_duration_seconds_bucket", "5"),
            ("cloudflare_workflow_step_attempts_bucket", "2"),
        }
