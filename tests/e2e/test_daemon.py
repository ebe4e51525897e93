"""The command end to end: what it serves, how it stops, and what it says when it can't continue."""

import gzip
import json
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families as text_families

from simulator import (
    Attempt,
    Hang,
    ManualClock,
    Script,
    Simulator,
    Step,
    Wait,
    error,
    serve_in_thread,
)
from tests.cli.command import Command
from tests.e2e.daemon import Daemon, configuration, daemon, environment, run
from tests.e2e.scrape import samples, value
from tests.ports import reserved_port
from tests.waiting import wait_until

pytestmark = [pytest.mark.process, pytest.mark.slow(2)]

TOKEN = "S3cr3t-t0ken-of-the-tests"
EMAIL = "owner@example.com"
KEY = "S3cr3t-global-key-of-the-tests"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TEXT = "text/plain; version=0.0.4; charset=utf-8"


@contextmanager
def simulated() -> Iterator[Simulator]:
    """The API, with the instance `order-1` that waits for an event."""
    clock = ManualClock()
    simulator = Simulator(clock=clock)
    simulator.access.token(TOKEN)
    simulator.access.key(EMAIL, KEY)
    orders = simulator.world.account("acc").workflow("orders")
    orders.create(
        "order-1", Script((Step("pay", (Attempt(0.5),)), Wait("approval"))), at=clock() - 60
    )
    with serve_in_thread(simulator) as served:
        yield served


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with simulated() as simulator:
        yield simulator


@pytest.fixture
def api(simulator: Simulator) -> str:
    return simulator.url + "/accounts/{account_id}"


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nothing listens."""
    with reserved_port() as port:
        yield port


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for the tests that only ask it something."""
    folder = tmp_path_factory.mktemp("daemon")
    with simulated() as simulator:
        configuration(folder, simulator.url + "/accounts/{account_id}", api_token=TOKEN)
        with daemon(folder) as running:
            running.wait_until_ready()
            yield running


class TestServing:
    def test_it_is_ready_and_healthy_and_shows_the_instance(self, running: Daemon) -> None:
        assert running.http.get("/-/healthy").text == "healthy\n"
        assert running.http.get("/-/ready").text == "ready\n"
        found = samples(running.metrics())
        status = "cloudflare_workflow_instance_status"
        assert value(found, status, instance_id="order-1", status="waiting") == 1
        assert value(found, "cloudflare_workflow_up", account="production", workflow="orders") == 1

    def test_both_formats_are_right_and_show_the_same_samples(self, running: Daemon) -> None:
        text = running.http.get("/metrics", headers={"Accept": "text/plain"})
        assert text.headers["Content-Type"] == TEXT
        open_ = running.http.get("/metrics", headers={"Accept": OPENMETRICS})
        assert open_.headers["Content-Type"] == OPENMETRICS
        families = openmetrics_families(open_.text)  # type: ignore[no-untyped-call]
        in_text = {s.name for family in text_families(text.text) for s in family.samples}
        in_open = {s.name for family in families for s in family.samples}
        assert in_text == in_open
        assert "cloudflare_workflow_step_duration_seconds_bucket" in in_open
        assert "process_cpu_seconds_total" in in_open

    @pytest.mark.parametrize(
        ("accept", "format_"),
        [
            ("*/*", TEXT),
            ("text/html", TEXT),
            ("application/openmetrics-text", OPENMETRICS),
            (
                "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
                OPENMETRICS,
            ),
            ("application/openmetrics-text;q=0.3,text/plain;q=0.7", TEXT),
            ("application/openmetrics-text;q=0", TEXT),
        ],
    )
    def test_the_scraper_chooses_the_format(
        self, running: Daemon, accept: str, format_: str
    ) -> None:
        response = running.http.get("/metrics", headers={"Accept": accept})
        assert response.headers["Content-Type"] == format_

    def test_the_exposition_is_packed_for_those_who_take_it(self, running: Daemon) -> None:
        with running.http.stream(
            "GET", "/metrics", headers={"Accept-Encoding": "gzip"}
        ) as response:
            assert response.headers["Content-Encoding"] == "gzip"
            unpacked = gzip.decompress(b"".join(response.iter_raw())).decode()
        assert value(samples(unpacked), "cloudflare_workflow_up") == 1
        plain = running.http.get("/metrics", headers={"Accept-Encoding": "identity"})
        assert "Content-Encoding" not in plain.headers
        assert samples(plain.text).keys() == samples(unpacked).keys()

    def test_the_page_links_the_endpoints(self, running: Daemon) -> None:
        page = running.http.get("/")
        assert page.headers["Content-Type"].startswith("text/html")
        for link in ("metrics", "-/healthy", "-/ready"):
            assert f'href="{link}"' in page.text
            assert running.http.get(link).status_code == 200

    @pytest.mark.parametrize("path", ["/metrics", "/-/healthy", "/-/ready", "/"])
    def test_a_head_request_gets_the_headers_alone(self, running: Daemon, path: str) -> None:
        got, head = running.http.get(path), running.http.head(path)
        assert head.status_code == 200
        assert head.content == b""
        assert head.headers["Content-Type"] == got.headers["Content-Type"]

    def test_another_path_is_not_found_and_another_method_not_allowed(
        self, running: Daemon
    ) -> None:
        assert running.http.get("/metric").status_code == 404
        assert running.http.post("/metrics").status_code == 405


