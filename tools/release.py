"""Builds and checks every file that a release publishes (`make release-dry-run`).

`dist/python` gets the sdist and the wheel, `dist/chart` the packaged chart, `dist/sbom.cdx.json`
the packages that the exporter runs with, `dist/notes.md` the notes. `.github/workflows/release.yml`
publishes these files, and an image for two architectures. The image that is built here is for this
machine's architecture, on the base that the tests make.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import helm_python
import msgspec

from exporter import __version__
from tools import CHART, ROOT

BIN = Path(sys.executable).parent
PACKAGES = BIN.parent / "release"
"""What requirements/release.txt names, apart from what the exporter runs with."""
SDIST = {"CHANGELOG.md", "LICENSE", "README.md", "config.example.yaml", "pyproject.toml"}
_ADDED = {"PKG-INFO", ".gitignore"}  # by hatchling


class ReleaseError(Exception):
    """Something can't be released; the message says what, and what would be right."""


def section(changelog: str, version: str) -> tuple[str, str]:
    """The date ("unreleased" before it) and the text of a version's section of CHANGELOG.md.

    Raises:
        ReleaseError: the version has no section, or an empty one.
    """
    found = re.search(
        rf"^## {re.escape(version)}, ([^\n]+)\n(.*?)(?=^## |\Z)",
        changelog,
        re.MULTILINE | re.DOTALL,
    )
    if not found or not found[2].strip():
        raise ReleaseError(f"CHANGELOG.md: no text under a heading `## {version}, DATE`")
    return found[1], found[2].strip() + "\n"


def check_tag(tag: str, date: str) -> None:
    """Checks that a tag may be released.

    Raises:
        ReleaseError: it isn't the version's, or the CHANGELOG has no date for it.
    """
    if tag != f"v{__version__}":
        raise ReleaseError(f"the tag is {tag}, and exporter/__init__.py has {__version__}")
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", date):
        raise ReleaseError(f"CHANGELOG.md: `{__version__}, {date}`: give it a date, as 2026-01-31")


def check_contents(what: str, found: Iterable[str], expected: Iterable[str]) -> None:
    """Checks an archive's files.

    Raises:
        ReleaseError: some are missing, or not expected.
    """
    missing, extra = set(expected) - set(found), set(found) - set(expected)
    if missing or extra:
        raise ReleaseError(f"{what}: missing {sorted(missing)}, unexpected {sorted(extra)}")


def _run(*command: str | Path, **environ: str) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | environ,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ReleaseError(f"{Path(command[0]).name}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def _package() -> set[str]:
    files = (path for path in (ROOT / "exporter").rglob("*") if path.is_file())
    return {str(path.relative_to(ROOT)) for path in files if path.suffix != ".pyc"}


def build_python(folder: Path) -> Path:
    """Builds the sdist, and from it the wheel, which it returns."""
    _run(BIN / "hatchling", "build", "-t", "sdist", "-d", folder)
    (sdist,) = folder.glob("*.tar.gz")
    build = (BIN / "uv", "build", "--wheel", "--no-build-isolation", f"--python={sys.executable}")
    _run(*build, "--no-create-gitignore", f"--out-dir={folder}", sdist)
    (wheel,) = folder.glob("*.whl")
    twine = (sys.executable, "-m", "twine", "check", "--strict")
    _run(*twine, sdist, wheel, PYTHONPATH=str(PACKAGES))
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    check_contents(sdist.name, names - _ADDED, _package() | SDIST)
    names = set(zipfile.ZipFile(wheel).namelist())
    check_contents(wheel.name, {n for n in names if ".dist-info/" not in n}, _package())
    return wheel


def write_sbom(wheel: Path, path: Path) -> None:
    """Installs the wheel with what the lock pins, runs it, and lists what is installed."""
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder) / "bin" / "python"
        _run(sys.executable, "-m", "venv", "--without-pip", folder)
        install = (BIN / "uv", "pip", "install", f"--python={python}")
        _run(*install, "--require-hashes", "--requirement", "requirements/runtime.txt")
        _run(*install, "--no-deps", "--no-index", wheel)
        printed = _run(python.with_name("cloudflare-workflows-exporter"), "--version")
        if __version__ not in printed:
            raise ReleaseError(f"the installed command says it is {printed!r}, not {__version__}")
        arguments = ("--pyproject", "pyproject.toml", "--output-reproducible", "-o", path, python)
        _run(BIN / "cyclonedx-py", "environment", *arguments)


def build_chart(folder: Path) -> Path:
    """Packages the chart."""
    app_version = msgspec.yaml.decode((CHART / "Chart.yaml").read_text())["appVersion"]
    if app_version != __version__:
        raise ReleaseError(f"Chart.yaml: appVersion is {app_version}, not {__version__}")
    return Path(helm_python.package(CHART, destination=folder))


def image_size(folder: Path) -> str:
    """Builds the image, and says how large it is; or why it can't be built here."""
    programs = [name for name in ("buildah", "mmdebstrap") if not shutil.which(name)]
    if programs or os.getuid():
        return f"not built here: needs root, buildah and mmdebstrap; missing: {programs}"
    from tests.image.build import built  # noqa: PLC0415 - only where it can be built

    with built(folder) as image:
        installed = image.root / "opt" / "exporter"
        wheels = [path.name for path in installed.glob("lib/*/site-packages/*exporter-*.dist-info")]
        expected = f"cloudflare_workflows_exporter-{__version__}.dist-info"
        check_contents("image", wheels, [expected])
        size = sum(path.lstat().st_size for path in installed.rglob("*"))
    return f"{size / 1e6:.1f} MB on top of the base"


def release(dist: Path, tag: str | None) -> None:
    """Builds everything but the image.

    Raises:
        ReleaseError: something is wrong.
    """
    date, notes = section((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), __version__)
    if tag:
        check_tag(tag, date)
    for name in ("python", "chart"):
        shutil.rmtree(dist / name, ignore_errors=True)
        (dist / name).mkdir(parents=True)
    (dist / "notes.md").write_text(notes, encoding="utf-8")
    wheel = build_python(dist / "python")
    build_chart(dist / "chart")
    write_sbom(wheel, dist / "sbom.cdx.json")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.release", description=__doc__)
    parser.add_argument("--tag", help="refuse unless it is this version's, with a dated CHANGELOG")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="where files are written")
    parser.add_argument("--no-image", action="store_true", help="don't build the image")
    arguments = parser.parse_args(argv)
    dist = arguments.dist.resolve()
    try:
        release(dist, arguments.tag)
        for path in sorted(path for path in dist.rglob("*") if path.is_file()):
            print(f"{path.stat().st_size:>10,}  {path.relative_to(dist)}")
        if not arguments.no_image:
            with tempfile.TemporaryDirectory() as folder:
                print(f"{'image':>10}  {image_size(Path(folder))}")
    except ReleaseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
