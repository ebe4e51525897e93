"""Counters, gauges and histograms by family and label values; plain data that state can keep."""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from msgspec import Struct

from exporter.metrics.catalogue import WORKFLOW_LABELS, Family
from exporter.metrics.instance_samples import Sample
from exporter.watch.sink import WorkflowKey

LabelValues = tuple[str, ...]
SeriesKey = tuple[Family, LabelValues]
"""A series, or a histogram's series."""


# OpenMetrics allows an exemplar 128 characters in names and values of labels together.
_LONGEST_IN_EXEMPLAR = 128 - len("instance_id")


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

    def observe(self, value: float) -> int:
        """Counts a value; the index of its bucket."""
        bucket = bisect_left(self.bounds, value)
        self.counts[bucket] += 1
        self.sum += value
        return bucket

    def copy(self) -> "Histogram":
        return Histogram(self.bounds, self.counts.copy(), self.sum)


class Exemplar(NamedTuple):
    """The instance behind the newest observation of a bucket, or the newest count.

    Attributes:
        instance_id: of the instance.
        value: what was observed; 1 for a count.
        at: when it was counted, in Unix time.
    """

    instance_id: str
    value: float
    at: float


@dataclass
class Changes:
    """What changed, each thing as it is now, and nothing of the rest.

    The seam between what is counted, what is kept and what scrapes see.

    Attributes:
        values: of counters, gauges and histograms; None: the series is gone.
        instances: samples of each instance, by workflow and id; None: it is gone.
        exemplars: all that a series among `values` has, by bucket; a counter's is bucket 0.
        created: when a counter or histogram among `values` began, in Unix time.
    """

    values: dict[SeriesKey, float | Histogram | None] = field(default_factory=dict)
    instances: dict[tuple[WorkflowKey, str], Iterable[Sample] | None] = field(default_factory=dict)
    exemplars: dict[SeriesKey, dict[int, Exemplar]] = field(default_factory=dict)
    created: dict[SeriesKey, float] = field(default_factory=dict)

    def update(self, newer: "Changes") -> None:
        """Adds what changed later on."""
        self.values.update(newer.values)
        self.instances.update(newer.instances)
        self.exemplars.update(newer.exemplars)
        self.created.update(newer.created)


class Series:
    """Values by family and label values, and which of them changed.

    Args:
        bounds: Upper bounds for each histogram family.
        clock: Unix time.
    """

    def __init__(
        self,
        bounds: Mapping[Family, Sequence[float]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._bounds, self._clock = bounds, clock
        self.values: dict[Family, dict[LabelValues, float]] = {}
        self.histograms: dict[Family, dict[LabelValues, Histogram]] = {}
        self._exemplars: dict[SeriesKey, dict[int, Exemplar]] = {}
        self._created: dict[SeriesKey, float] = {}
        self._changed: set[SeriesKey] = set()

    def set(self, family: Family, labels: LabelValues, value: float) -> None:
        series = self.values.setdefault(family, {})
        if series.get(labels) != value:
            series[labels] = value
            self._changed.add((family, labels))

    def add(
        self, family: Family, labels: LabelValues, instance_id: str | None = None, *, count: int = 1
    ) -> None:
        """`count` more; `instance_id` becomes the exemplar, where it is short enough for one."""
        self.zero(family, [labels])
        self.values[family][labels] += count
        self._touch((family, labels), 0, instance_id, 1.0)

    def observe(
        self, family: Family, labels: LabelValues, value: float, instance_id: str | None = None
    ) -> None:
        """Counts `value`; `instance_id` becomes its bucket's exemplar."""
        self.zero(family, [labels])
        bucket = self.histograms[family][labels].observe(value)
        self._touch((family, labels), bucket, instance_id, value)

    def _touch(self, key: SeriesKey, bucket: int, instance_id: str | None, value: float) -> None:
        self._changed.add(key)
        if instance_id is not None and len(instance_id) <= _LONGEST_IN_EXEMPLAR:
            exemplars = self._exemplars.setdefault(key, {})
            exemplars[bucket] = Exemplar(instance_id, value, self._clock())

    def zero(self, family: Family, every: Iterable[LabelValues]) -> None:
        """Shows series at 0 before anything happened, so that alerts never meet "no data"."""
        series = self._of(family)
        for labels in every:
            if labels not in series:
                empty = family.kind == "histogram"
                series[labels] = Histogram.empty(self._bounds[family]) if empty else 0.0
                self._changed.add((family, labels))
                if family.kind in ("counter", "histogram"):
                    self._created[family, labels] = self._clock()

    def _of(self, family: Family) -> dict[LabelValues, Any]:
        stores: dict[Family, dict[LabelValues, Any]] = (
            self.histograms if family.kind == "histogram" else self.values
        )
        return stores.setdefault(family, {})

    def configure(self, bounds: Mapping[Family, Sequence[float]]) -> list[Family]:
        """Takes other buckets; histograms whose buckets change start anew, and are returned."""
        anew = [f for f in self.histograms if list(bounds[f]) != list(self._bounds[f])]
        self._bounds = bounds
        for family in anew:
            every = list(self.histograms[family])
            for labels in every:
                self._remove(family, labels)
            self.zero(family, every)
        return anew

    def drop(self, *owner: str) -> None:
        """Takes away all series of an account, or of a workflow: account and name."""
        n = len(owner)
        for family in (*self.values, *self.histograms):
            if family.labels[:n] == WORKFLOW_LABELS[:n]:
                for labels in [labels for labels in self._of(family) if labels[:n] == owner]:
                    self._remove(family, labels)

    def _remove(self, family: Family, labels: LabelValues) -> None:
        del self._of(family)[labels]
        self._created.pop((family, labels), None)
        self._exemplars.pop((family, labels), None)
        self._changed.add((family, labels))

    def restore(
        self, family: Family, labels: LabelValues, value: float | Histogram, created: float | None
    ) -> bool:
        """Puts a value in its place; whether its kind and buckets are those of today."""
        if isinstance(value, Histogram):
            bounds = Histogram.empty(self._bounds.get(family, ())).bounds
            if value.bounds != bounds:
                return False
        elif family.kind == "histogram":
            return False
        self._of(family)[labels] = value
        if created is not None:
            self._created[family, labels] = created
        self._changed.add((family, labels))
        return True

    def touch(self) -> None:
        """Takes everything for changed."""
        self._changed.update(self.every())

    def every(self) -> Iterator[SeriesKey]:
        """All series."""
        for family in (*self.values, *self.histograms):
            for labels in self._of(family):
                yield family, labels

    def take(self) -> Changes:
        """What changed since this was last asked; histograms are copies."""
        changes = Changes()
        for key in self._changed:
            family, labels = key
            value = self._of(family).get(labels)
            changes.values[key] = value.copy() if isinstance(value, Histogram) else value
            if key in self._created:
                changes.created[key] = self._created[key]
            if key in self._exemplars:
                changes.exemplars[key] = self._exemplars[key].copy()
        self._changed.clear()
        return changes
