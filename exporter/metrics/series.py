"""Counters, gauges and histograms by family and label values; plain data that state can keep."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from exporter.metrics.catalogue import WORKFLOW_LABELS, Family

Labels = tuple[str, ...]


class Histogram(Struct):
    """Counts by upper bound (inclusive, as Prometheus has it), the last one for +Inf.

    prometheus_client's own can be observed, but neither kept nor restored.
    """

    bounds: tuple[float, ...]
    counts: list[int]
    sum: float = 0.0

    @classmethod
    def empty(cls, bounds: Sequence[float]) -> "Histogram":
        return cls(tuple(float(bound) for bound in bounds), [0] * (len(bounds) + 1))

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """Upper bounds, +Inf last, each with the count of what is at or below it."""
        total = 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            total += count
            yield bound, total


class Series:
    """Values by family and label values.

    Args:
        bounds: Upper bounds for each histogram family.
    """

    def __init__(self, bounds: Mapping[Family, Sequence[float]]) -> None:
        self._bounds = bounds
        self.values: dict[Family, dict[Labels, float]] = {}
        self.histograms: dict[Family, dict[Labels, Histogram]] = {}

    def set(self, family: Family, labels: Labels, value: float) -> None:
        self.values.setdefault(family, {})[labels] = value

    def add(self, family: Family, labels: Labels, amount: float = 1.0) -> None:
        series = self.values.setdefault(family, {})
        series[labels] = series.get(labels, 0.0) + amount

    def observe(self, family: Family, labels: Labels, value: float) -> None:
        self.histogram(family, labels).observe(value)

    def histogram(self, family: Family, labels: Labels) -> Histogram:
        """The histogram of these labels, an empty one at first."""
        series = self.histograms.setdefault(family, {})
        if labels not in series:
            series[labels] = Histogram.empty(self._bounds[family])
        return series[labels]

    def zero(self, family: Family, every: Iterable[Labels]) -> None:
        """Shows series at 0 before anything happened, so that alerts never meet "no data"."""
        for labels in every:
            if family.kind == "histogram":
                self.histogram(family, labels)
            else:
                self.values.setdefault(family, {}).setdefault(labels, 0.0)

    def drop(self, workflow: Labels) -> None:
        """Takes away all series of a workflow."""
        stores: tuple[dict[Family, dict[Labels, Any]], ...] = (self.values, self.histograms)
        for store in stores:
            for family, series in store.items():
                if family.labels[:2] == WORKFLOW_LABELS:
                    for labels in [labels for labels in series if labels[:2] == workflow]:
                        del series[labels]
