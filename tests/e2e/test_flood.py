"""Clients that hold as many connections as they can get: the exporter holds few of them, in little
memory, and is scraped meanwhile."""

import re
import socket
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from exporter.web.connection_limits import ConnectionLimits
from simulator import Simulator, serve_in_thread
from tests.e2e.daemon import configuration, daemon

pytestmark = pytest.mark.process

HELD = 600
HALF_A_REQUEST = b"GET / HTTP/1.1\r\nA: " + b"b" * 30_000


def memory(pid: int) -> float:
    """MiB that a process has in memory."""
    (kib,) = re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(kib) / 1024


def test_a_flood_of_connections_is_held_off(tmp_path: Path) -> None:
    simulator = Simulator()
    simulator.access.token("secret")
    with serve_in_thread(simulator) as served, ExitStack() as held:
        configuration(tmp_path, served.url + "/accounts/{account_id}", api_token="secret")
        running = held.enter_context(daemon(tmp_path))
        host, _, port = running.address.rpartition(":")
        running.metrics()
        before = memory(running.process.pid)
        for _ in range(HELD):
            client = held.enter_context(socket.create_connection((host, int(port))))
            with suppress(OSError):  # it had to give way already
                client.sendall(HALF_A_REQUEST)
        assert "cloudflare_workflows_exporter_build_info" in running.metrics()
        files = list(Path(f"/proc/{running.process.pid}/fd").iterdir())
        assert len(files) < ConnectionLimits().connections + 50
        assert memory(running.process.pid) - before < 32
