"""What the pages tell people to write is what the chart takes."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helm.chart import render
from tools import CHART, ROOT

PAGES = [ROOT / "docs" / "kubernetes.md", CHART / "README.md"]


def values_on(page: Path) -> dict[str, Any]:
    """The file my-values.yaml on a page."""
    block = re.compile(r"^```yaml\n# my-values.yaml\n(.*?)^```", re.DOTALL | re.MULTILINE)
    found = block.search(page.read_text())
    assert found
    values: dict[str, Any] = yaml.safe_load(found[1])
    return values


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_its_values_are_taken(page: Path) -> None:
    assert render(values_on(page)).the("StatefulSet")


def test_the_guide_makes_all_that_it_speaks_of() -> None:
    release = render(values_on(PAGES[0]))
    kinds = sorted(o["kind"] for o in release.custom)
    assert kinds == ["PrometheusRule", "ServiceMonitor"]
    assert len(release.of_kind("ConfigMap")) == 2
    name = release.the("StatefulSet")["metadata"]["name"]
    assert f"statefulset/{name}" in PAGES[0].read_text()
    assert f"{name}.monitoring.svc:9734" in PAGES[0].read_text()
