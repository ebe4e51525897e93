"""What a test needs beside this process, as its marks say (pyproject.toml): one that starts a
program of which they don't say it fails, so that `-m "not process"` starts none."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PROCESSES = {"browser", "container", "engine", "postgres", "prometheus"}
"""Marks that say more than `process` does."""

_PROGRAMS = {
    "buildah": "container",
    "initdb": "postgres",
    "pg_basebackup": "postgres",
    "postgres": "postgres",
    "prometheus": "prometheus",
    "prometheus-alertmanager": "prometheus",
    "workerd": "engine",
}


def needed_by(command: list[str]) -> str:
    """The mark of a test that runs a command."""
    program = Path(command[0]).name
    if program == "setpriv":
        return needed_by([part for part in command[1:] if not part.startswith("-")])
    if program == "node" and "playwright" in " ".join(command[1:2]):
        return "browser"
    return _PROGRAMS.get(program, "process")


@contextmanager
def no_authorities() -> Iterator[None]:
    """Has httpx take certificate authorities from a folder without any: to read those that come
    with it takes longer than the rest of an exporter's start."""
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("SSL_CERT_FILE", raising=False)
        environment.setenv("SSL_CERT_DIR", str(Path(__file__).parent))
        yield


@contextmanager
def no_proxy() -> Iterator[None]:
    """Has httpx connect without the proxy that the tests' machine may need."""
    with pytest.MonkeyPatch.context() as environment:
        for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
            environment.delenv(name)
        yield


class Guard:
    """Lets no test start what its marks don't name."""

    def __init__(self) -> None:
        self._test: pytest.Item | None = None
        sys.addaudithook(self._audit)

    @contextmanager
    def over(self, test: pytest.Item) -> Iterator[None]:
        """Watches over a test, or over what is set up for it."""
        self._test = test
        try:
            yield
        finally:
            self._test = None

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "subprocess.Popen" or self._test is None:
            return
        command = [os.fsdecode(part) for part in arguments[1]]
        mark = needed_by(command)
        if self._test.get_closest_marker(mark) is None:
            raise PermissionError(
                f"{self._test.nodeid} runs {command}: mark it with pytest.mark.{mark}"
            )
