"""Random contents of `/metrics`, for hypothesis."""

from hypothesis import strategies as st

from exporter.metrics.catalogue import FAMILIES, Family, WorkflowKey
from exporter.metrics.instance_samples import Sample
from exporter.metrics.series import Changes, Exemplar, Histogram, SeriesData, SeriesKey
from exporter.metrics.text_format import INSTANCE_FAMILIES

NAMES = st.text(max_size=6) | st.sampled_from(['"', "\\", "\\n", "\n", 'a"} 1\n', " # {", "é😀"])
TIMES = st.floats(1e9, 2e9)
BOUNDS = (0.005, 1.0, 2.5, 1e6)


def values(family: Family) -> st.SearchStrategy[float]:
    if family.kind == "info":
        return st.just(1)
    if family.kind == "counter":
        return st.floats(0, allow_infinity=False)
    return st.integers(0, 10**20) | st.floats() | st.booleans()


@st.composite
def instances(draw: st.DrawFn) -> list[Sample]:
    samples: dict[tuple[Family, tuple[str, ...]], float] = {}
    for family in draw(st.lists(st.sampled_from(INSTANCE_FAMILIES), max_size=8)):
        if family.states and any(known is family for known, _ in samples):
            continue  # one state at a time
        labels = draw(st.tuples(*[NAMES] * (len(family.labels) - 3)))
        samples[family, labels] = draw(values(family))
    return [(family, labels, value) for (family, labels), value in samples.items()]


@st.composite
def changes(draw: st.DrawFn) -> Changes:
    """Of few instances and series, so that a list of these changes and removes what is there."""
    made = Changes()
    for family in draw(st.lists(st.sampled_from(FAMILIES), max_size=5)):
        if family not in INSTANCE_FAMILIES:
            key: SeriesKey = family, draw(st.tuples(*[NAMES] * len(family.labels)))
            made.series[key] = draw(st.none() | series_data(family))
    for number in draw(st.lists(st.integers(0, 39), max_size=20)):
        workflow = WorkflowKey("acc", 'orders "é"') if number % 2 else WorkflowKey("", "\n")
        of_workflow = made.instances.setdefault(workflow, {})
        of_workflow[f"i-{number}"] = draw(st.none() | instances())
    return made


def series_data(family: Family) -> st.SearchStrategy[SeriesData]:
    if family.kind not in ("counter", "histogram"):
        return st.builds(SeriesData, values(family))
    created = st.none() | TIMES
    if family.kind == "counter":
        return st.builds(SeriesData, values(family), created, exemplars(1))
    counts = st.lists(st.integers(0, 10**9), min_size=len(BOUNDS) + 1, max_size=len(BOUNDS) + 1)
    sums = st.floats(0, allow_nan=False, allow_infinity=False)
    histograms = st.builds(Histogram, st.just(BOUNDS), counts, sums)
    return st.builds(SeriesData, histograms, created, exemplars(len(BOUNDS) + 1))


def exemplars(buckets: int) -> st.SearchStrategy[dict[int, Exemplar]]:
    ids = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}", fullmatch=True)
    exemplar = st.builds(Exemplar, ids, st.floats(allow_nan=False), TIMES)
    return st.dictionaries(st.integers(0, buckets - 1), exemplar, max_size=2)
