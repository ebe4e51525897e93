"""The same data as the exporter shows, stored and rendered by prometheus_client alone."""

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.exposition import generate_latest as text
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

from exporter.metrics.catalogue import FAMILIES, Family, WorkflowKey
from exporter.metrics.instance_samples import Sample
from exporter.metrics.series import Changes, Histogram, LabelValues, SeriesData


class Plain(Collector):
    """Takes changes as an exposition does."""

    def __init__(self) -> None:
        self.shown = Changes()

    def show(self, changes: Changes) -> None:
        for key, data in changes.series.items():
            self.shown.series.pop(key, None)
            if data is not None:
                self.shown.series[key] = data
        for workflow, instances in changes.instances.items():
            shown = self.shown.instances.setdefault(workflow, {})
            for instance_id, samples in instances.items():
                shown.pop(instance_id, None)
                if samples is not None:
                    shown[instance_id] = samples

    def render(self, *, open_metrics: bool) -> str:
        self._open_metrics = open_metrics
        encode = openmetrics if open_metrics else text
        return encode(self).decode()

    def collect(self) -> Iterator[Metric]:
        for family in FAMILIES:
            suffix = {"counter": "_total", "info": "_info"}.get(family.kind, "")
            metric = Metric(family.name.removesuffix(suffix), family.help, family.kind)
            for key, data in self.shown.series.items():
                if key[0] is family and data is not None:
                    self._add(metric, family, key[1], data)
            instances = (
                (workflow, instance_id, samples)
                for workflow, shown in self.shown.instances.items()
                for instance_id, samples in shown.items()
            )
            for workflow, instance_id, samples in instances:
                for of, labels, value in samples or ():
                    if of is family:
                        others = [(*labels[:-1], s) for s in family.states if s != labels[-1]]
                        for sample in (*((of, other, 0) for other in others), (of, labels, value)):
                            self._add_instance(metric, workflow, instance_id, sample)
            yield metric

    def _add_instance(
        self, metric: Metric, workflow: WorkflowKey, instance_id: str, sample: Sample
    ) -> None:
        family, labels, value = sample
        names = dict(zip(family.labels, (*workflow, instance_id, *labels), strict=True))
        metric.add_sample(family.name, names, value)

    def _add(self, metric: Metric, family: Family, labels: LabelValues, data: SeriesData) -> None:
        value, created = data.value, data.created
        names = dict(zip(family.labels, labels, strict=True))
        exemplars = {
            bucket: Exemplar({"instance_id": exemplar.instance_id}, exemplar.value, exemplar.at)
            for bucket, exemplar in data.exemplars.items()
        }
        if isinstance(value, Histogram):
            total = 0
            bounds = (*value.bounds, float("inf"))
            for bucket, (bound, count) in enumerate(zip(bounds, value.counts, strict=True)):
                total += count
                le = floatToGoString(bound)  # type: ignore[no-untyped-call]
                metric.add_sample(
                    f"{family.name}_bucket",
                    {**names, "le": le},
                    total,
                    exemplar=exemplars.get(bucket),
                )
            metric.add_sample(f"{family.name}_count", names, total)
            metric.add_sample(f"{family.name}_sum", names, value.sum)
        else:
            metric.add_sample(family.name, names, value, exemplar=exemplars.get(0))
        if created is not None and self._open_metrics:
            metric.add_sample(f"{metric.name}_created", names, created)
