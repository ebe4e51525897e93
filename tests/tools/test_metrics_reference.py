"""The reference of metrics in the docs."""

from pathlib import Path

import pytest

from exporter.metrics.catalogue import FAMILIES
from tools.metrics_reference import FILES, tables, updated


@pytest.mark.parametrize("path", FILES, ids=str)
def test_it_is_up_to_date(path: Path) -> None:
    """If not: make docs."""
    text = path.read_text(encoding="utf-8")
    assert tables() in text
    assert updated(text) == text


def test_every_metric_is_in_it_once() -> None:
    assert sum(line.startswith("| `") for line in tables().splitlines()) == len(FAMILIES)
