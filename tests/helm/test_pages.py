"""What the pages have people write is what the chart takes."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.helm.chart import render
from tools import CHART, ROOT

PAGES = [ROOT / "docs" / "kubernetes.md", CHART / "README.md"]


def files_on(page: Path, name: str) -> list[dict[str, Any]]:
    """The files of that name on a page."""
    block = re.compile(rf"^```yaml\n# {name}\n(.*?)^```", re.DOTALL | re.MULTILINE)
    return [msgspec.yaml.decode(text) for text in block.findall(page.read_text())]


def values_on(page: Path) -> dict[str, Any]:
    """The first file my-values.yaml on a page."""
    return files_on(page, "my-values.yaml")[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_its_values_are_taken(page: Path) -> None:
    assert render(values_on(page)).workload


def test_the_guide_makes_all_that_it_speaks_of() -> None:
    release = render(values_on(PAGES[0]))
    kinds = sorted(o["kind"] for o in release.custom)
    assert kinds == ["PrometheusRule", "ServiceMonitor"]
    assert len(release.of_kind("ConfigMap")) == 2
    name = release.the("StatefulSet")["metadata"]["name"]
    assert f"statefulset/{name}" in PAGES[0].read_text()
    assert f"{name}.monitoring.svc:9734" in PAGES[0].read_text()


def test_the_guide_makes_replicas_with_each_database() -> None:
    text = PAGES[0].read_text()
    files = files_on(PAGES[0], "replicas.yaml")
    assert len(files) == 2
    for replicas in files:
        release = render(values_on(PAGES[0]), replicas)
        name = release.the("Deployment")["metadata"]["name"]
        assert f"deployment/{name}" in text
        headless = [s for s in release.of_kind("Service") if "clusterIP" in s["spec"]]
        assert [f"{s['metadata']['name']}.monitoring.svc" in text for s in headless] == [True]
        assert len(release.of_kind("PodDisruptionBudget")) == 1
    (database,) = files_on(PAGES[0], "database.yaml")
    assert files[0]["state"]["existingSecret"] == f"{database['metadata']['name']}-app"
