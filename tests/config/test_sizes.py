"""Sizes are read and shown in binary units."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.config.sizes import Size


@given(st.integers(1, 1 << 20))
def test_what_is_shown_reads_back_as_the_same(mebibytes: int) -> None:
    assert Size.parse(str(Size(mebibytes << 20))) == mebibytes << 20


@pytest.mark.parametrize(
    ("text", "size", "shown"),
    [
        ("1MiB", 1 << 20, "1MiB"),
        ("256MiB", 1 << 28, "256MiB"),
        ("1024MiB", 1 << 30, "1GiB"),
        ("2GiB", 1 << 31, "2GiB"),
    ],
)
def test_mebibytes_and_gibibytes(text: str, size: int, shown: str) -> None:
    assert Size.parse(text) == size
    assert str(Size.parse(text)) == repr(Size.parse(text)) == shown


@pytest.mark.parametrize(
    "text", ["", "256", "256MB", "1.5GiB", "-1MiB", "1 MiB", "1mib", 256, None, "9" * 10 + "MiB"]
)
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="not a size; write it with its unit, as in 64MiB or 1GiB"):
        Size.parse(text)


@pytest.mark.parametrize("text", ["0MiB", "1025GiB"])
def test_nothing_and_too_much_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be from 1MiB to 1024GiB"):
        Size.parse(text)
