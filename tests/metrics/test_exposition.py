"""What a scrape sees, beside what prometheus_client makes of the same data."""

import gzip
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter.config.metrics import Metrics
from exporter.metrics import catalogue, gzip_parts
from exporter.metrics.catalogue import WorkflowKey
from exporter.metrics.exposition import Exposition
from exporter.metrics.gzip_parts import unpack
from exporter.metrics.series import Changes, Exemplar, Histogram, SeriesData
from exporter.metrics.store import Store
from tests.exposed import show_at_once
from tests.metrics.plain import Plain
from tests.metrics.random_changes import changes

OPENMETRICS = "application/openmetrics-text"
ORDERS = WorkflowKey("acc", "orders")
OWN = ("process_", "python_")


def many(number: int) -> Changes:
    """A hundred instances, and a series, that show a number."""
    row = [(catalogue.RETRIES, (), number)]
    return Changes(
        {(catalogue.DETAILS_SKIPPED, ORDERS): SeriesData(float(number))},
        {ORDERS: {f"order-{n}": row for n in range(100)}},
    )


def exposition() -> Exposition:
    return Exposition(Store(Metrics(created=True)))


def families_of(body: str, accept: str = OPENMETRICS) -> Iterable[Metric]:
    parse: Callable[[str], Iterable[Metric]] = parse_openmetrics if accept else parse_text
    return parse(body)


def parsed(body: str, accept: str) -> dict[str, tuple[str, str, dict[object, object]]]:
    """Type, help and samples of each family but the process's own; each is there once."""
    found: dict[str, tuple[str, str, dict[object, object]]] = {}
    for family in families_of(body, accept):
        if family.name.startswith(OWN):
            continue
        assert family.name not in found, f"{family.name} is there twice, or interleaved"
        samples: dict[object, object] = {}
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in samples, f"{key} is there twice"
            # NaN is not itself; its name is.
            samples[key] = repr(float(sample.value) + 0.0), sample.exemplar
        found[family.name] = family.type, family.documentation, samples
    return found


def test_a_family_that_nothing_is_known_of_has_help_and_type() -> None:
    body, _ = exposition().render()
    assert (
        b"# HELP cloudflare_workflow_last_success_timestamp_seconds Unix time at which a poll "
        b"round over the workflow last succeeded; 0: never.\n"
        b"# TYPE cloudflare_workflow_last_success_timestamp_seconds gauge\n# HELP" in body
    )


@pytest.mark.slow
@settings(deadline=None, max_examples=50)
@given(st.lists(changes(), max_size=5))
def test_both_formats_hold_what_prometheus_client_makes_of_the_same_data(
    history: list[Changes],
) -> None:
    """After any changes: samples, values, exemplars, types and help."""
    ours, plain = exposition(), Plain()
    for step in history:
        show_at_once(ours, step)
        plain.show(step)
    for accept in ("", OPENMETRICS):
        body, _ = ours.render(accept)
        expected = plain.render(open_metrics=bool(accept))
        assert parsed(body.decode(), accept) == parsed(expected, accept)


@pytest.mark.slow
@settings(deadline=None, max_examples=20)
@given(st.lists(changes(), max_size=4))
def test_compressed_it_is_the_same(history: list[Changes]) -> None:
    ours = exposition()
    for step in history:
        show_at_once(ours, step)
        for accept in ("", OPENMETRICS):
            parts, _ = ours.scrape(accept)
            stream = gzip_parts.stream(parts)
            assert gzip.decompress(stream) == unpack(parts)


