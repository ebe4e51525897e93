"""A test starts no program that its marks don't name. The guard here is the one of all tests."""

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest


@pytest.mark.parametrize(
    ("command", "mark"),
    [
        ([sys.executable, "-c", ""], "process"),
        (["/usr/bin/buildah", "version"], "container"),
        (["prometheus", "--version"], "prometheus"),
        (["prometheus-alertmanager", "--version"], "prometheus"),
        (["/x/workerd", "serve"], "engine"),
        (["setpriv", "--pdeathsig=TERM", "/x/workerd", "serve"], "engine"),
        (["/x/node", "/x/playwright/cli.js", "run-driver"], "browser"),
        (["/x/node", "validate.mjs"], "process"),
        (["/x/node"], "process"),
    ],
)
def test_without_its_mark_it_fails_before_the_program_starts(command: list[str], mark: str) -> None:
    with pytest.raises(PermissionError, match=rf"mark it with pytest\.mark\.{mark}$"):
        subprocess.run(command, check=True)


async def test_nor_does_asyncio_start_one() -> None:
    with pytest.raises(PermissionError, match="mark it"):
        await asyncio.create_subprocess_exec(sys.executable, "-c", "")


def test_nor_does_another_thread() -> None:
    with ThreadPoolExecutor() as pool, pytest.raises(PermissionError, match="mark it"):
        pool.submit(subprocess.run, [sys.executable, "-c", ""], check=True).result()


@pytest.fixture
def started() -> int:
    return subprocess.run([sys.executable, "-c", ""], check=False).returncode


@pytest.mark.process
def test_with_its_mark_it_may(started: int) -> None:
    assert started == 0


@pytest.mark.process
def test_but_no_program_that_has_a_mark_of_its_own() -> None:
    with pytest.raises(PermissionError, match=r"mark it with pytest\.mark\.container$"):
        subprocess.run(["buildah"], check=True)


@pytest.mark.engine
def test_a_mark_of_a_program_says_that_there_is_a_process(request: pytest.FixtureRequest) -> None:
    assert request.node.get_closest_marker("process")
