"""A real Prometheus server and a real Alertmanager, as Debian packages them."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from tests.requires import requires_program
from tests.waiting import DEADLINE, tied, wait_until


@dataclass(frozen=True)
class Prometheus:
    """A server that scrapes.

    Attributes:
        http: a client whose paths are relative to it.
        at: the Unix time for which queries are evaluated; None: now.
    """

    http: httpx.Client
    at: float | None = None

    def query(self, promql: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series that an instant query finds."""
        params = {"query": promql} | ({} if self.at is None else {"time": f"{self.at:.3f}"})
        response = self.http.get("/api/v1/query", params=params).raise_for_status().json()
        return [(r["metric"], float(r["value"][1])) for r in response["data"]["result"]]

    def evaluated_since(self, moment: datetime) -> bool:
        """Whether each group of rules has been evaluated after that."""
        groups = self.http.get("/api/v1/rules").raise_for_status().json()["data"]["groups"]
        return all(datetime.fromisoformat(group["lastEvaluation"]) > moment for group in groups)

    def alerts(self) -> list[tuple[dict[str, str], str]]:
        """Labels and state of each alert that is pending or fires."""
        return [(alert["labels"], alert["state"]) for alert in self._alerts()]

    def descriptions(self) -> list[str]:
        """The descriptions of the same alerts."""
        return [alert["annotations"]["description"] for alert in self._alerts()]

    def _alerts(self) -> list[dict[str, Any]]:
        response = self.http.get("/api/v1/alerts").raise_for_status().json()
        found: list[dict[str, Any]] = response["data"]["alerts"]
        return found


@contextmanager
def prometheus(folder: Path, config: str, *flags: str) -> Iterator[Prometheus]:
    """Runs a server with a configuration file of that content, and more flags."""
    program = requires_program("prometheus", "prometheus")
    (folder / "prometheus.yml").write_text(config)
    command = [
        program,
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        *flags,
    ]
    with _server(command, folder / "prometheus.log") as http:
        yield Prometheus(http)


@contextmanager
def alertmanager(folder: Path, config: str) -> Iterator[str]:
    """Runs an Alertmanager with a configuration file of that content; gives its host:port."""
    program = requires_program("prometheus-alertmanager", "prometheus-alertmanager")
    (folder / "alertmanager.yml").write_text(config)
    command = [
        program,
        f"--config.file={folder}/alertmanager.yml",
        f"--storage.path={folder}/alertmanager",
        "--cluster.listen-address=",
    ]
    with _server(command, folder / "alertmanager.log") as http:
        yield http.base_url.netloc.decode()


@contextmanager
def _server(command: list[str], log: Path) -> Iterator[httpx.Client]:
    """Runs a server on a port that the system chooses, until it is ready."""

    def listening() -> re.Match[str] | None:
        return re.search(r'msg="Listening on" address=(\S+)\n', log.read_text())

    with (
        log.open("wb") as file,
        subprocess.Popen(
            tied(*command, "--web.listen-address=127.0.0.1:0"), stdout=file, stderr=file
        ) as process,
    ):
        try:
            wait_until(lambda: listening() or process.poll() is not None, log.read_text)
            found = listening()
            assert found, log.read_text()
            with httpx.Client(
                base_url=f"http://{found[1]}", trust_env=False, timeout=DEADLINE, verify=False
            ) as http:
                wait_until(lambda: http.get("/-/ready").is_success, log.read_text)
                yield http
        finally:
            process.terminate()
            process.wait(DEADLINE)
