"""What a test needs from the machine it runs on."""

import os
import shutil

import pytest


def requires_program(name: str, package: str) -> str:
    """The path of a program that a test or fixture needs; skips the test where it is missing.

    Under `CI=true` it fails the test instead: there everything is installed, and nothing goes
    untested unnoticed.

    Args:
        name: of the program, looked up in `PATH`.
        package: Debian's and Ubuntu's package that brings it, listed in `system-packages.txt`.
    """
    path = shutil.which(name)
    if path is not None:
        return path
    reason = f"{name} is not installed: apt-get install {package} (make test does, as root)"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
