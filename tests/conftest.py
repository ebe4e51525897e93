"""What tests of several rooms share."""

from collections.abc import Iterator

import pytest

from upstreams.local_engine import LocalEngine


@pytest.fixture(scope="session")
def engine() -> Iterator[LocalEngine]:
    """Cloudflare's real engine, one for the whole run: give instances ids of your test's own."""
    with LocalEngine.start() as running:
        yield running
