"""How list passes are spread while details wait."""

import pytest

from exporter.instances.urgency import stretched


@pytest.mark.parametrize(
    ("interval", "took", "expected"),
    [
        (15, 1, 15),  # the interval leaves room enough
        (15, 10, 20),
        (15, 22, 44),
        (15, 60, 45),  # statuses must not get older than that for the sake of steps
        (60, 40, 60),
    ],
)
def test_list_passes_leave_as_many_turns_as_they_take(
    interval: float, took: float, expected: float
) -> None:
    assert stretched(interval, took) == expected
