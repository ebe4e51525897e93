"""Every benchmark runs, here on as little as it takes, and its help says what it prints."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import benchmarks
from tools import ROOT

NAMES = sorted(
    path.stem
    for path in Path(benchmarks.__file__).parent.glob("*.py")
    if path.stem not in ("__init__", "virtual_time")
)
SMALL = {
    "api_budget": ["--live", "5", "--minutes", "2"],
    "churn_memory": ["--hours", "0.05", "--a-day", "10000", "--memory", "--series", "1"],
    "events": ["--live", "10", "--rate", "0.3", "--minutes", "4"],
    "huge_responses": ["--steps", "10", "--sizes", "1"],
    "long_run_bytes": ["--steps", "20"],
    "page_cost": ["--instances", "20"],
    "poll_cost": ["--instances", "2", "--rounds", "1"],
    "replicas": [
        *("--instances", "5", "--rounds", "1", "--kills", "1", "--lease", "5s"),
        *("--live", "30", "--minutes", "0.5", "--watched", "3", "--seconds", "0.1"),
    ],
    "scrape_cost": ["--instances", "100", "--repeat", "1"],
    "soak_growth": ["--hours", "0.1", "--live", "10", "--every", "2"],
    "stalls": ["--instances", "20"],
    "state_cost": ["--instances", "5", "--rounds", "1", "--restored", "20"],
}
"""Options; `rules_cost` needs minutes of Prometheus."""


def run(name: str, *options: str) -> str:
    command = [sys.executable, "-m", f"benchmarks.{name}", *options]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_its_help_says_what_it_prints(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", [name, "--help"])
    with pytest.raises(SystemExit):
        importlib.import_module(f"benchmarks.{name}").main()
    assert "\n\nPrints " in capsys.readouterr().out


@pytest.mark.process
@pytest.mark.slow(8)
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.postgres] * (name == "replicas")) for name in SMALL],
)
def test_it_runs(name: str) -> None:
    assert run(name, *SMALL[name]).strip()


def test_contributors_find_all() -> None:
    table = (ROOT / "CONTRIBUTING.md").read_text().partition("| name | measures |")[2]
    assert [line.split("`")[1] for line in table.split("\n\n")[0].splitlines()[2:]] == NAMES
