"""The reference of metrics in the docs; that it is up to date is in `test_generated.py`."""

from exporter.metrics.catalogue import FAMILIES
from tools.metrics_reference import tables


def test_every_metric_is_in_it_once() -> None:
    assert sum(line.startswith("| `") for line in tables().splitlines()) == len(FAMILIES)
