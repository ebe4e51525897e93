"""The demo: sample workflows keep moving, an exporter watches them, nothing is left behind."""

import io
import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import httpx
import pytest

from demo import LocalEngine
from demo.__main__ import show, statuses, welcome
from demo.build_engine import ENGINE, build
from demo.prometheus import (
    Monitoring,
    MonitoringError,
    free_address,
    monitoring,
)
from demo.sample_instances import Sample, SampleDriver
from tests.ports import reserved_port
from tests.requires import requires_program
from tests.waiting import DEADLINE, tied, wait_until

ROOT = Path(__file__).parents[2]


@pytest.mark.engine
class TestSampleDriver:
    def test_a_sample_is_created_at_its_first_turn_and_restarted_once_it_has_ended(
        self, engine: LocalEngine
    ) -> None:
        driver = SampleDriver(engine, [Sample("orders", "mover-error", "error")])
        assert driver.advance() == "create"
        first = engine.wait_for("orders", "mover-error", "errored")
        assert driver.advance() == "restart"
        engine.wait_for("orders", "mover-error", lambda r: r["queued"] > first["queued"])

    def test_a_sample_is_moved_on_as_its_status_asks(self, engine: LocalEngine) -> None:
        sleeper = Sample(
            "orders", "mover-sleep", "sleep", actions={"running": "pause", "paused": "resume"}
        )
        driver = SampleDriver(engine, [sleeper])
        driver.advance()
        engine.wait_for("orders", "mover-sleep", "running")
        assert driver.advance() == "pause"
        engine.wait_for("orders", "mover-sleep", "paused")
        assert driver.advance() == "resume"
        engine.wait_for("orders", "mover-sleep", "running")

    def test_a_sample_that_is_to_stay_as_it_is_is_left_alone(self, engine: LocalEngine) -> None:
        driver = SampleDriver(engine, [Sample("orders", "mover-stalled", "stalled")])
        driver.advance()
        assert driver.advance() is None


def test_the_summary_counts_current_statuses_by_workflow() -> None:
    exposition = (
        "# TYPE cloudflare_workflow_instance_status gauge\n"
        'cloudflare_workflow_instance_status{workflow="orders",status="errored"} 1\n'
        'cloudflare_workflow_instance_status{workflow="orders",status="complete"} 0\n'
    )
    assert statuses(exposition) == {"orders": Counter(errored=1)}


class TestWelcome:
    def test_the_page_comes_first_then_the_metrics_then_what_to_try(self) -> None:
        found = re.findall(r"http://\S+", welcome("127.0.0.1:1", None))
        assert found == [
            "http://127.0.0.1:1/",
            "http://127.0.0.1:1/metrics",
            "http://127.0.0.1:1/metrics",
            "http://127.0.0.1:1/instance?account=local&workflow=orders&id=demo-exhaust",
        ]

    def test_what_is_not_installed_is_said_with_how_to_install_it(self) -> None:
        lines = welcome("127.0.0.1:1", Monitoring(prometheus="127.0.0.1:2")).splitlines()
        assert "  Prometheus    http://127.0.0.1:2/" in lines
        assert (
            "  Alertmanager  not installed; on Debian and Ubuntu: apt-get install "
            "prometheus-alertmanager" in lines
        )
        assert "    http://127.0.0.1:2/alerts" in lines


class TestShow:
    def test_on_a_terminal_a_line_takes_the_place_of_the_one_before(self) -> None:
        reader, writer = os.openpty()
        with open(writer, "w") as terminal:
            for line in ("one", "two"):
                show(line, terminal)
                assert os.read(reader, 100) == f"\r{line}\x1b[K".encode()
        os.close(reader)

    def test_elsewhere_each_is_a_line(self) -> None:
        stream = io.StringIO()
        show("one", stream)
        show("two", stream)
        assert stream.getvalue() == "one\ntwo\n"


@pytest.mark.prometheus
class TestMonitoring:
    def test_a_port_in_use_is_replaced(self) -> None:
        with reserved_port() as number:
            with socket.create_server(("127.0.0.1", number)):
                host, _, port = free_address(number).partition(":")
            assert host == "127.0.0.1"
            assert int(port) not in (0, number)
            assert free_address(number) == f"127.0.0.1:{number}"

    @pytest.mark.process
    def test_nothing_is_started_where_nothing_is_installed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        with monitoring(tmp_path, "127.0.0.1:1") as beside:
            assert beside == Monitoring()

    @pytest.mark.process
    def test_what_does_not_start_says_why(self, tmp_path: Path) -> None:
        requires_program("prometheus-alertmanager", "prometheus-alertmanager")
        (tmp_path / "alertmanager").write_text("a file where its folder would be")
        with (
            pytest.raises(MonitoringError, match=r"did not start:\n(?s:.*)not a directory"),
            monitoring(tmp_path, "127.0.0.1:1"),
        ):
            pass


def children(pid: int) -> list[int]:
    """The processes below a process."""
    found: list[int] = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += [int(child), *children(int(child))]
    return found


