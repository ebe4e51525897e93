"""Replicas that share a budget show what is as recent as what one with the same budget shows."""

import pytest

from benchmarks.replicas import ages
from tests.postgres import PostgresServer

pytestmark = [pytest.mark.postgres, pytest.mark.slow]


def test_three_replicas_are_as_fresh_as_one_and_together_keep_to_the_limit(
    postgres: PostgresServer,
) -> None:
    alone, three = ages(postgres, 2000, 6, minutes=15)
    assert three.p50 <= 1.15 * alone.p50
    assert three.p99 <= 1.15 * alone.p99
    assert three.refused == 0
