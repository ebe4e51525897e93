"""Does what a page says, command by command, in a clean copy of this repository."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from tests.docs.pages import Block, blocks
from tests.e2e.daemon import environment
from tests.ports import reserved_port
from tests.requires import requires_program
from tests.waiting import DEADLINE, tied, wait_until
from tools import ROOT

ELSEWHERE = {
    "make demo": "tests/engine/test_demo.py",
    "docker": "tests/image/test_image.py",
    "helm install": "tests/helm/test_rendering.py",
    "python3 -m venv": "tests/docs/test_ways_in.py",
    "pipx install": "tests/docs/test_ways_in.py",
    "uv tool install": "tests/docs/test_ways_in.py",
    "cosign": "tests/docs/test_ways_in.py",
}
"""Blocks that are not run here, by how they begin, and which test runs what they do."""

DOCUMENTED = "127.0.0.1:9734"
_LEFT_OUT = (".git", ".venv", "node_modules", ".*_cache", ".hypothesis", ".cache", "__pycache__")


class Walk:
    """A reader who follows a page from its beginning.

    Commands run with bash, each block after the other; what a block exports stays. A YAML block
    that begins with a comment of a file's name is written to that file. The upstream is the one of
    `api`, and a free port stands for the documented one.

    Attributes:
        done: The blocks of commands that were run.
        elsewhere: Those that were not, being run elsewhere.
    """

    def __init__(self, folder: Path, api: str, stack: ExitStack) -> None:
        self.folder = folder
        self.done: list[Block] = []
        self.elsewhere: list[Block] = []
        self._address = f"127.0.0.1:{stack.enter_context(reserved_port())}"
        self._stack = stack
        self._exports: list[str] = []
        self._environ = environment(CWE_API__URL=api, CWE_WEB__LISTEN_ADDRESS=self._address)

    def along(self, page: Path) -> None:
        """Follows a page.

        Raises:
            AssertionError: a command fails, or prints other than the `text` block after it says.
        """
        printed = ""
        for block in blocks(page, "sh", "yaml", "text"):
            match block.language:
                case "yaml":
                    self._write(block)
                case "sh":
                    printed = self._run(block)
                case _:
                    assert printed == block.text, f"{block}: it prints\n{printed}"

    def _write(self, block: Block) -> None:
        name = block.text.partition("\n")[0].removeprefix("# ")
        if name.endswith((".yaml", ".yml")):
            (self.folder / name).write_text(block.text)

    def _run(self, block: Block) -> str:
        is_demo = block.text == "make run\n" and not (self.folder / "config.yaml").exists()
        if is_demo or block.text.startswith(tuple(ELSEWHERE)):
            self.elsewhere.append(block)
            return ""
        printed = ""
        for line in block.text.splitlines():
            if line.startswith("export "):
                self._exports.append(line)
            elif line == "make run":
                self._stack.enter_context(self._watching(line))
            else:
                printed += self._printed(line, block)
        self.done.append(block)
        return printed

    def _printed(self, line: str, block: Block) -> str:
        # So that a response of 404 is a failure.
        line = line.replace("curl ", "curl --fail --silent --show-error --noproxy '*' ")
        finished = subprocess.run(
            self._command(line.replace(DOCUMENTED, self._address)),
            cwd=self.folder,
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert finished.returncode == 0, f"{block}: {line}\n{finished.stderr}{finished.stdout}"
        return finished.stdout

    @contextmanager
    def _watching(self, line: str) -> Iterator[None]:
        """Runs the exporter on, from when it is ready."""
        output = self.folder / "output"
        with (
            output.open("wb") as file,
            subprocess.Popen(
                tied(*self._command(line)),
                cwd=self.folder,
                env=self._environ,
                stdout=file,
                stderr=file,
                start_new_session=True,
            ) as process,
            httpx.Client(trust_env=False, timeout=DEADLINE, verify=False) as http,
        ):

            def ready() -> bool:
                assert process.poll() is None, output.read_text()
                try:
                    return http.get(f"http://{self._address}/-/ready").is_success
                except httpx.TransportError:
                    return False

            try:
                wait_until(ready, output.read_text)
                yield
            finally:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(DEADLINE)

    def _command(self, line: str) -> list[str]:
        script = "\n".join(["set -euo pipefail", *self._exports, line])
        return [requires_program("bash", "bash"), "-c", script]


@contextmanager
def walk(folder: Path, api: str) -> Iterator[Walk]:
    """A walk through a copy of this repository that was set up (`.venv`) and no more."""
    copy = folder / "copy"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*_LEFT_OUT, "*.db*", "config.yaml"))
    venv = copy / ".venv"
    venv.mkdir()
    for part in ("bin", "lib", "pyvenv.cfg"):
        (venv / part).symlink_to(Path(sys.prefix) / part)
    for stamp in (".runtime", ".package"):
        (venv / stamp).touch()
    with ExitStack() as stack:
        yield Walk(copy, api, stack)
