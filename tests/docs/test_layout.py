"""The code is laid out as CONTRIBUTING shows it: what is named later may import what is earlier."""

import ast
import re
from pathlib import Path

import pytest

from tests.docs.pages import blocks
from tools import ROOT

EXPORTER = ROOT / "exporter"
GUIDE = ROOT / "CONTRIBUTING.md"
SHARED = {"clock", "daemon_thread", "log_dedup", "logs", "statuses", "__version__"}
ORDER = ("config", "cloudflare", "instances", "metrics", "state", "watch", "web")


def imported(path: Path) -> set[str]:
    """The packages and modules of the exporter that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "exporter":
            _, *below = (node.module or "").split(".")
            found |= {below[0]} if below else {alias.name for alias in node.names}
    return found


def test_every_package_has_its_place_in_the_order() -> None:
    assert {path.parent.name for path in EXPORTER.glob("*/__init__.py")} == set(ORDER)


@pytest.mark.parametrize("package", ORDER)
def test_no_import_points_back_up(package: str) -> None:
    may = SHARED | set(ORDER[: ORDER.index(package) + 1])
    for path in sorted((EXPORTER / package).rglob("*.py")):
        assert imported(path) <= may, path


@pytest.mark.parametrize("name", sorted(SHARED - {"__version__"}))
def test_what_all_share_imports_no_package(name: str) -> None:
    assert imported(EXPORTER / f"{name}.py") <= SHARED


def test_what_the_guide_for_contributors_names_is_there() -> None:
    sources = {path.stem: path.read_text() for path in EXPORTER.rglob("*.py")}
    defined = re.findall(r"\n *(?:class|(?:async )?def) (\w+)", "".join(sources.values()))
    modules, objects = (block.text for block in blocks(GUIDE, "text"))
    _, steps, _ = re.split("How a change|Some words of the code", GUIDE.read_text())
    named = {name.rpartition(".")[2] for name in re.findall(r"`([\w.]+)`", steps)}
    named |= {*re.findall(r"\b[A-Z]\w+", objects), *re.findall(r"\b[a-z]+_[a-z_]+", modules)}
    assert len(named) > 30
    assert named - {*defined, *sources} == set()
