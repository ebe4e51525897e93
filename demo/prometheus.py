"""Prometheus and Alertmanager beside the demo, where they are installed."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from demo.child_process import child_process

ROOT = Path(__file__).parents[1]
RULES = ROOT / "alerts" / "prometheus.rules.yaml"
ALERTMANAGER = ROOT / "deploy" / "compose" / "alertmanager.yml"

_READY_TIMEOUT = 60.0


class MonitoringError(RuntimeError):
    """Prometheus or Alertmanager did not start."""


@dataclass(frozen=True)
class Monitoring:
    """host:port of each that runs; empty where it is not installed."""

    prometheus: str = ""
    alertmanager: str = ""


def free_address(port: int) -> str:
    """127.0.0.1 with this port, or with a free one where it is in use."""
    for candidate in (port, 0):
        try:
            with socket.create_server(("127.0.0.1", candidate)) as server:
                return f"127.0.0.1:{server.getsockname()[1]}"
        except OSError:
            continue
    raise MonitoringError("there is no free port on 127.0.0.1")


@contextmanager
def monitoring(folder: Path, exporter: str) -> Iterator[Monitoring]:
    """Runs what is installed of the two.

    Args:
        folder: of their data.
        exporter: host:port that is scraped.

    Raises:
        MonitoringError: one of them did not start; the end of its log is in the message.
    """
    with ExitStack() as stack:
        alertmanager = prometheus = ""
        if program := shutil.which("prometheus-alertmanager") or shutil.which("alertmanager"):
            alertmanager = free_address(9093)
            command = [
                program,
                f"--config.file={ALERTMANAGER}",
                f"--storage.path={folder / 'alertmanager'}",
                f"--web.listen-address={alertmanager}",
                "--cluster.listen-address=",
            ]
            stack.enter_context(_running(command, folder / "alertmanager.log", alertmanager))
        if program := shutil.which("prometheus"):
            prometheus = free_address(9090)
            config = folder / "prometheus.yml"
            config.write_text(_configuration(exporter, alertmanager))
            command = [
                program,
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'prometheus'}",
                f"--web.listen-address={prometheus}",
                "--enable-feature=exemplar-storage",
            ]
            stack.enter_context(_running(command, folder / "prometheus.log", prometheus))
        yield Monitoring(prometheus, alertmanager)


def _configuration(exporter: str, alertmanager: str) -> str:
    """Prometheus' own, in JSON, which is YAML."""
    alertmanagers = [{"static_configs": [{"targets": [alertmanager]}]}] if alertmanager else []
    job = {"job_name": "cloudflare-workflows", "static_configs": [{"targets": [exporter]}]}
    return json.dumps(
        {
            "global": {"scrape_interval": "5s", "evaluation_interval": "5s"},
            "scrape_configs": [job],
            "rule_files": [str(RULES)],
            "alerting": {"alertmanagers": alertmanagers},
        }
    )


@contextmanager
def _running(command: list[str], log: Path, where: str) -> Iterator[None]:
    with log.open("wb") as file, child_process(*command, output=file) as process:
        _wait(process, command[0], log, where)
        yield


def _wait(process: subprocess.Popen[bytes], program: str, log: Path, where: str) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if httpx.get(f"http://{where}/-/ready", trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    last = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
    raise MonitoringError(f"{program} did not start:\n{last}")
