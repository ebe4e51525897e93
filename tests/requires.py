"""What a test needs from the machine it runs on."""

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest


def requires_program(name: str, package: str, folders: Iterable[Path] = ()) -> str:
    """The path of a program that a test or fixture needs; skips the test where it is missing.

    Under `CI=true` it fails the test instead: there everything is installed, and nothing goes
    untested unnoticed.

    Args:
        name: of the program, looked up in `PATH`.
        folders: where it is looked up first.
        package: Debian's and Ubuntu's package that brings it, listed in `system-packages.txt`.
    """
    path = shutil.which(name, path=os.pathsep.join([*map(str, folders), os.environ["PATH"]]))
    if path is not None:
        return path
    reason = f"{name} is not installed: apt-get install {package} (make test does, as root)"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def requires_mounts(script: str) -> list[str]:
    """A command that runs the one given to it, in its own process, with mounts of its own.

    It skips the test where none can be made: that needs root.

    Args:
        script: makes the mounts; for `sh`.
    """
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode:
        pytest.skip("making mounts needs root")
    return ["unshare", "--mount", "sh", "-ec", f'{script}; exec "$@"', "sh"]
