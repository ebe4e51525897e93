"""The chart as a dependency of another one."""

from pathlib import Path

import helm_python as helm
import pytest
import yaml

from tests.helm.chart import SMALLEST
from tools import CHART


@pytest.mark.parametrize("enabled", [True, False])
def test_its_condition_turns_the_chart_on_and_off(enabled: bool, tmp_path: Path) -> None:
    dependency = {"name": CHART.name, "version": "*", "condition": f"{CHART.name}.enabled"}
    parent = {"apiVersion": "v2", "name": "p", "version": "1.0.0", "dependencies": [dependency]}
    (tmp_path / "Chart.yaml").write_text(yaml.safe_dump(parent))
    (tmp_path / "charts").mkdir()
    (tmp_path / "charts" / CHART.name).symlink_to(CHART)
    values = {"global": {"registry": "x"}, CHART.name: {**SMALLEST, "enabled": enabled}}
    files = helm.Chart.load(tmp_path).render(values, name="p", namespace="monitoring")
    assert any("kind: StatefulSet" in text for text in files.values()) == enabled
