"""Renders samples as lines of Prometheus' text format and of OpenMetrics, which are mostly
equal."""

from collections.abc import Iterable
from functools import lru_cache
from itertools import accumulate
from math import inf, isfinite

from prometheus_client.utils import floatToGoString

from exporter.metrics.catalogue import FAMILIES, INSTANCE_LABELS, Family, WorkflowKey
from exporter.metrics.instance_samples import Sample
from exporter.metrics.series import Exemplar, Histogram, LabelValues, SeriesData

INSTANCE_FAMILIES = tuple(f for f in FAMILIES if f.labels[:3] == INSTANCE_LABELS)

_COLUMNS = {family.name: column for column, family in enumerate(INSTANCE_FAMILIES)}


def of_instance(workflow: WorkflowKey, instance_id: str, samples: Iterable[Sample]) -> list[str]:
    """The lines of an instance, for both formats: a text for each of `INSTANCE_FAMILIES`."""
    owner = instance_labels(workflow, instance_id)
    texts = [""] * len(INSTANCE_FAMILIES)
    for family, labels, value in samples:
        column, pieces = _frame(family, labels)
        number = value if type(value) is int else _number(value)
        texts[column] += f"{owner.join(pieces)}{number}\n"
    return texts


def instance_labels(workflow: WorkflowKey, instance_id: str) -> str:
    """What every line of an instance contains, and no line of another instance."""
    return f"{{{label_pairs(INSTANCE_LABELS, (*workflow, instance_id))}"


@lru_cache(maxsize=4096)  # instances have most statuses, outcomes and steps in common
def _frame(family: Family, labels: LabelValues) -> tuple[int, list[str]]:
    """The column of a sample, and the pieces of its line, up to the value, between which the labels
    of the instance go. For a state, the lines of the other states come first."""
    names = family.labels[len(INSTANCE_LABELS) :]
    others = [(*labels[:-1], state) for state in family.states if state != labels[-1]]
    *zeros, last = ["," + label_pairs(names, v) if v else "" for v in (*others, labels)]
    before = [f"{more}}} 0\n{family.name}" for more in zeros]
    return _COLUMNS[family.name], [family.name, *before, f"{last}}} "]


def series_labels(family: Family, labels: LabelValues) -> str:
    """What every line of a series contains, and no line of another series of its family."""
    return f"{{{label_pairs(family.labels, labels)}" if labels else ""


def of_series(
    family: Family, labels: LabelValues, data: SeriesData, *, created: bool
) -> tuple[str, str]:
    """The lines of a series: in the text format, which has no exemplars, and in OpenMetrics; there,
    if wanted, with the time at which it was created."""
    value, pairs = data.value, label_pairs(family.labels, labels)
    braced = f"{{{pairs}}}" if pairs else ""
    if isinstance(value, Histogram):
        head = f"{family.name}_bucket{{{pairs}{',' if pairs else ''}"
        lines = [
            f'{head}le="{bound}"}} {count}\n'
            for bound, count in zip(_bounds(value.bounds), accumulate(value.counts), strict=True)
        ]
        rest = f"{family.name}_count{braced} {sum(value.counts)}\n"
        rest += f"{family.name}_sum{braced} {_number(value.sum)}\n"
    else:
        lines, rest = [f"{family.name}{braced} {_number(value)}\n"], ""
    text = "".join(lines) + rest
    for bucket, exemplar in data.exemplars.items():
        lines[bucket] = f"{lines[bucket][:-1]} # {_exemplar(exemplar)}\n"
    if created and data.created is not None:
        rest += f"{family.name.removesuffix('_total')}_created{braced} {_number(data.created)}\n"
    return text, "".join(lines) + rest


@lru_cache
def _bounds(bounds: tuple[float, ...]) -> tuple[str, ...]:
    # Formatted as Go does: a bound is a label's value, so another text would be another series.
    return tuple(_go(bound) for bound in (*bounds, inf))


def _exemplar(exemplar: Exemplar) -> str:
    owner = f'{{instance_id="{_escape(exemplar.instance_id)}"}}'
    return f"{owner} {_number(exemplar.value)} {_number(exemplar.at)}"


def label_pairs(names: Iterable[str], values: Iterable[str]) -> str:
    """Labels with their values, as both formats and PromQL write them."""
    return ",".join([f'{n}="{_escape(v)}"' for n, v in zip(names, values, strict=True)])


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(int(value))  # also of a bool
    return repr(value).removesuffix(".0") if isfinite(value) else _go(value)


def _go(value: float) -> str:
    return str(floatToGoString(value))  # type: ignore[no-untyped-call]
