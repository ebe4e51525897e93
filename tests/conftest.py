"""What tests of several rooms share."""

from collections.abc import Iterator

import hypothesis
import pytest

from upstreams.local_engine import LocalEngine

# How long an example takes is the machine's affair.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


@pytest.fixture(scope="session")
def engine() -> Iterator[LocalEngine]:
    """Cloudflare's real engine, one for the whole run: give instances ids of your test's own."""
    with LocalEngine.start() as running:
        yield running
