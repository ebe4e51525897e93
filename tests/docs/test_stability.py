"""The support matrix names the versions that tests and CI run."""

import json
import re
import sys
import tomllib

import msgspec

from tests.helm.chart import KUBERNETES
from tools import CHART, ROOT

PAGE = (ROOT / "docs" / "stability.md").read_text()
ROWS = [
    tuple(cell.strip() for cell in line.strip("|").split("|"))
    for line in PAGE.splitlines()
    if line.startswith("|")
]
VERSIONS: dict[str, list[str]] = {}
for part, *cells in ROWS:
    if part:
        current = part
    VERSIONS.setdefault(current, []).extend(re.split(", ", cells[0]))


def test_pythons_are_those_of_ci() -> None:
    matrix = msgspec.yaml.decode((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    (job,) = (j for j in matrix["jobs"].values() if "strategy" in j)
    assert VERSIONS["Python"] == job["strategy"]["matrix"]["python"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">={VERSIONS['Python'][0]}"
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in VERSIONS["Python"]


def test_kubernetes_versions_are_those_of_the_schemas() -> None:
    assert VERSIONS["Kubernetes"] == [
        re.match(r"\d+\.\d+", version)[0]  # type: ignore[index]
        for version in KUBERNETES
    ]
    chart = msgspec.yaml.decode((CHART / "Chart.yaml").read_text())
    assert chart["kubeVersion"] == f">={KUBERNETES[0]}.0-0"


def test_the_local_engine_is_the_pinned_one() -> None:
    pinned = json.loads((ROOT / "demo" / "package.json").read_text())["dependencies"]["miniflare"]
    assert VERSIONS["Cloudflare's local engine"] == [f"miniflare {pinned}"]
