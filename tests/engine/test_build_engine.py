"""The engine is built whole or not at all, and what goes wrong is said in a line."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.requires import requires_program
from tests.waiting import DEADLINE, tied

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.process


def building(folder: Path, **environ: str) -> subprocess.Popen[str]:
    """`python -m demo --build`, in a copy of the demo where nothing is built."""
    ignored = shutil.ignore_patterns("__pycache__", "node_modules")
    shutil.copytree(ROOT / "demo", folder / "demo", ignore=ignored)
    return subprocess.Popen(
        tied(sys.executable, "-m", "demo", "--build"),
        cwd=folder,
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_npm_ends_with_a_build_that_is_interrupted_or_killed(
    tmp_path: Path, number: signal.Signals
) -> None:
    requires_program("setpriv", "util-linux")
    with socket.create_server(("127.0.0.1", 0)) as registry:
        registry.settimeout(DEADLINE)
        url = f"http://127.0.0.1:{registry.getsockname()[1]}/"
        with building(tmp_path, npm_config_registry=url, NO_PROXY="127.0.0.1") as build:
            npm, _ = registry.accept()
            with npm:
                npm.settimeout(DEADLINE)
                build.send_signal(number)
                while npm.recv(65536):
                    """Its requests come before its end."""
            output, _ = build.communicate(timeout=DEADLINE)
    assert build.returncode == -number
    assert output == ""


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / ".cache").write_text("a file where the folder would be")
    with building(tmp_path) as build:
        output, _ = build.communicate(timeout=DEADLINE)
    assert build.returncode == 1
    assert output == f"[Errno 20] Not a directory: '{tmp_path}/.cache/engine/built-of'\n"
