"""The store in Prometheus' text format or OpenMetrics 1.0, whichever the scraper asks for."""

import zlib
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Metric, PlatformCollector, ProcessCollector
from prometheus_client.exposition import generate_latest as text
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.utils import floatToGoString

from exporter.metrics.catalogue import FAMILIES, Family
from exporter.metrics.instances import Sample
from exporter.metrics.series import Changes, Histogram, Labels
from exporter.metrics.store import Store
from exporter.watch.sink import WorkflowKey

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_SUFFIX = {"counter": "_total", "info": "_info"}
# Fast: most of the gain is in the first level, and a scrape is compressed every few seconds.
_GZIP_LEVEL, _GZIP_WINDOW = 1, 31


class Exposition:
    """What scrapes see: the store, and the figures of this process (CPU, memory, open files).

    Attributes:
        follows: Whether a scrape sees the store as it is then; otherwise it sees what was shown.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.follows = True
        self._values: dict[Family, dict[Labels, float | Histogram]] = {}
        self._instances: dict[tuple[WorkflowKey, str], list[Sample]] = {}
        self._process = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._process)
        PlatformCollector(registry=self._process)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The body, and its content type, for a request's Accept header."""
        if self.follows:
            self.show(self._store.take())
        if prefers_openmetrics(accept):
            return openmetrics(self), OPENMETRICS  # type: ignore[no-untyped-call]
        return text(self), TEXT

    def show(self, changes: Changes) -> None:
        """Makes what changed what scrapes see, as a whole."""
        for (family, labels), value in changes.values.items():
            if value is None:
                self._values.get(family, {}).pop(labels, None)
            else:
                self._values.setdefault(family, {})[labels] = value
        for instance, samples in changes.instances.items():
            if samples is None:
                self._instances.pop(instance, None)
            else:
                self._instances[instance] = samples

    def collect(self) -> Iterator[Metric]:
        """All families, as prometheus_client's encoders want them."""
        shown: dict[Family, list[tuple[Labels, float | Histogram]]] = {}
        for family, series in self._values.items():
            shown[family] = list(series.items())
        for (workflow, instance_id), samples in self._instances.items():
            for family, labels, value in samples:
                shown.setdefault(family, []).append(((*workflow, instance_id, *labels), value))
        for family, labels, gauge in self._store.now():
            if gauge is not None:
                shown.setdefault(family, []).append((labels, gauge))
        for family in FAMILIES:
            metric = Metric(
                family.name.removesuffix(_SUFFIX.get(family.kind, "")), family.help, family.kind
            )
            for values, now in shown.get(family, ()):
                named = dict(zip(family.labels, values, strict=True))
                if isinstance(now, Histogram):
                    _add_histogram(metric, family, named, now)
                else:
                    metric.add_sample(family.name, named, float(now))
            yield metric
        yield from self._process.collect()


def prefers_openmetrics(accept: str) -> bool:
    """Whether an Accept header puts OpenMetrics before everything that text would do for."""
    ranks = {True: 0.0, False: 0.0}
    for item in accept.split(","):
        media, *parameters = (part.strip().lower() for part in item.split(";"))
        quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        wanted = media == "application/openmetrics-text"
        try:
            ranks[wanted] = max(ranks[wanted], float(quality))
        except ValueError:
            continue
    return ranks[True] > 0 and ranks[True] >= ranks[False]


def _add_histogram(
    metric: Metric, family: Family, labels: dict[str, str], histogram: Histogram
) -> None:
    for bound, count in histogram.cumulative():
        metric.add_sample(f"{family.name}_bucket", {**labels, "le": _bound(bound)}, count)
    metric.add_sample(f"{family.name}_count", labels, sum(histogram.counts))
    metric.add_sample(f"{family.name}_sum", labels, histogram.sum)


def _bound(bound: float) -> str:
    return str(floatToGoString(bound))  # type: ignore[no-untyped-call]


def compress(body: bytes) -> bytes:
    """`body` as one gzip member."""
    packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)
    return packer.compress(body) + packer.flush()
