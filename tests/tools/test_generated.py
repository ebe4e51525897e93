"""What is generated is what its source says today."""

import re
from pathlib import Path

import pytest

from exporter.statuses import MAY_BE_STUCK
from tools import ROOT, alert_rules
from tools.generate import GENERATORS
from tools.generated_sections import updated

OUTPUTS = {path: text for module in GENERATORS for path, text in module.outputs().items()}


@pytest.mark.parametrize("path", OUTPUTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_it_is_up_to_date(path: Path) -> None:
    assert path.read_text() == OUTPUTS[path], "run: make docs"


def test_no_generated_file_is_without_a_source() -> None:
    folders = {path.parent for path in OUTPUTS if path.parent.name in ("alerting", "dashboards")}
    assert {f for folder in folders for f in folder.iterdir()} <= set(OUTPUTS)


def test_a_page_without_the_section_is_refused() -> None:
    with pytest.raises(ValueError, match="no <!-- values: made by make docs -->"):
        updated("# A page\n", "values", "text")


def test_rules_take_the_statuses_of_the_table_for_stuck() -> None:
    """Rules are written by hand; dashboards and the page read the table itself."""
    matched = set(re.findall(r'status=~"([\w|]*running[\w|]*)"', alert_rules.SOURCE.read_text()))
    assert matched == {"|".join(MAY_BE_STUCK)}
