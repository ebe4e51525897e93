"""Series and histograms."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Histogram as Reference

from exporter.metrics import catalogue
from exporter.metrics.series import Histogram, Series


class TestHistogram:
    def test_a_bound_belongs_to_its_bucket(self) -> None:
        histogram = Histogram.empty([1, 5])
        for value in (1, 1.5, 5, 6):
            histogram.observe(value)
        assert list(histogram.cumulative()) == [(1.0, 1), (5.0, 3), (float("inf"), 4)]
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
        assert [count for _, count in histogram.cumulative()] == [
            samples[le] for le in ("0.1", "1.0", "60.0", "3600.0", "+Inf")
        ]
        assert histogram.sum == pytest.approx(samples["h_sum"])


class TestSeries:
    def test_zero_shows_a_series_and_resets_none(self) -> None:
        series = Series({catalogue.QUEUE_DURATIONS: [1]})
        series.add(catalogue.POLLS, ("simple", "success"))
        series.zero(catalogue.POLLS, [("simple", "success"), ("detail", "success")])
        series.observe(catalogue.QUEUE_DURATIONS, ("acc", "orders"), 0.5)
        series.zero(catalogue.QUEUE_DURATIONS, [("acc", "orders")])
        assert series.values[catalogue.POLLS] == {
            ("simple", "success"): 1.0,
            ("detail", "success"): 0.0,
        }
        assert series.histogram(catalogue.QUEUE_DURATIONS, ("acc", "orders")).counts == [1, 0]