def test_lines() -> None:
    """As they are to be, byte by byte."""
    ours = exposition()
    histogram = Histogram((0.5, 1e6), [1, 0, 2], 2e6 + 0.1)
    show_at_once(
        ours,
        Changes(
            {
                (catalogue.RUNS_FINISHED, ("acc", 'say "\\\n"', "errored")): SeriesData(
                    2.0, exemplars={0: Exemplar("order-1", 1.0, 1767225600.25)}
                ),
                (catalogue.QUEUE_DURATIONS, ORDERS): SeriesData(
                    histogram, 1767225000.5, {2: Exemplar("order-2", 1e6 + 1, 1767225600)}
                ),
                (catalogue.ROWS_IGNORED, ()): SeriesData(0.0),
            }
        ),
    )
    finished = (
        'cloudflare_workflow_runs_finished_total{account="acc",workflow="say \\"\\\\\\n\\"",'
        'status="errored"} 2'
    )
    who = 'account="acc",workflow="orders"'
    queue = f"cloudflare_workflow_queue_duration_seconds_bucket{{{who},"
    for accept, wanted in (
        (
            "",
            [
                "# TYPE cloudflare_workflow_runs_finished_total counter",
                f"{finished}",
                f'{queue}le="0.5"}} 1',
                f'{queue}le="1e+06"}} 1',
                f'{queue}le="+Inf"}} 3',
                f"cloudflare_workflow_queue_duration_seconds_count{{{who}}} 3",
                f"cloudflare_workflow_queue_duration_seconds_sum{{{who}}} 2000000.1",
                "cloudflare_workflows_exporter_rows_ignored_total 0",
            ],
        ),
        (
            OPENMETRICS,
            [
                "# TYPE cloudflare_workflow_runs_finished counter",
                f'{finished} # {{instance_id="order-1"}} 1 1767225600.25',
                f'{queue}le="0.5"}} 1',
                f'{queue}le="1e+06"}} 1',
                f'{queue}le="+Inf"}} 3 # {{instance_id="order-2"}} 1000001 1767225600',
                f"cloudflare_workflow_queue_duration_seconds_count{{{who}}} 3",
                f"cloudflare_workflow_queue_duration_seconds_sum{{{who}}} 2000000.1",
                f"cloudflare_workflow_queue_duration_seconds_created{{{who}}} 1767225000.5",
                "cloudflare_workflows_exporter_rows_ignored_total 0",
            ],
        ),
    ):
        text = ours.render(accept)[0].decode()
        lines = [
            line
            for line in text.split("\n")
            if line.startswith(("# TYPE cloudflare_workflow_runs_finished", "cloudflare"))
        ]
        assert lines == wanted


def test_half_a_character_in_a_name_takes_nothing_else_away() -> None:
    ours = exposition()
    up = SeriesData(1.0)
    show_at_once(ours, Changes({(catalogue.UP, ("acc", "\ud800")): up, (catalogue.UP, ORDERS): up}))
    body = ours.render()[0].decode()
    assert 'cloudflare_workflow_up{account="acc",workflow="?"} 1\n' in body
    assert 'cloudflare_workflow_up{account="acc",workflow="orders"} 1\n' in body


class TestWhatScrapesSee:
    def test_only_what_was_shown(self) -> None:
        """Counters that are seen once they are on disk, say; gauges of the moment always are."""
        store = Store(Metrics())
        ours = Exposition(store)
        ours.gauges = lambda: [(catalogue.POLL_LAG, (), 7.5), (catalogue.API_LIMIT, ("acc",), None)]
        store.ignored()
        body, _ = ours.render()
        assert b"exporter_rows_ignored_total 1\n" not in body
        assert b"exporter_poll_lag_seconds 7.5\n" in body
        assert b"exporter_api_ratelimit_limit{" not in body
        show_at_once(ours, store.take())
        assert b"exporter_rows_ignored_total 1\n" in ours.render()[0]

    def test_what_was_shown_twice_or_is_gone_already_is_no_harm(self) -> None:
        ours = exposition()
        gone = Changes({(catalogue.UP, ORDERS): None}, instances={ORDERS: {"a": None}})
        show_at_once(ours, gone)
        there = Changes(instances={ORDERS: {"a": [(catalogue.RETRIES, (), 3)]}})
        for _ in range(2):
            show_at_once(ours, there)
            assert ours.render()[0].count(b'instance_id="a"') == 1
        for _ in range(2):
            show_at_once(ours, gone)
            assert b"instance_id" not in b"".join(
                line for line in ours.render()[0].splitlines() if not line.startswith(b"#")
            )

    def test_a_scrape_under_way_continues_with_what_it_saw(self) -> None:
        ours = exposition()
        show_at_once(ours, Changes(instances={ORDERS: {"a": [(catalogue.RETRIES, (), 3)]}}))
        parts, _ = ours.scrape()
        show_at_once(ours, Changes(instances={ORDERS: {"a": [(catalogue.RETRIES, (), 4)]}}))
        assert b'instance_id="a"} 3\n' in unpack(parts)
        stream = gzip_parts.stream(parts)
        assert b'instance_id="a"} 3\n' in gzip.decompress(stream)
        assert b'instance_id="a"} 4\n' in ours.render()[0]

    def test_all_that_changed_at_once(self) -> None:
        """A scrape while changes are being rendered, which takes a second for 50,000 instances."""
        ours = exposition()
        show_at_once(ours, several := many(1))
        for _ in ours.showing(many(2)):
            assert ours.render()[0].count(b"} 2\n") == 0
        assert ours.render()[0].count(b"} 2\n") == len(several.series) + len(
            several.instances[ORDERS]
        )


