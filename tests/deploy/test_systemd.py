"""The unit is one that systemd takes, runs the exporter, and gives it little."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command import Command
from tests.e2e.daemon import command, configuration, environment
from tests.requires import requires_mounts, requires_program
from tests.waiting import DEADLINE
from tools import ROOT

FOLDER = ROOT / "deploy" / "systemd"
UNIT = FOLDER / "cloudflare-workflows-exporter.service"
PROGRAM = "/opt/cloudflare-workflows-exporter/bin/cloudflare-workflows-exporter"


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = requires_program("systemd-analyze", "systemd")
    return subprocess.run([program, *arguments], check=False, capture_output=True, text=True)


def installed(folder: Path) -> Path:
    """The unit as it would be where the program is installed."""
    unit = folder / UNIT.name
    unit.write_text(UNIT.read_text().replace(PROGRAM, sys.executable))
    return unit


@pytest.mark.process
def test_systemd_has_nothing_to_say_about_it(tmp_path: Path) -> None:
    done = analyze("verify", "--man=no", installed(tmp_path))
    ours = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert (done.returncode, ours) == (0, [])


@pytest.mark.process
def test_it_is_well_confined(tmp_path: Path) -> None:
    """systemd's own measure: 0 is nothing that can be harmed, 10 everything; below 2 is "OK"."""
    done = analyze("security", "--offline=yes", "--threshold=20", installed(tmp_path))
    assert done.returncode == 0, done.stdout[-2000:]


@pytest.fixture
def service() -> dict[str, list[str]]:
    """The unit's section [Service]; a key that is there twice has two values."""
    found: dict[str, list[str]] = {}
    lines = UNIT.read_text().partition("[Service]\n")[2].partition("[Install]")[0].splitlines()
    for line in lines:
        key, _, value = line.partition("=")
        found.setdefault(key, []).append(value)
    return found


def environment_of(service: dict[str, list[str]]) -> dict[str, str]:
    return dict(value.split("=", 1) for value in service["Environment"])


def test_it_checks_the_configuration_before_it_starts_or_reloads(
    service: dict[str, list[str]],
) -> None:
    assert service["ExecStart"] == [PROGRAM]
    assert service["ExecStartPre"] == [f"{PROGRAM} --check-config"]
    assert service["ExecReload"] == [f"{PROGRAM} --check-config", "/bin/kill -HUP $MAINPID"]


def test_the_exporter_finds_its_configuration_in_the_unit_s_folder(
    service: dict[str, list[str]], tmp_path: Path
) -> None:
    assert service["WorkingDirectory"] == ["-/etc/cloudflare-workflows-exporter"]
    credential = f"/run/credentials/{UNIT.name}/token"
    config = (FOLDER / "config.yaml").read_text()
    assert credential in config
    (tmp_path / "token").write_text("a-token")
    (tmp_path / "config.yaml").write_text(config.replace(credential, "token"))
    done = Command(tmp_path)("--check-config", **environment_of(service))
    assert done.returncode == 0, done.stderr
    assert "production: 1 workflow(s) to discover" in done.stdout


def test_without_a_configuration_it_watches_the_account_of_its_environment_file(
    service: dict[str, list[str]], tmp_path: Path
) -> None:
    assert service["EnvironmentFile"] == ["-/etc/cloudflare-workflows-exporter/environment"]
    environ = environment_of(service) | {
        "CLOUDFLARE_API_TOKEN": "a-token",
        "CLOUDFLARE_ACCOUNT_ID": "acc",
    }
    done = Command(tmp_path)("--check-config", **environ)
    assert done.returncode == 0, done.stderr
    assert "acc: 1 workflow(s) to discover" in done.stdout


def test_a_configuration_without_its_token_is_refused(
    service: dict[str, list[str]], tmp_path: Path
) -> None:
    """Where the token has no file, systemd passes on SetCredential=, a line end."""
    assert service["SetCredential"] == [r"token:\n"]
    config = (FOLDER / "config.yaml").read_text()
    (tmp_path / "token").write_text("\n")
    (tmp_path / "config.yaml").write_text(
        config.replace(f"/run/credentials/{UNIT.name}/token", "token")
    )
    done = Command(tmp_path)("--check-config", **environment_of(service))
    assert done.returncode == 2
    assert "accounts[0].api_token_file: token is empty" in done.stderr


def test_the_state_is_in_a_folder_that_it_may_write_to(service: dict[str, list[str]]) -> None:
    (folder,) = service["StateDirectory"]
    assert environment_of(service)["CWE_STATE__PATH"] == f"/var/lib/{folder}/state.db"


@pytest.mark.process
def test_it_sees_what_the_metrics_of_its_process_are_made_of(
    service: dict[str, list[str]], tmp_path: Path
) -> None:
    """The dashboard shows its memory and CPU."""
    options = ["hidepid=" + service["ProtectProc"][-1]]
    options += ["subset=" + subset for subset in service.get("ProcSubset", [])]
    within = requires_mounts(f"mount -t proc -o {','.join(options)} proc /proc")
    configuration(tmp_path, "http://127.0.0.1:1/accounts/{account_id}", api_token="hidden")
    done = subprocess.run(
        [*within, *command("--once")],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    for name in ("process_resident_memory_bytes", "process_cpu_seconds_total"):
        assert f"\n{name} " in done.stdout, done.stderr
