"""What is declared is pinned in the locks, with hashes, and without any registry's address."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = [
    "requirements/runtime.txt",
    "requirements/build.txt",
    "requirements/demo.txt",
    "requirements/installer.txt",
    "requirements/dev.txt",
    "requirements/release.txt",
]
NPM = [ROOT / "demo", ROOT / "tests" / "node"]

ENTRY = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>[^ ;]+).*$", re.MULTILINE)


def pinned(lock: str) -> dict[str, str]:
    """The version of each package in a lock."""
    text = (ROOT / lock).read_text()
    return {canonicalize_name(entry["name"]): entry["version"] for entry in ENTRY.finditer(text)}


def declared(lock: str) -> list[str]:
    """The requirements of pyproject.toml that a lock is made from."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project: dict[str, Any] = pyproject["project"]
    shipped: list[str] = [
        *project["dependencies"],
        *project["optional-dependencies"]["postgres"],
    ]
    build: list[str] = pyproject["dependency-groups"]["build"]
    demo: list[str] = pyproject["dependency-groups"]["demo"]
    installer: list[str] = pyproject["dependency-groups"]["installer"]
    release: list[str] = pyproject["dependency-groups"]["release"]
    dev: list[str] = [d for d in pyproject["dependency-groups"]["dev"] if isinstance(d, str)]
    return {
        "requirements/runtime.txt": shipped,
        "requirements/build.txt": [*build, *pyproject["build-system"]["requires"]],
        "requirements/demo.txt": demo,
        "requirements/installer.txt": installer,
        "requirements/dev.txt": [*shipped, *build, *demo, *installer, *dev],
        "requirements/release.txt": release,
    }[lock]


@pytest.mark.parametrize("lock", LOCKS)
class TestPythonLocks:
    def test_each_declared_requirement_is_met(self, lock: str) -> None:
        versions = pinned(lock)
        unmet = [
            declaration
            for declaration in declared(lock)
            if (requirement := Requirement(declaration))
            and not requirement.specifier.contains(
                versions.get(canonicalize_name(requirement.name), "0"), prereleases=True
            )
        ]
        assert unmet == [], "make lock"

    def test_each_package_has_hashes(self, lock: str) -> None:
        entries = re.split(r"\n(?=\w)", (ROOT / lock).read_text())
        assert [entry for entry in entries if "--hash=sha256:" not in entry] == []

    def test_no_address_is_in_it(self, lock: str) -> None:
        assert "://" not in (ROOT / lock).read_text()


@pytest.mark.parametrize("lock", LOCKS[:4])
def test_what_is_tested_is_what_is_shipped_built_demonstrated_and_installed_with(lock: str) -> None:
    assert pinned(lock).items() <= pinned("requirements/dev.txt").items()


@pytest.mark.parametrize("folder", NPM, ids=lambda folder: folder.name)
class TestNpmLocks:
    def packages(self, folder: Path) -> dict[str, dict[str, Any]]:
        lock = json.loads((folder / "package-lock.json").read_text())
        packages: dict[str, dict[str, Any]] = lock["packages"]
        return packages

    def test_it_is_made_from_package_json(self, folder: Path) -> None:
        package = json.loads((folder / "package.json").read_text())
        assert self.packages(folder)[""]["dependencies"] == package["dependencies"]

    def test_each_package_has_its_hash_and_no_address(self, folder: Path) -> None:
        dependencies = [package for path, package in self.packages(folder).items() if path]
        assert all("integrity" in package for package in dependencies)
        assert not any("resolved" in package for package in dependencies)