def runs(pid: int) -> bool:
    """Whether a process is there and hasn't ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.process
def test_what_it_started_ends_with_a_demo_that_is_killed() -> None:
    requires_program("setpriv", "util-linux")
    body = (
        "with child_process('sleep', '1000') as child: print(child.pid, flush=True); child.wait()"
    )
    code = f"from demo.child_process import child_process\n{body}"
    command = tied(sys.executable, "-c", code)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        started = int(demo.stdout.readline())
        name = Path(f"/proc/{started}/comm")
        wait_until(lambda: name.read_text() == "sleep\n", lambda: "it hasn't begun")
        demo.kill()
    wait_until(lambda: not runs(started), lambda: f"{started} still runs")


@pytest.mark.engine
def test_what_it_installs_is_light() -> None:
    build()
    pinned = "".join((ROOT / "requirements" / f"{n}.txt").read_text() for n in ("runtime", "build"))
    names = {"pip", *re.findall(r"^([a-z0-9._-]+)[=[]", pinned, re.MULTILINE)}
    assert {"httpx", "psycopg", "hatchling"} < names
    files = [*ENGINE.iterdir()]
    for package in distributions():
        if package.name.lower() in names:
            files += [Path(str(file.locate())) for file in package.files or ()]
    size = sum(file.stat().st_size for file in files if file.exists())
    assert 150e6 < size <= 250e6, "bytes"


@pytest.fixture
def port() -> Iterator[int]:
    with reserved_port() as port:
        yield port


class Demo:
    """The demo as a person runs it."""

    def __init__(self, port: int, output: Path, *flags: str) -> None:
        self.metrics = f"http://127.0.0.1:{port}/metrics"
        self._output = output
        with output.open("w") as file:
            self.process = subprocess.Popen(
                tied(
                    *(sys.executable, "-m", "demo"),
                    f"--web.listen-address=127.0.0.1:{port}",
                    *flags,
                    signal="TERM",
                ),
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def output(self) -> str:
        return self._output.read_text()


@pytest.fixture
def demo(port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Demo]:
    monkeypatch.setenv("CWE_STATE__PATH", str(tmp_path / "state.db"))
    demo = Demo(port, tmp_path / "output")
    yield demo
    demo.process.terminate()
    demo.process.wait(DEADLINE)
    assert not (tmp_path / "state.db").exists(), "the state of the user's own exporter"


@pytest.mark.process
@pytest.mark.slow(12)
class TestDemo:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_it_shows_life_and_leaves_no_process_behind(
        self, demo: Demo, number: signal.Signals
    ) -> None:
        wait_until(lambda: re.search(r"\d errored.*\d running", demo.output()), demo.output)
        assert demo.metrics in demo.output()
        for page in re.findall(r"http://\S+", demo.output()):
            assert httpx.get(page, trust_env=False, timeout=DEADLINE).is_success, page
        shown = httpx.get(demo.metrics, trust_env=False, timeout=DEADLINE).text
        counts = statuses(shown)
        assert {"orders", "billing"} == counts.keys()
        below = children(demo.process.pid)
        assert len(below) >= 2, "the exporter and workerd"
        demo.process.send_signal(number)
        assert demo.process.wait(DEADLINE) == 0
        wait_until(lambda: not any(runs(pid) for pid in below), lambda: f"{below} still run")

    def test_with_prometheus_it_is_scraped_and_the_alerts_are_there(
        self, port: int, tmp_path: Path
    ) -> None:
        for program in ("prometheus", "prometheus-alertmanager"):
            requires_program(program, program)
        demo = Demo(port, tmp_path / "output", "--with=prometheus")
        try:
            wait_until(lambda: re.search(r"\d errored", demo.output()), demo.output)
            found = re.search(r"Prometheus +(http://\S+/)", demo.output())
            assert found, demo.output()
            with httpx.Client(
                base_url=f"{found[1]}api/v1/", trust_env=False, timeout=DEADLINE
            ) as prometheus:

                def result(path: str, **query: str) -> Any:
                    return prometheus.get(path, params=query).raise_for_status().json()["data"]

                errors = "cloudflare_workflow_instance_error_info"
                wait_until(lambda: result("query", query=errors)["result"], demo.output)
                assert result("rules", type="alert")["groups"]
                wait_until(lambda: result("alertmanagers")["activeAlertmanagers"], demo.output)
            below = children(demo.process.pid)
            demo.process.terminate()
            assert demo.process.wait(DEADLINE) == 0
            wait_until(lambda: not any(runs(pid) for pid in below), lambda: f"{below} still run")
        finally:
            demo.process.terminate()
            demo.process.wait(DEADLINE)

    def test_a_port_in_use_ends_it_with_the_exporter_s_own_words_and_status(
        self, port: int, tmp_path: Path
    ) -> None:
        with socket.create_server(("127.0.0.1", port)):
            demo = Demo(port, tmp_path / "output")
            assert demo.process.wait(DEADLINE) == 1
        assert f"127.0.0.1:{port}" in demo.output()
        assert "Traceback" not in demo.output()
