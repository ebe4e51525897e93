"""The unit is one that systemd takes, runs the exporter, and gives it little."""

import configparser
import re
import subprocess
import sys
from pathlib import Path

from generate import ROOT
from tests.e2e.daemon import run
from tests.requires import requires_program

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


def test_systemd_has_nothing_to_say_about_it(tmp_path: Path) -> None:
    done = analyze("verify", "--man=no", installed(tmp_path))
    ours = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert (done.returncode, ours) == (0, [])


def test_it_is_well_confined(tmp_path: Path) -> None:
    """systemd's own measure: 0 is nothing that can be harmed, 10 everything; below 2 is "OK"."""
    done = analyze("security", "--offline=yes", "--threshold=20", installed(tmp_path))
    assert done.returncode == 0, done.stdout[-2000:]


def test_the_exporter_takes_its_flags_and_configuration(tmp_path: Path) -> None:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    program, *flags = re.split(r"[\s\\]+", parser["Service"]["ExecStart"])
    assert program == PROGRAM
    token, file = tmp_path / "token", tmp_path / "config.yaml"
    token.write_text("a-token")
    credential = f"/run/credentials/{UNIT.name}/token"
    config = (FOLDER / "config.yaml").read_text()
    assert credential in config
    file.write_text(config.replace(credential, str(token)))
    path = "--config.file=/etc/cloudflare-workflows-exporter/config.yaml"
    assert path in flags
    done = run(
        tmp_path, "--check-config", *(f"--config.file={file}" if f == path else f for f in flags)
    )
    assert done.returncode == 0, done.stderr