class TestConfiguration:
    def test_environment_and_flags_go_before_the_file(self, api: str, tmp_path: Path) -> None:
        other = configuration(tmp_path, "http://127.0.0.1:1", api_token=TOKEN)
        other = other.rename(tmp_path / "other.yaml")
        environ = environment(CWE_API__URL=api, CWE_LOG__FORMAT="logfmt")
        flags = (f"--config.file={other}", "--log.format=json")
        with daemon(tmp_path, *flags, environ=environ) as running:
            running.wait_until_ready()
            assert value(samples(running.metrics()), "cloudflare_workflow_up") == 1
            lines = [json.loads(line) for line in running.stderr().splitlines()]
        assert lines[0]["msg"] == "watching"

    def test_one_poll_of_everything_prints_the_exposition(self, api: str, tmp_path: Path) -> None:
        configuration(tmp_path, api, api_token=TOKEN)
        done = run(tmp_path, "--once")
        assert (done.returncode, done.stderr) == (0, "")
        status = "cloudflare_workflow_instance_status"
        assert value(samples(done.stdout), status, status="waiting") == 1


class TestStopping:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_it_ends_well_with_a_call_in_flight(
        self, simulator: Simulator, api: str, tmp_path: Path, number: signal.Signals
    ) -> None:
        configuration(tmp_path, api, api_token=TOKEN)
        simulator.faults.add(Hang())
        with daemon(tmp_path, "--api.timeout=10m") as running:
            wait_until(lambda: simulator.requests.in_flight, running.stderr)
            assert running.http.get("/-/ready").status_code == 503
            assert running.stop(number) == 0
            assert "Traceback" not in running.stderr()

    def test_it_ends_while_a_scraper_keeps_its_connection(self, api: str, tmp_path: Path) -> None:
        configuration(tmp_path, api, api_token=TOKEN)
        with daemon(tmp_path) as running:
            running.wait_until_ready()
            assert running.stop() == 0
            assert "Traceback" not in running.stderr()