def test_what_did_not_change_is_neither_rendered_nor_compressed_again() -> None:
    ours = exposition()
    everything = Changes(instances={ORDERS: {}})
    for n in range(1000):
        everything.instances[ORDERS][f"order-{n}"] = [
            (catalogue.RETRIES, (), n),
            (catalogue.START, (), 7),
        ]
    show_at_once(ours, everything)
    before = ours.scrape()[0]
    everything.instances[ORDERS]["order-7"] = [
        (catalogue.RETRIES, (), 1007),
        (catalogue.START, (), 7),
    ]
    show_at_once(ours, everything)
    after = ours.scrape(OPENMETRICS)[0]
    [old] = [part for part in before if b"instance_retries{" in unpack([part])]
    [new] = [part for part in after if b"instance_retries{" in unpack([part])]
    [start] = [part for part in after if b"instance_start_timestamp_seconds{" in unpack([part])]
    assert any(part is start for part in before)
    same = common(old.data, new.data) + common(old.data[::-1], new.data[::-1])
    assert len(old.data) * 0.9 < same < len(old.data)


def common(one: bytes, other: bytes) -> int:
    """Bytes at the begin of both that are the same."""
    pairs = zip(one, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), len(one))


class TestNames:
    @pytest.fixture
    def ours(self) -> Exposition:
        ours = exposition()
        empty = SeriesData(Histogram.empty([1]))
        show_at_once(ours, Changes({(catalogue.QUEUE_DURATIONS, ORDERS): empty}))
        return ours

    @pytest.mark.parametrize(
        ("names", "families"),
        [
            (["cloudflare_workflow_up"], {"cloudflare_workflow_up"}),
            (["cloudflare_workflow_up", "none"], {"cloudflare_workflow_up"}),
            (
                ["cloudflare_workflow_up", "process_open_fds"],
                {"cloudflare_workflow_up", "process_open_fds"},
            ),
            (["cloudflare_workflow_runs_finished"], {"cloudflare_workflow_runs_finished"}),
            (["cloudflare_workflow_runs_finished_total"], {"cloudflare_workflow_runs_finished"}),
            (["cloudflare_workflow_instance_info"], {"cloudflare_workflow_instance"}),
            (
                ["cloudflare_workflow_queue_duration_seconds_bucket"],
                {"cloudflare_workflow_queue_duration_seconds"},
            ),
            (
                ["cloudflare_workflow_queue_duration_seconds"],
                {"cloudflare_workflow_queue_duration_seconds"},
            ),
            (["process_cpu_seconds_total"], {"process_cpu_seconds"}),
            (["none"], set()),
        ],
    )
    def test_choose_families(self, ours: Exposition, names: list[str], families: set[str]) -> None:
        """By the family's name in either format, or a sample's."""
        parts, _ = ours.scrape(OPENMETRICS, names)
        body = unpack(parts).decode()
        assert {family.name for family in families_of(body)} == families


class TestStoreInOpenMetrics:
    def test_created_is_shown_where_it_is_wanted(self) -> None:
        """In OpenMetrics: in the text format it would be a family of its own."""
        for wanted in (True, False):
            store = Store(Metrics(created=wanted), clock=lambda: 1767225600.5)
            ours = Exposition(store)
            show_at_once(ours, store.take())
            line = b'cloudflare_workflows_exporter_polls_created{kind="list",result="success"} '
            assert (line + b"1767225600.5\n" in ours.render(OPENMETRICS)[0]) == wanted
            assert b"_created" not in ours.render()[0]
