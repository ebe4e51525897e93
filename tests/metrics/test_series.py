"""Series and histograms."""

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Histogram as Reference

from exporter.metrics import catalogue
from exporter.metrics.catalogue import Family
from exporter.metrics.series import Exemplar, Histogram, Series, SeriesData


class TestHistogram:
    def test_a_bound_belongs_to_its_bucket(self) -> None:
        histogram = Histogram.empty([1, 5])
        for value in (1, 1.5, 5, 6):
            histogram.observe(value)
        assert histogram.counts == [1, 2, 1]
        assert histogram.sum == 13.5

    @given(st.lists(st.floats(0, 1e6)))
    def test_counts_as_prometheus_clients_own_does(self, values: list[float]) -> None:
        bounds = (0.1, 1.0, 60.0, 3600.0)
        reference = Reference("h", "h", registry=None, buckets=bounds)
        histogram = Histogram.empty(bounds)
        for value in values:
            reference.observe(value)
            histogram.observe(value)
        samples = {
            s.labels.get("le", s.name): s.value for s in next(iter(reference.collect())).samples
        }
        assert list(accumulate(histogram.counts)) == [
            samples[le] for le in ("0.1", "1.0", "60.0", "3600.0", "+Inf")
        ]
        assert histogram.sum == pytest.approx(samples["h_sum"])


class TestSeries:
    def test_zero_shows_a_series_and_resets_none(self) -> None:
        series = Series({catalogue.QUEUE_DURATIONS: [1]})
        series.count(catalogue.POLLS, ("simple", "success"))
        series.zero(catalogue.POLLS, [("simple", "success"), ("detail", "success")])
        series.count(catalogue.QUEUE_DURATIONS, ("acc", "orders"), 0.5)
        series.zero(catalogue.QUEUE_DURATIONS, [("acc", "orders")])
        values = {labels: data and data.value for (_, labels), data in series.take().series.items()}
        assert values == {
            ("simple", "success"): 1.0,
            ("detail", "success"): 0.0,
            ("acc", "orders"): Histogram((1.0,), [1, 0], 0.5),
        }

    @pytest.mark.parametrize("family", [catalogue.RUNS_FINISHED, catalogue.DETAILS_SKIPPED])
    def test_the_catalogue_says_which_families_have_exemplars(self, family: Family) -> None:
        series = Series({})
        series.count(family, ("acc", "orders"), instance_id="order-1")
        data = series.take().series[family, ("acc", "orders")]
        assert data is not None
        assert bool(data.exemplars) == family.exemplars

    def test_what_changed_is_handed_out_once(self) -> None:
        """As a copy, so that it stays what it was."""
        queued, workflow = catalogue.QUEUE_DURATIONS, ("acc", "orders")
        series = Series({queued: [1]}, clock=lambda: 7.0)
        series.set(catalogue.UP, workflow, 1)
        series.count(queued, workflow, 0.5, "order-1")
        taken = series.take()
        series.count(queued, workflow, 0.5)
        exemplars = {0: Exemplar("order-1", 0.5, 7.0)}
        assert taken.series == {
            (catalogue.UP, workflow): SeriesData(1),
            (queued, workflow): SeriesData(Histogram((1.0,), [1, 0], 0.5), 7.0, exemplars),
        }
        series.set(catalogue.UP, workflow, 1)
        assert series.take().series == {
            (queued, workflow): SeriesData(Histogram((1.0,), [2, 0], 1.0), 7.0, exemplars)
        }
        assert not series.take().series

    def test_an_id_too_long_for_openmetrics_is_no_exemplar(self) -> None:
        """128 characters, names of labels included; the newest that fits stays."""
        key = (catalogue.QUEUE_DURATIONS, ("acc", "orders"))
        series = Series({catalogue.QUEUE_DURATIONS: [1]}, clock=lambda: 7.0)
        series.count(*key, 0.5, "ü" * 117)
        series.count(*key, 0.6, "i" * 118)
        exemplars = {0: Exemplar("ü" * 117, 0.5, 7.0)}
        assert series.take().series == {
            key: SeriesData(Histogram((1.0,), [2, 0], 1.1), 7.0, exemplars)
        }

    def test_the_series_of_a_workflow_are_dropped(self) -> None:
        series = Series({catalogue.QUEUE_DURATIONS: [1]})
        for workflow in (("acc", "orders"), ("acc", "billing")):
            series.set(catalogue.UP, workflow, 1)
            series.count(catalogue.QUEUE_DURATIONS, workflow, 0.5, "x")
        series.take()
        series.drop("acc", "orders")
        assert series.take().series == {
            (catalogue.UP, ("acc", "orders")): None,
            (catalogue.QUEUE_DURATIONS, ("acc", "orders")): None,
        }

    def test_a_workflow_is_dropped_without_a_search_through_those_of_others(self) -> None:
        """A reload may drop hundreds of workflows at once, while nothing else runs."""

        class Name(str):
            __slots__ = ()
            __hash__ = str.__hash__
            compared = 0

            def __eq__(self, other: object) -> bool:
                Name.compared += 1
                return str.__eq__(self, other)

        series, others = Series({}), Name("billing")
        series.set(catalogue.UP, ("acc", "orders"), 1)
        series.zero(catalogue.FAILING, [("acc", others, f"{n}") for n in range(100)])
        Name.compared = 0
        series.drop("acc", "orders")
        assert Name.compared == 1