class TestWhatItCantWorkWith:
    """One clear line each and a status, and no traceback."""

    def test_a_port_in_use(self, api: str, tmp_path: Path) -> None:
        configuration(tmp_path, api, api_token=TOKEN)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = "{}:{}".format(*taken.getsockname())
            done = run(tmp_path, f"--web.listen-address={address}")
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert address in line
        assert "Address already in use" in line

    @pytest.mark.parametrize(
        ("make", "wrong"),
        [
            (Path.exists, "No such file or directory"),
            (Path.mkdir, "Is a directory"),
            (Path.touch, "is empty"),
            (lambda path: path.write_text("two words"), "no API token or key has"),
        ],
        ids=["missing", "folder", "empty", "words"],
    )
    def test_a_token_file(self, api: str, tmp_path: Path, make: object, wrong: str) -> None:
        path = tmp_path / "token"
        assert callable(make)
        make(path)
        configuration(tmp_path, api, api_token_file=str(path))
        done = Command(tmp_path)()
        assert done.returncode == 2
        _, line = done.stderr.splitlines()
        assert "accounts[0]" in line
        assert str(path) in line or wrong == "no API token or key has"
        assert wrong in line
        assert "two words" not in line

    def test_an_api_that_cannot_be_reached(self, closed_port: int, tmp_path: Path) -> None:
        configuration(tmp_path, f"http://127.0.0.1:{closed_port}", api_token=TOKEN)
        done = run(tmp_path, "--once")
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert f"127.0.0.1:{closed_port}" in line
        assert "refused" in line
        assert "check api.url" in line
        assert value(samples(done.stdout), "cloudflare_workflow_up") == 0

    def test_an_api_that_cannot_be_reached_stops_no_daemon(
        self, closed_port: int, tmp_path: Path
    ) -> None:
        configuration(tmp_path, f"http://127.0.0.1:{closed_port}", api_token=TOKEN)
        with daemon(tmp_path) as running:
            wait_until(lambda: "failed to poll instances" in running.stderr(), running.stderr)
            up = "cloudflare_workflow_up{"
            wait_until(lambda: up in running.metrics(), running.metrics)
            assert value(samples(running.metrics()), "cloudflare_workflow_up") == 0

            def unready() -> tuple[int, str]:
                response = running.http.get("/-/ready")
                return response.status_code, response.text

            nothing = 503, "production: nothing can be read; the log says why\n"
            wait_until(lambda: unready() == nothing, lambda: str(unready()))
            assert running.http.get("/-/healthy").status_code == 200
            assert running.stop() == 0
            assert running.stderr().count("failed to poll instances") == 1


def inline(folder: Path, api: str) -> tuple[list[str], dict[str, str]]:
    configuration(folder, api, api_token=TOKEN)
    return [], {}


def file(folder: Path, api: str) -> tuple[list[str], dict[str, str]]:
    path = folder / "token"
    path.write_text(f"{TOKEN}\n")
    configuration(folder, api, api_token_file=str(path))
    return [], {}


def variable(folder: Path, api: str) -> tuple[list[str], dict[str, str]]:
    configuration(folder, api)
    return [], {"CLOUDFLARE_API_TOKEN": TOKEN}


def key_variables(folder: Path, api: str) -> tuple[list[str], dict[str, str]]:
    configuration(folder, api)
    return [], {"CLOUDFLARE_EMAIL": EMAIL, "CLOUDFLARE_API_KEY": KEY}


def key_file(folder: Path, api: str) -> tuple[list[str], dict[str, str]]:
    path = folder / "key"
    path.write_text(KEY)
    configuration(folder, api, api_email=EMAIL, api_key_file=str(path))
    return [], {}


def flag(folder: Path, api: str) -> tuple[list[str], dict[str, str]]:
    tree = json.loads(configuration(folder, api, api_token=TOKEN).read_text())
    (folder / "config.yaml").unlink()
    flags = [f"--accounts={json.dumps(tree['accounts'])}", f"--api.url={api}"]
    return [*flags, "--poll.interval=100ms"], {}


class TestSecrets:
    """Wherever a credential comes from, it goes to the API and nowhere else."""

    @pytest.mark.parametrize("given", [inline, file, variable, key_variables, key_file, flag])
    def test_none_is_shown_not_even_at_debug_level_or_when_the_api_sends_it_back(
        self, simulator: Simulator, api: str, tmp_path: Path, given: object
    ) -> None:
        assert callable(given)
        flags, variables = given(tmp_path, api)
        environ = environment(**variables)
        with daemon(tmp_path, "--log.level=debug", *flags, environ=environ) as running:
            running.wait_until_ready()
            assert value(samples(running.metrics()), "cloudflare_workflow_up") == 1
            simulator.faults.add(error(403, 10000, f"no permission for {TOKEN} and {KEY}"))
            wait_until(lambda: "Workers Scripts Read" in running.stderr(), running.stderr)
            shown = [running.stderr(), running.metrics()]
            shown += [running.http.get(path).text for path in ("/", "/-/healthy", "/-/ready")]
        used = KEY if "key" in getattr(given, "__name__", "") else TOKEN
        assert not [text for text in shown if used in text or EMAIL in text]
