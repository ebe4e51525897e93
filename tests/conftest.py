"""What tests of several rooms share."""

import os
from collections.abc import Iterator

import hypothesis
import pytest

from demo import LocalEngine

# How long an example takes is the machine's affair.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors: half of the time tests wait for others."""
    return len(os.sched_getaffinity(0)) + 1


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
