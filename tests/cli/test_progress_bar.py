"""`--once` shows how far it is on a terminal, and on nothing else."""

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.progress_bar import line
from simulator import Hang, Script, Simulator, serve_in_thread, steps
from tests.e2e.daemon import environment
from tests.waiting import tied, wait_until


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    simulator = Simulator()
    simulator.access.token("secret")
    orders = simulator.world.account("acc").workflow("orders")
    for number in range(12):
        orders.create(f"o-{number}", Script(steps("a")))
    with serve_in_thread(simulator) as served:
        yield served


def configured(folder: Path, simulator: Simulator) -> Path:
    tree = {
        "api": {"url": simulator.url + "/accounts/{account_id}"},
        "accounts": [
            {
                "account_id": "acc",
                "api_token": "secret",
                "workflows": [{"name": "orders", "instances": [f"o-{n}" for n in range(12)]}],
            }
        ],
    }
    (folder / "config.yaml").write_text(json.dumps(tree))
    return folder


class Terminal:
    """A terminal whose screen a test can read."""

    def __init__(self) -> None:
        self._ours, self.theirs = pty.openpty()
        os.set_blocking(self._ours, False)
        self.text = ""

    def read(self) -> str:
        with contextlib.suppress(BlockingIOError):  # there is nothing more to read
            while True:
                self.text += os.read(self._ours, 65536).decode()
        return self.text

    def close(self) -> None:
        os.close(self._ours)
        os.close(self.theirs)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.close()


@contextlib.contextmanager
def once(folder: Path, terminal: Terminal, **environ: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Runs it; in the end it has ended by itself. Its output is in a file, `output`."""
    with (
        (folder / "output").open("wb") as output,
        subprocess.Popen(
            tied(sys.executable, "-m", "exporter", "--once"),
            cwd=folder,
            env=environment(**{"TERM": "xterm", **environ}),
            stdout=output,
            stderr=terminal.theirs,
        ) as child,
    ):
        yield child

        def ended() -> bool:
            terminal.read()  # a screen that nobody reads takes no more at some time
            return child.poll() is not None

        wait_until(ended, lambda: terminal.text)


@pytest.mark.process
def test_a_bar_grows_and_goes_and_the_metrics_stay_clean(
    tmp_path: Path, simulator: Simulator, terminal: Terminal
) -> None:
    hanging = simulator.faults.add(Hang(), kind="detail", skip=5)
    with once(configured(tmp_path, simulator), terminal) as child:
        wait_until(lambda: "5 of 12 instances" in terminal.read(), lambda: terminal.text)
        simulator.faults.remove(hanging)
        simulator.faults.release()
    assert child.returncode == 0
    out = (tmp_path / "output").read_bytes()
    assert out.startswith(b"# HELP ")
    assert b"\x1b" not in out
    assert "[########............] 5 of 12 instances" in terminal.text
    # Drawn over and over in one line, which is empty in the end.
    assert "\n" not in terminal.read()
    assert terminal.text.endswith("\r\x1b[K\r")


@pytest.mark.process
def test_a_line_of_the_log_takes_the_bars_place(
    tmp_path: Path, simulator: Simulator, terminal: Terminal
) -> None:
    simulator.access.revoke("secret")
    with once(configured(tmp_path, simulator), terminal) as child:
        pass
    assert child.returncode == 1
    (warning,) = (x for x in re.split(r"\r\n|\r|\x1b\[K", terminal.read()) if "warning" in x)
    assert warning.startswith("ts=")
    assert len(warning) > 65


@pytest.mark.process
def test_a_terminal_that_can_not_draw_gets_none(
    tmp_path: Path, simulator: Simulator, terminal: Terminal
) -> None:
    with once(configured(tmp_path, simulator), terminal, TERM="dumb") as child:
        pass
    assert child.returncode == 0
    assert terminal.read() == ""


@pytest.mark.parametrize(
    ("done", "total", "rate", "shown"),
    [
        (0, 0, 2, "reading lists"),
        (0, 40, 2, "[....................] 0 of 40 instances, 20s left"),
        (39, 40, 2, "[###################.] 39 of 40 instances"),
        (40, 40, 2, "[####################] 40 of 40 instances"),
        (1, 1_000_000, 0.5, "[....................] 1 of 1,000,000 instances, 23d3h33m18s left"),
    ],
)
def test_what_it_says(done: int, total: int, rate: float, shown: str) -> None:
    assert line(done, total, rate) == shown
