"""Counters, gauges and histograms by family and label values, with their exemplars, and which of
them changed. The state persists them."""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from msgspec import Struct

from exporter.metrics.catalogue import Family, WorkflowKey
from exporter.metrics.instance_samples import Sample

LabelValues = tuple[str, ...]
SeriesKey = tuple[Family, LabelValues]
"""Identifies a series, or all series of a histogram."""
_MAX_EXEMPLAR_ID = 128 - len("instance_id")
"""OpenMetrics allows 128 characters for all label names and values of an exemplar."""


class Histogram(Struct, array_like=True):
    """Counts by inclusive upper bound; the last count is for +Inf. The state holds it as it is.

    prometheus_client's histogram can't be restored from persisted counts.
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
    """The instance of the latest observation in a bucket or, of a counter, of the latest count."""

    instance_id: str
    value: float
    """The observed value; 1 for a count."""
    at: float
    """Unix time of the observation."""


class SeriesData(Struct, array_like=True):
    """A series, or all series of a histogram, with what OpenMetrics adds. The state holds it
    without exemplars."""

    value: float | Histogram
    created: float | None = None
    """Unix time at which a counter or histogram began; None: it is a gauge."""
    exemplars: Mapping[int, Exemplar] = MappingProxyType({})
    """Exemplars by bucket; that of a counter has bucket 0."""

    def copy(self) -> "SeriesData":
        value = self.value.copy() if isinstance(self.value, Histogram) else self.value
        return SeriesData(value, self.created, self.exemplars)


@dataclass
class Changes:
    """Everything that changed, with its new value.

    The store produces it, the state persists it, and the exposition shows it.
    """

    series: dict[SeriesKey, SeriesData | None] = field(default_factory=dict)
    """Counters, gauges and histograms; None: the series was removed."""
    instances: dict[WorkflowKey, dict[str, Iterable[Sample] | None]] = field(default_factory=dict)
    """By workflow, samples of each instance by id; None: the instance has no series any more."""

    def update(self, newer: "Changes") -> None:
        """Adds later changes."""
        self.series.update(newer.series)
        for workflow, instances in newer.instances.items():
            self.instances.setdefault(workflow, {}).update(instances)


class Series:
    """Values by family and label values, and which of them changed.

    Args:
        bounds: Upper bounds for each histogram family; those of a family may be replaced while it
            has no series.
        clock: Unix time.
    """

    def __init__(
        self, bounds: Mapping[Family, Sequence[float]], clock: Callable[[], float] = time.time
    ) -> None:
        self.bounds, self._clock = bounds, clock
        self._series: dict[LabelValues, dict[SeriesKey, SeriesData]] = {}
        """Those of each owner: a workflow (account and name), an account, or the process."""
        self._changed: set[SeriesKey] = set()

    def set(self, family: Family, labels: LabelValues, value: float | None) -> None:
        """Sets a gauge; None removes it."""
        data = self._get(family, labels)
        if (data and data.value) == value:
            return
        self._put(family, labels, None if value is None else SeriesData(float(value)))

    def count(
        self, family: Family, labels: LabelValues, value: float = 1, instance_id: str | None = None
    ) -> None:
        """Adds a value to a counter, or counts it in a histogram; `instance_id` becomes the
        exemplar if the family has some."""
        data, bucket = self._begun(family, labels), 0
        if isinstance(data.value, Histogram):
            bucket = data.value.observe(value)
        else:
            data.value += value
        self._changed.add((family, labels))
        if family.exemplars and instance_id and len(instance_id) <= _MAX_EXEMPLAR_ID:
            data.exemplars = {**data.exemplars, bucket: Exemplar(instance_id, value, self._clock())}

    def zero(self, family: Family, every: Iterable[LabelValues]) -> None:
        """Creates the series of these label values that don't exist yet, at 0."""
        for labels in every:
            self._begun(family, labels)

    def _begun(self, family: Family, labels: LabelValues) -> SeriesData:
        """The data of a series; one that doesn't exist begins at 0."""
        data = self._get(family, labels)
        if data is None:
            created = self._clock() if family.kind in ("counter", "histogram") else None
            data = SeriesData(self._zero(family), created)
            self._put(family, labels, data)
        return data

    def _get(self, family: Family, labels: LabelValues) -> SeriesData | None:
        return self._series.get(labels[: family.owner_labels], {}).get((family, labels))

    def _put(self, family: Family, labels: LabelValues, data: SeriesData | None) -> None:
        """Replaces a series; None removes it."""
        series = self._series.setdefault(labels[: family.owner_labels], {})
        if data is None:
            del series[family, labels]
        else:
            series[family, labels] = data
        self._changed.add((family, labels))

    def _zero(self, family: Family) -> float | Histogram:
        return Histogram.empty(self.bounds[family]) if family.kind == "histogram" else 0.0

    def drop(self, *owner: str) -> None:
        """Removes all series of an account, or of a workflow (account and name)."""
        for dropped in [other for other in self._series if other[: len(owner)] == owner]:
            self._changed.update(self._series.pop(dropped))

    def restore(self, family: Family, labels: LabelValues, data: SeriesData) -> bool:
        """Restores a series; a histogram whose buckets have changed begins at zero instead. Returns
        whether it was restored."""
        buckets = [getattr(value, "bounds", None) for value in (data.value, self._zero(family))]
        if buckets[0] != buckets[1]:
            self._begun(family, labels)
            return False
        self._put(family, labels, data)
        return True

    def touch(self) -> None:
        """Has the next `take` return every series."""
        self._changed.update(*self._series.values())

    def take(self) -> Changes:
        """Returns the changes since the last call; histograms are copies."""
        changes = Changes()
        for key in self._changed:
            data = self._get(*key)
            changes.series[key] = None if data is None else data.copy()
        self._changed.clear()
        return changes
