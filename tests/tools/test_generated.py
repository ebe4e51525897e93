"""What is generated is what its source says today."""

import re
from types import ModuleType

import pytest

from exporter.statuses import MAY_BE_STUCK
from tools import alert_rules, grafana_dashboards
from tools.generate import GENERATORS
from tools.generated_sections import updated


@pytest.mark.parametrize("source", GENERATORS, ids=lambda source: source.__name__)
def test_it_is_up_to_date(source: ModuleType) -> None:
    for path, text in source.outputs().items():
        assert path.read_text() == text, f"{path}: run: make docs"


@pytest.mark.parametrize("source", [alert_rules, grafana_dashboards])
def test_no_generated_file_is_without_a_source(source: ModuleType) -> None:
    outputs = source.outputs()
    folders = {path.parent for path in outputs if path.parent.name in ("alerting", "dashboards")}
    assert {file for folder in folders for file in folder.iterdir()} <= set(outputs)


def test_a_page_without_the_section_is_refused() -> None:
    with pytest.raises(ValueError, match="no <!-- values: made by make docs -->"):
        updated("# A page\n", "values", "text")


def test_rules_take_the_statuses_of_the_table_for_stuck() -> None:
    """Rules are written by hand; dashboards and the page read the table itself."""
    matched = set(re.findall(r'status=~"([\w|]*running[\w|]*)"', alert_rules.SOURCE.read_text()))
    assert matched == {"|".join(MAY_BE_STUCK)}
