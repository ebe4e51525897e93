"""What a scrape sees, in Prometheus' text format or OpenMetrics 1.0, whichever it asks for."""

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Metric, PlatformCollector, ProcessCollector
from prometheus_client.exposition import generate_latest as text
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.registry import Collector

from exporter.metrics import text_format as lines
from exporter.metrics.catalogue import FAMILIES, Family
from exporter.metrics.render_cache import RenderCache, Segment, Text
from exporter.metrics.series import Changes, LabelValues
from exporter.metrics.store import Store
from exporter.watch.sink import WorkflowKey

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_SUFFIX = {"counter": "_total", "info": "_info"}
_EOF = b"# EOF\n"


class _Format(NamedTuple):
    """A format.

    Attributes:
        content_type: what it is called in HTTP.
        column: where series of this format are, among the two of `lines.of_series`.
        encode: prometheus_client's encoder, for what is not worth keeping rendered.
        end: what an exposition ends with.
    """

    content_type: str
    column: int
    encode: Callable[[Collector], bytes]
    end: bytes


_TEXT = _Format(TEXT, 0, text, b"")
_OPENMETRICS = _Format(OPENMETRICS, 1, openmetrics, _EOF)


class Exposition:
    """What scrapes see: the store, and the figures of this process (CPU, memory, open files).

    Args:
        store: What is shown.
        created: Whether OpenMetrics tells when counters and histograms began.

    Attributes:
        created: The same; what isn't shown anew stays as it is.
        follows: Whether a scrape sees the store as it is then; otherwise it sees what was shown.
    """

    def __init__(self, store: Store, *, created: bool = False) -> None:
        self._store, self.created = store, created
        self.follows = True
        self._instances = RenderCache[tuple[WorkflowKey, str]](len(lines.INSTANCE_FAMILIES))
        self._series = {
            family: RenderCache[LabelValues](2)
            for family in FAMILIES
            if family not in lines.INSTANCE_FAMILIES
        }
        self._heads = {
            (format_, family): Segment([Text(_encode(format_, [_metric(family)]))])
            for format_ in (_TEXT, _OPENMETRICS)
            for family in FAMILIES
        }
        self._process = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._process)
        PlatformCollector(registry=self._process)

    def show(self, changes: Changes) -> None:
        """Makes what changed what scrapes see, as a whole."""
        for key, value in changes.values.items():
            family, labels = key
            if value is None:
                self._series[family].remove(labels)
            else:
                exemplars = changes.exemplars.get(key, {})
                created = changes.created.get(key) if self.created else None
                texts = lines.of_series(family, labels, value, exemplars, created)
                self._series[family].put([(labels, texts)])
        for instance, samples in changes.instances.items():
            if samples is None:
                self._instances.remove(instance)
        self._instances.put(
            (instance, lines.of_instance(instance, samples))
            for instance, samples in changes.instances.items()
            if samples is not None
        )

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The whole body, and its content type, for a request's Accept header."""
        runs, content_type = self.scrape(accept)
        return b"".join(text for run in runs for text in run.plain), content_type

    def scrape(self, accept: str = "", names: Collection[str] = ()) -> tuple[list[Segment], str]:
        """What is seen now, and its content type.

        Args:
            accept: A request's Accept header.
            names: Of the families to show, or of samples in them; all if there are none.
        """
        if self.follows:
            self.show(self._store.take())
        format_ = _OPENMETRICS if prefers_openmetrics(accept) else _TEXT
        now: dict[Family, bytes] = {}
        for family, labels, value in self._store.now():
            if value is not None:
                line, _ = lines.of_series(family, labels, value, {}, None)
                now[family] = now.get(family, b"") + line
        runs = []
        for family in FAMILIES:
            if names and _names(_metric(family)).isdisjoint(names):
                continue
            runs.append(self._heads[format_, family])
            if family in now:
                runs.append(Segment([Text(now[family])]))
            elif family in lines.INSTANCE_FAMILIES:
                runs.append(self._instances.run(lines.INSTANCE_FAMILIES.index(family)))
            else:
                runs.append(self._series[family].run(format_.column))
        process = [m for m in self._process.collect() if not names or _names(m) & set(names)]
        runs.append(Segment([Text(_encode(format_, process) + format_.end)]))
        return runs, format_.content_type


def _metric(family: Family) -> Metric:
    """A family as prometheus_client has it, without samples."""
    name = family.name.removesuffix(_SUFFIX.get(family.kind, ""))
    return Metric(name, family.help, family.kind)


class _Metrics(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _encode(format_: _Format, metrics: Iterable[Metric]) -> bytes:
    return format_.encode(_Metrics(metrics)).removesuffix(_EOF)


def _names(metric: Metric) -> set[str]:
    """The names by which a family can be asked for: its own and its samples', in any format."""
    suffixes = {
        "counter": ("_total", "_created"),
        "info": ("_info",),
        "histogram": ("_bucket", "_count", "_sum", "_created"),
    }
    return {metric.name, *(metric.name + suffix for suffix in suffixes.get(metric.type, ()))}


def prefers_openmetrics(accept: str) -> bool:
    """Whether an Accept header ranks OpenMetrics at least as high as the text format.

    Only ranges that one of the two satisfies are compared, the closest for each (RFC 9110, section
    12.5.1). Text is sent where nothing but `*/*` speaks for OpenMetrics, as in browsers' requests.
    """
    ranges = list(_ranges(accept))
    _, text = _rank(ranges, "text/plain", ("", "0.0.4", "1.0.0"))
    closeness, openmetrics = _rank(ranges, "application/openmetrics-text", ("", "0.0.1", "1.0.0"))
    return closeness > 0 and openmetrics > 0 and openmetrics >= text


def _ranges(accept: str) -> Iterator[tuple[str, str, float]]:
    """Media range, version and quality of each item of an Accept header."""
    for item in accept.lower().replace(" ", "").split(","):
        media, *parameters = item.split(";")
        named = dict(parameter.partition("=")[::2] for parameter in parameters)
        try:
            quality = float(named.get("q", "1"))
        except ValueError:
            continue
        if 0 <= quality <= 1:
            yield media, named.get("version", "").strip('"'), quality


def _rank(
    ranges: Iterable[tuple[str, str, float]], media: str, versions: Collection[str]
) -> tuple[int, float]:
    """How closely the ranges name a media type (0: as `*/*` or not at all), and its quality."""
    forms = ["*/*", f"{media.partition('/')[0]}/*", media]
    return max(
        (
            (forms.index(range_), quality)
            for range_, version, quality in ranges
            if range_ in forms and (range_ != media or version in versions)
        ),
        default=(0, 0.0),
    )
