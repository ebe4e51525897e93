"""Each way to install the exporter does, with the package that is built from here."""

import os
import subprocess
import tomllib
from pathlib import Path

import msgspec
import pytest

from exporter import __version__
from tests.docs.pages import Block, blocks
from tools import CHART, ROOT
from tools.release import BIN

PAGE = ROOT / "docs" / "getting-started.md"
RELEASE = msgspec.yaml.decode((ROOT / ".github" / "workflows" / "release.yml").read_text())
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel, as an index that has it would offer it."""
    folder = tmp_path_factory.mktemp("packages")
    command = [str(BIN / "hatchling"), "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True)
    return folder


def block(begin: str) -> Block:
    (found,) = (block for block in blocks(PAGE, "sh") if block.text.startswith(begin))
    return found


@pytest.mark.process
@pytest.mark.slow(10)
@pytest.mark.parametrize("begin", ["python3 -m venv", "pipx install", "uv tool install"])
def test_it_installs_the_command(begin: str, packages: Path, tmp_path: Path) -> None:
    """What it depends on comes from the package index."""
    done = subprocess.run(
        ["bash", "-euc", block(begin).text],
        cwd=tmp_path,
        env={
            **os.environ,
            "HOME": str(tmp_path),
            "XDG_DATA_HOME": str(tmp_path / "data"),
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PIP_FIND_LINKS": str(packages),
            "PIP_NO_COMPILE": "0",  # it runs once; "1" compiles
            "UV_FIND_LINKS": str(packages),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == f"cloudflare-workflows-exporter {__version__}"


def test_names_and_versions_are_those_that_the_release_publishes() -> None:
    name = REPOSITORY.removeprefix("https://github.com/")
    image = RELEASE["env"]["IMAGE"].replace("${{ github.repository }}", name)
    charts = RELEASE["env"]["CHARTS"].replace("${{ github.repository_owner }}", name.split("/")[0])
    chart = msgspec.yaml.decode((CHART / "Chart.yaml").read_text())
    values = msgspec.yaml.decode((CHART / "values.yaml").read_text())
    assert values["image"]["repository"] == image
    assert f" {image}:{__version__} " in block("docker run").text
    assert f" {image}:{__version__} " in block("cosign verify").text
    assert f"'^{REPOSITORY}/" in block("cosign verify").text
    for page in (PAGE, ROOT / "docs" / "kubernetes.md"):
        (helm,) = (b.text for b in blocks(page, "sh") if b.text.startswith("helm install"))
        assert f" oci://{charts}/{chart['name']} " in helm
        assert f" --version {chart['version']} " in helm
