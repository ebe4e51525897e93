"""Counters, gauges and histograms by family and label values, with their exemplars, and which of
them changed. The state persists them."""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from msgspec import Struct

from exporter.metrics.catalogue import WORKFLOW_LABELS, Family
from exporter.metrics.instance_samples import Sample
from exporter.watch.sink import WorkflowKey

LabelValues = tuple[str, ...]
SeriesKey = tuple[Family, LabelValues]
"""Identifies a series, or all series of a histogram."""


# OpenMetrics allows 128 characters for all label names and values of an exemplar.
_MAX_EXEMPLAR_ID = 128 - len("instance_id")


class Histogram(Struct):
    """Counts by inclusive upper bound; the last one is for +Inf.

    prometheus_client's histogram can't be persisted and restored.
    """

    bounds: tuple[float, ...]
    counts: list[int]
    sum: float = 0.0

    @classmethod
    def empty(cls, bounds: Sequence[float]) -> "Histogram":
        return cls(tuple(float(bound) for bound in bounds), [0] * (len(bounds) + 1))

    def observe(self, value: float) -> int:
        """Counts a value; returns the index of its bucket."""
        bucket = bisect_left(self.bounds, value)
        self.counts[bucket] += 1
        self.sum += value
        return bucket

    def copy(self) -> "Histogram":
        return Histogram(self.bounds, self.counts.copy(), self.sum)


class Exemplar(NamedTuple):
    """The instance behind the latest observation of a bucket, or the latest count.

    Attributes:
        instance_id: The id of the instance.
        value: The observed value; 1 for a count.
        at: Unix time of the observation.
    """

    instance_id: str
    value: float
    at: float


@dataclass
class Changes:
    """Everything that changed, with its new value.

    The store produces it, the state persists it, and the exposition shows it.

    Attributes:
        values: Values of counters, gauges and histograms; None: the series was removed.
        instances: Samples of each instance, by workflow and id; None: the instance was removed.
        exemplars: All exemplars of each series in `values`, by bucket; a counter's is bucket 0.
        created: Unix time at which each counter and histogram in `values` began.
    """

    values: dict[SeriesKey, float | Histogram | None] = field(default_factory=dict)
    instances: dict[tuple[WorkflowKey, str], Iterable[Sample] | None] = field(default_factory=dict)
    exemplars: dict[SeriesKey, dict[int, Exemplar]] = field(default_factory=dict)
    created: dict[SeriesKey, float] = field(default_factory=dict)

    def update(self, newer: "Changes") -> None:
        """Adds later changes."""
        self.values.update(newer.values)
        self.instances.update(newer.instances)
        self.exemplars.update(newer.exemplars)
        self.created.update(newer.created)

    def slices(self, size: int) -> Iterator["Changes"]:
        """All of it, in parts of at most `size` series and `size` instances."""
        values, shown = iter(self.values.items()), iter(self.instances.items())
        while True:
            part = Changes(dict(islice(values, size)), dict(islice(shown, size)))
            if not (part.values or part.instances):
                return
            part.exemplars = {k: self.exemplars[k] for k in part.values if k in self.exemplars}
            part.created = {k: self.created[k] for k in part.values if k in self.created}
            yield part


class Series:
    """Values by family and label values, and which of them changed.

    Args:
        bounds: Upper bounds for each histogram family; those of a family may be replaced while it
            has no series.
        clock: Unix time.
    """

    def __init__(
        self,
        bounds: Mapping[Family, Sequence[float]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.bounds, self._clock = bounds, clock
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
        """Adds `count`; `instance_id` becomes the exemplar if the family has some."""
        self.zero(family, [labels])
        self.values[family][labels] += count
        self._touch((family, labels), 0, instance_id, 1.0)

    def observe(
        self, family: Family, labels: LabelValues, value: float, instance_id: str | None = None
    ) -> None:
        """Counts `value`; `instance_id` becomes its bucket's exemplar if the family has some."""
        self.zero(family, [labels])
        bucket = self.histograms[family][labels].observe(value)
        self._touch((family, labels), bucket, instance_id, value)

    def _touch(self, key: SeriesKey, bucket: int, instance_id: str | None, value: float) -> None:
        self._changed.add(key)
        if key[0].exemplars and instance_id and len(instance_id) <= _MAX_EXEMPLAR_ID:
            exemplars = self._exemplars.setdefault(key, {})
            exemplars[bucket] = Exemplar(instance_id, value, self._clock())

    def zero(self, family: Family, every: Iterable[LabelValues]) -> None:
        """Creates those of the series that don't exist, at 0."""
        series = self._of(family)
        for labels in every:
            if labels not in series:
                empty = family.kind == "histogram"
                series[labels] = Histogram.empty(self.bounds[family]) if empty else 0.0
                self._changed.add((family, labels))
                if family.kind in ("counter", "histogram"):
                    self._created[family, labels] = self._clock()

    def _of(self, family: Family) -> dict[LabelValues, Any]:
        stores: dict[Family, dict[LabelValues, Any]] = (
            self.histograms if family.kind == "histogram" else self.values
        )
        return stores.setdefault(family, {})

    def drop(self, *owner: str) -> None:
        """Removes all series of an account, or of a workflow (account and name)."""
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
        """Sets a restored value; returns False if its kind or buckets have changed since."""
        if isinstance(value, Histogram):
            bounds = Histogram.empty(self.bounds.get(family, ())).bounds
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
        """Returns the changes since the last call; histograms are copies."""
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
