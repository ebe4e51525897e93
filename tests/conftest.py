"""What tests in several folders share."""

import gc
import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from math import ceil
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadFileScheduling

from demo import LocalEngine
from tests.needs import PROCESSES, Guard, no_authorities, no_proxy
from tests.postgres import PostgresServer, postgres_server

# Helm's library would spend a quarter of its time collecting Go's garbage.
os.environ.setdefault("GOGC", "400")

# Whatever proxy the machine needs for others: what tests start is reached without one.
os.environ["no_proxy"] = f"{os.environ.get('no_proxy', '')},127.0.0.1,::1,localhost"

# How long an example takes is the machine's affair.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=1000)
hypothesis.settings.load_profile("patient")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """`auto` is three for each processor: most of the time tests wait for others. `logical` is half
    of that, for the fast tests."""
    processors = len(os.sched_getaffinity(0))
    return ceil(1.5 * processors) if config.option.numprocesses == "logical" else 3 * processors


class Scheduling(LoadFileScheduling):  # type: ignore[misc]
    """A worker takes a file at a time, as its tests share what they set up; parts of one test,
    which share nothing, go to any worker."""

    def _split_scope(self, nodeid: str) -> str:
        scope: str = nodeid if "[part " in nodeid else super()._split_scope(nodeid)
        return scope


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    return Scheduling(config, log)


def pytest_itemcollected(item: pytest.Item) -> None:
    if PROCESSES & {mark.name for mark in item.iter_markers()}:
        item.add_marker("process")


def seconds(item: pytest.Item) -> float:
    """What a test takes, roughly."""
    slow = item.get_closest_marker("slow")
    if slow is not None:
        return float(*slow.args or [1])
    return 0.5 if "process" in item.keywords else 0.02


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take longest begin first, so that no worker is left alone with one at the end;
    those that take up to twice as long as others are in any order among them."""
    took = defaultdict[Path, float](float)
    for item in items:
        took[item.path] += seconds(item)
    items.sort(key=lambda item: -int(took[item.path]).bit_length())


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is collected stays: the garbage collector needn't go through it, now or later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True)
def network(request: pytest.FixtureRequest) -> Iterator[None]:
    """Neither authorities nor a proxy where all is in this process; a program may need them to
    install packages."""
    with ExitStack() as without:
        if "process" not in request.keywords:
            without.enter_context(no_authorities())
            without.enter_context(no_proxy())
        yield


_guard = Guard()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    with _guard.over(item):
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    with _guard.over(item):
        yield


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Shows what tests measured (`record_property`)."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{name}: {value}")


@pytest.fixture(scope="session")
def engine() -> Iterator[LocalEngine]:
    """Cloudflare's real engine, one for the whole run: give instances ids of your test's own."""
    with LocalEngine.start() as running:
        yield running


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """PostgreSQL's server, one for each worker: make a database of your test's own. A test that
    stops it starts it again."""
    with postgres_server() as running:
        yield running
