"""Durations in Prometheus' notation, and sizes with their unit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from exporter.config.units import Duration, PositiveDuration, Size

CENTURY_MS = 100 * 365 * 86_400_000


@given(st.integers(1, CENTURY_MS))
def test_what_is_shown_reads_back_as_the_same(milliseconds: int) -> None:
    duration = Duration(milliseconds / 1000)
    assert Duration.parse(str(duration)) == duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1ms", 0.001), ("15s", 15), ("5m", 300), ("1h30m", 5400), ("1d", 86_400), ("1w", 604_800),
     ("1y", 31_536_000), ("1m500ms", 60.5), ("0h5m", 300), ("90m", 5400)],
)  # fmt: skip
def test_what_prometheus_reads_is_read(text: str, seconds: float) -> None:
    assert Duration.parse(text) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.5, "500ms"), (15, "15s"), (5400, "1h30m"), (129_600, "1d12h"), (604_800, "1w"),
     (31_536_000, "1y"), (0, "0s"), (36_000, "10h")],
)  # fmt: skip
def test_it_shows_itself_short(seconds: float, text: str) -> None:
    assert str(Duration(seconds)) == repr(Duration(seconds)) == text


@pytest.mark.parametrize(
    "text",
    ["", "15", "15 s", "s", "1m1h", "1.5h", "-5s", "5S", "1h 30m", 15, None, "9" * 100 + "s"],
)
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="not a duration; write it with its unit"):
        Duration.parse(text)


@pytest.mark.parametrize("text", ["0s", "0h0m"])
def test_nothing_at_all_is_refused_where_it_makes_no_sense(text: str) -> None:
    assert not Duration.parse(text)
    with pytest.raises(ValueError, match="must be longer than 0s"):
        TypeAdapter(PositiveDuration).validate_python(text)


def test_more_than_a_century_is_refused() -> None:
    assert Duration.parse("100y") == CENTURY_MS / 1000
    with pytest.raises(ValueError, match="must be at most 100y"):
        Duration.parse("100y1ms")


@pytest.mark.parametrize(
    ("text", "size"),
    [("1MiB", 1 << 20), ("256MiB", 1 << 28), ("1.5GiB", 3 << 29), ("2MB", 2_000_000),
     ("1TiB", 1 << 40)],
)  # fmt: skip
def test_sizes_have_a_unit(text: str, size: int) -> None:
    assert TypeAdapter(Size).validate_python(text) == size


@pytest.mark.parametrize("text", ["256", "0MiB", "1025GiB", 256, "-1MiB", "1MX", "", None])
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"must be from 1MiB to 1TiB|byte"):
        TypeAdapter(Size).validate_python(text)
