"""`make run` decides what to run, and sets up no more than that needs."""

import shutil
import subprocess
from pathlib import Path

import pytest

from demo.build_engine import SOURCES
from tests.e2e.daemon import environment
from tests.requires import requires_program

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
TOKEN = {"CLOUDFLARE_API_TOKEN": "$(error no value is expanded)"}


def planned(folder: Path, *arguments: str, **environ: str) -> str:
    """What `make` would do in a clean copy."""
    make = requires_program("make", "make")
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    for name in ("requirements", "demo"):
        ignored = shutil.ignore_patterns("__pycache__", "node_modules")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored, dirs_exist_ok=True)
    # `make test` hands its own flags and level to what it runs.
    own = {k: v for k, v in environment(**environ).items() if not k.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        [make, "--dry-run", *arguments],
        cwd=folder,
        env=own,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize(
    ("arguments", "environ", "last"),
    [
        ([], {}, "-m demo"),
        (["DEMO=prometheus"], {}, "-m demo --with=prometheus"),
        ([], TOKEN, "-m exporter"),
        ([], {"CLOUDFLARE_API_KEY": "key"}, "-m exporter"),
        ([], {"CWE_CONFIG__FILE": "other.yaml"}, "-m exporter"),
        (["CONFIG=other.yaml"], {}, '-m exporter --config.file="other.yaml"'),
        (["CONFIG=other.yaml"], TOKEN, '-m exporter --config.file="other.yaml"'),
    ],
)
def test_it_runs_the_exporter_if_something_says_what_to_watch_and_else_the_demo(
    tmp_path: Path, arguments: list[str], environ: dict[str, str], last: str
) -> None:
    lines = planned(tmp_path, "run", *arguments, **environ).splitlines()
    assert lines[-1].rstrip() == f"exec .venv/bin/python {last}"


def test_a_config_yaml_is_found(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    assert planned(tmp_path, "run").rstrip().endswith("-m exporter")


def test_it_installs_what_running_needs_and_node_for_the_demo_alone(tmp_path: Path) -> None:
    run, demo = planned(tmp_path, "run", **TOKEN), planned(tmp_path, "run")
    assert "-r requirements/runtime.txt" in run
    assert "requirements/demo.txt" not in run
    assert "--target=.cache/node --upgrade --require-hashes -r requirements/demo.txt" in demo
    assert "\nrm -rf .cache/node\n" in demo
    assert "requirements/dev.txt" not in run + demo
    assert "-r requirements/dev.txt" in planned(tmp_path, "lint")


def test_it_builds_the_engine_again_when_a_file_of_which_it_is_built_has_changed(
    tmp_path: Path,
) -> None:
    mark = tmp_path / ".cache" / "engine" / "built-of"
    mark.parent.mkdir(parents=True)
    mark.touch()
    assert "--build" not in planned(tmp_path, "demo")
    for name in SOURCES:
        assert "-m demo --build" in planned(tmp_path, "demo", f"--what-if=demo/{name}"), name
