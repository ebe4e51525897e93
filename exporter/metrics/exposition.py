"""The exposition: the body of a scrape, in Prometheus' text format or OpenMetrics 1.0."""

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, Metric, PlatformCollector, ProcessCollector
from prometheus_client.exposition import generate_latest as text
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics

from exporter.metrics import text_format
from exporter.metrics.accept_headers import prefers_openmetrics
from exporter.metrics.catalogue import FAMILIES, Family, WorkflowKey
from exporter.metrics.gzip_parts import Part, pack, unpack
from exporter.metrics.instance_samples import Sample
from exporter.metrics.render_cache import RenderCache, encoded
from exporter.metrics.series import Changes, LabelValues, SeriesData
from exporter.metrics.store import Store

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_SUFFIXES = ("", "_total", "_created", "_info", "_bucket", "_count", "_sum")
"""What the names of a family's samples may add to its own. Whichever they add, the samples of two
families never have the same name."""
_EOF = b"# EOF\n"


class _Format(NamedTuple):
    """A format of the exposition."""

    content_type: str
    column: int
    """Its index in the result of `text_format.of_series`."""
    encode: Callable[[Any], bytes]
    """prometheus_client's encoder, for what isn't cached. It takes anything that has `collect`, and
    ends with what ends an exposition."""


_TEXT = _Format(TEXT, 0, text)
_OPENMETRICS = _Format(OPENMETRICS, 1, openmetrics)


class Exposition:
    """What scrapes see: the changes that were shown, and metrics of this process (CPU, memory, open
    files).

    Args:
        store: Where the changes come from.

    Attributes:
        counts_shown: Returns whether scrapes may see what is counted of workflows; not while
            another replica may show it.
        gauges: Called at each scrape for the gauges whose values are those of that moment; None:
            the gauge has no series now.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.counts_shown: Callable[[], bool] = lambda: True
        self.gauges: Callable[[], Iterable[tuple[Family, LabelValues, float | None]]] = tuple
        self._instances = RenderCache[WorkflowKey, str, Iterable[Sample]](
            len(text_format.INSTANCE_FAMILIES), text_format.instance_labels, text_format.of_instance
        )
        self._series = {
            family: RenderCache[Family, LabelValues, SeriesData](
                2, text_format.series_labels, self._of_series
            )
            for family in FAMILIES
            if family not in text_format.INSTANCE_FAMILIES
        }
        self._process = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._process)
        PlatformCollector(registry=self._process)

    def _of_series(self, family: Family, labels: LabelValues, data: SeriesData) -> tuple[str, str]:
        return text_format.of_series(family, labels, data, created=self._store.settings.created)

    def showing(self, changes: Changes) -> Iterator[None]:
        """Makes scrapes see the changes, all at once. Yields every few milliseconds, so that others
        can run. It must end before another call begins."""
        series: dict[Family, dict[LabelValues, SeriesData | None]] = {}
        for (family, labels), data in changes.series.items():
            series.setdefault(family, {})[labels] = data
        prepared = []
        for family, values in series.items():
            prepared.append((yield from self._series[family].prepare(family, values)))
        for workflow, instances in changes.instances.items():
            prepared.append((yield from self._instances.prepare(workflow, instances)))
        for show in prepared:
            show()

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The body of a scrape, and its content type, for a request's Accept header."""
        parts, content_type = self.scrape(accept)
        return unpack(parts), content_type

    def scrape(self, accept: str = "", names: Collection[str] = ()) -> tuple[list[Part], str]:
        """The exposition of this moment in compressed parts, and its content type.

        Args:
            accept: A request's Accept header.
            names: Names of families or samples to show; empty: all.
        """
        format_ = _OPENMETRICS if prefers_openmetrics(accept) else _TEXT
        counts_shown = self.counts_shown()
        now: dict[Family, str] = {}
        for family, labels, value in self.gauges():
            if value is not None:
                line, _ = self._of_series(family, labels, SeriesData(value))
                now[family] = now.get(family, "") + line
        parts = list[Part]()
        for family in FAMILIES:
            if names and _names(_metric(family)).isdisjoint(names):
                continue
            parts.append(_head(format_, family))
            if family in now:
                parts.append(pack(encoded(now[family])))
            elif family in text_format.INSTANCE_FAMILIES:
                column = text_format.INSTANCE_FAMILIES.index(family)
                parts.append(self._instances.column(column))
            elif counts_shown or not family.counts_of_workflow:
                parts.append(self._series[family].column(format_.column))
        process = [m for m in self._process.collect() if not names or _names(m) & set(names)]
        parts.append(pack(_encode(format_, process)))
        return parts, format_.content_type


@cache
def _head(format_: _Format, family: Family) -> Part:
    """The lines before the samples of a family."""
    return pack(_encode(format_, [_metric(family)]).removesuffix(_EOF))


def _metric(family: Family) -> Metric:
    """A family as prometheus_client's object, without samples."""
    name = family.name.removesuffix("_total").removesuffix("_info")
    return Metric(name, family.help, family.kind)


def _encode(format_: _Format, metrics: Iterable[Metric]) -> bytes:
    return format_.encode(SimpleNamespace(collect=lambda: metrics))


def _names(metric: Metric) -> set[str]:
    """The names that select a family: its own and those of its samples, in any format."""
    return {metric.name + suffix for suffix in _SUFFIXES}
