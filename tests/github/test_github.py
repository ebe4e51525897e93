"""What GitHub reads from this repository is what it takes, and asks for no more than it needs."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from tools import ROOT

GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = GITHUB / "ISSUE_TEMPLATE"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
BIN = Path(sys.executable).parent


def run(*command: str | Path) -> None:
    done = subprocess.run(
        [BIN / command[0], *command[1:]], check=False, capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schema", "paths"),
    [
        ("vendor.github-workflows", WORKFLOWS),
        ("custom.github-workflows-require-timeout", WORKFLOWS),
        ("vendor.dependabot", [GITHUB / "dependabot.yml"]),
        ("vendor.github-issue-config", [FORMS / "config.yml"]),
        ("vendor.github-issue-forms", [FORMS / "bug.yml", FORMS / "feature.yml"]),
        ("vendor.compose-spec", [ROOT / "deploy" / "compose" / "compose.yaml"]),
    ],
)
def test_files_follow_their_schema(schema: str, paths: list[Path]) -> None:
    # Whoever needs no schema saves a second.
    from check_jsonschema import main as check_jsonschema  # noqa: PLC0415

    assert paths
    done = CliRunner().invoke(check_jsonschema, ["--builtin-schema", schema, *map(str, paths)])
    assert done.exit_code == 0, done.output


@pytest.mark.process
def test_zizmor_finds_nothing() -> None:
    """Actions that aren't pinned by commit, injections, credentials left on disk, permissions …"""
    hooks = ROOT / ".pre-commit-config.yaml"
    run("zizmor", "--offline", "--strict-collection", "--collect=all", GITHUB, hooks)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_has_no_permission_that_a_job_does_not_name(path: Path) -> None:
    workflow = msgspec.yaml.decode(path.read_text())
    assert workflow["permissions"] == {}
    assert all("permissions" in job for job in workflow["jobs"].values())


def test_ci_runs_on_every_python_that_the_package_is_for() -> None:
    (matrix,) = re.findall(r"python: (\[.*\])", (GITHUB / "workflows" / "ci.yml").read_text())
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(PYPROJECT["project"]["classifiers"]))
    assert msgspec.yaml.decode(matrix) == named


def test_addresses_are_those_of_the_repository() -> None:
    """`project.urls` of pyproject.toml is where the repository's address is set."""
    repository = PYPROJECT["project"]["urls"]["Repository"]
    for path in (FORMS / "config.yml", ROOT / "pyproject.toml"):
        for address in re.findall(r"https://github\.com/[^/\s]+/[^/\s\"']+", path.read_text()):
            assert address == repository, path


def test_hooks_run_programs_of_the_lock() -> None:
    hooks = msgspec.yaml.decode((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    for hook in hooks:
        program = hook["entry"].split()[0]
        assert program.startswith(".venv/bin/")
        assert (BIN / Path(program).name).exists()
