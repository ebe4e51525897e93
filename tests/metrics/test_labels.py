"""Step names as labels."""

import pytest

from exporter.config.metrics import Names, Rewrite
from exporter.metrics.labels import StepLabel


@pytest.mark.parametrize(
    ("reported", "written"),
    [
        ("pay-1", "pay"),
        ("pay-12", "pay"),
        ("name-7-1", "name-7"),
        ("pay", "pay"),
        ("-1", ""),
        ("pay-1\n", "pay-1\n"),
        ("pay-\u0661", "pay-\u0661"),
        ("", ""),
    ],
)
def test_the_engines_counter_is_taken_off_once(reported: str, written: str) -> None:
    assert StepLabel(Names())(reported) == written


def test_rules_rewrite_in_order() -> None:
    rules = [(r"user-\d+", "user"), (r"^(\w+) user$", r"\1")]
    rewrite = [Rewrite(regex=regex, replacement=replacement) for regex, replacement in rules]
    label = StepLabel(Names(rewrite=rewrite))
    assert label("charge user-42-1") == "charge"


@pytest.mark.parametrize(
    ("regex", "label"), [(".*", "x"), ("[0-9]*$", "orderx"), ("^", "xorder7"), ("$", "order7x")]
)
def test_a_rule_doesnt_match_again_where_a_match_ended(regex: str, label: str) -> None:
    rewrite = [Rewrite(regex=regex, replacement="x")]
    assert StepLabel(Names(rewrite=rewrite))("order7-1") == label


def test_past_the_limit_names_are_other_and_counted() -> None:
    dropped: list[str] = []
    label = StepLabel(Names(limit=2))
    names = ["a-1", "b-1", "c-1", "a-2", "d-1"]
    labels = [label(name, on_other=lambda: dropped.append("dropped")) for name in names]
    assert labels == ["a", "b", "other", "a", "other"]
    assert len(dropped) == 2
