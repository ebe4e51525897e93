"""The store in Prometheus' text format or OpenMetrics 1.0, whichever the scraper asks for."""

import zlib
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Metric, PlatformCollector, ProcessCollector
from prometheus_client.exposition import generate_latest as text
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.utils import floatToGoString

from exporter.metrics.catalogue import FAMILIES, Family
from exporter.metrics.series import Histogram, Labels
from exporter.metrics.store import Store

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_SUFFIX = {"counter": "_total", "info": "_info"}
# Fast: most of the gain is in the first level, and a scrape is compressed every few seconds.
_GZIP_LEVEL, _GZIP_WINDOW = 1, 31


class Exposition:
    """Renders the store together with the figures of this process (CPU, memory, open files)."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._process = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._process)
        PlatformCollector(registry=self._process)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The body, and its content type, for a request's Accept header."""
        if prefers_openmetrics(accept):
            return openmetrics(self), OPENMETRICS  # type: ignore[no-untyped-call]
        return text(self), TEXT

    def collect(self) -> Iterator[Metric]:
        """All families, as prometheus_client's encoders want them."""
        values, histograms = self._store.samples(), self._store.series.histograms
        for family in FAMILIES:
            metric = Metric(
                family.name.removesuffix(_SUFFIX.get(family.kind, "")), family.help, family.kind
            )
            if family.kind == "histogram":
                _add_histograms(metric, family, histograms.get(family, {}).items())
            else:
                for labels, value in values.get(family, ()):
                    metric.add_sample(
                        family.name, dict(zip(family.labels, labels, strict=True)), float(value)
                    )
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


def _add_histograms(
    metric: Metric, family: Family, series: Iterable[tuple[Labels, Histogram]]
) -> None:
    for values, histogram in series:
        labels = dict(zip(family.labels, values, strict=True))
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
