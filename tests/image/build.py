"""Builds the image without a daemon and without a registry: on a Debian made here, from wheels."""

import fcntl
import hashlib
import json
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.requires import requires_program
from tools import ROOT

SUITE, PYTHON = "bookworm", "3.11"
"""The Debian that stands for the base image, and its Python."""

_CACHE = ROOT / ".cache" / "image"


class Image(NamedTuple):
    """A built image.

    Attributes:
        config: What it says about itself: Entrypoint, Env, User, WorkingDir, Labels …
        root: Its files.
    """

    config: dict[str, Any]
    root: Path


@contextmanager
def built(folder: Path) -> Iterator[Image]:
    """Builds the Dockerfile; everything that it makes is in `folder`, and gone afterwards."""
    with _locked():
        base, wheels = _base(), _wheels()
    pip = folder / "pip.conf"
    pip.write_text("[global]\nno-index = true\nfind-links = /wheels\n")
    storage = _Storage(folder / "storage")
    try:
        storage.buildah("build", "--tag=base", *_base_context(folder, base))
        storage.buildah(
            "build",
            "--tag=exporter",
            "--build-arg=PYTHON_IMAGE=localhost/base",
            "--build-arg=VERSION=1.2.3",
            "--build-arg=REVISION=abcdef",
            f"--volume={wheels}:/wheels:ro",
            f"--volume={pip}:/etc/pip.conf:ro",
            str(ROOT),
        )
        inspected = json.loads(storage.buildah("inspect", "--type=image", "exporter"))
        container = storage.buildah("from", "--pull-never", "exporter")
        root = Path(storage.buildah("mount", container))
        yield Image(inspected["OCIv1"]["config"], root)
    finally:
        storage.remove()


@contextmanager
def _locked() -> Iterator[None]:
    """Of several test runs, one fills the cache; the others wait for it."""
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class _Storage:
    """buildah's containers and images, in a folder of ours."""

    def __init__(self, folder: Path) -> None:
        program = requires_program("buildah", "buildah")
        self._command = [
            program,
            f"--root={folder}/root",
            f"--runroot={folder}/run",
            "--storage-driver=overlay",
        ]

    def buildah(self, verb: str, *arguments: str) -> str:
        """What a command prints.

        Raises:
            AssertionError: it failed; the message has its last words.
        """
        isolation = ["--isolation=chroot", "--quiet"] if verb == "build" else []
        done = subprocess.run(
            [*self._command, verb, *isolation, *arguments],
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"buildah {verb}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done.stdout.strip()

    def remove(self) -> None:
        subprocess.run([*self._command, "rm", "--all"], check=False, capture_output=True)
        subprocess.run(
            [*self._command, "rmi", "--all", "--force"], check=False, capture_output=True
        )


def _base_context(folder: Path, base: Path) -> tuple[str, str]:
    context = folder / "base"
    context.mkdir()
    (context / "Dockerfile").write_text(f"FROM scratch\nADD {base.name} /\n")
    (context / base.name).hardlink_to(base)
    return f"--file={context}/Dockerfile", str(context)


def _base() -> Path:
    """What the Dockerfile and a container need of a Debian with Python, as an archive; cached for
    the next time. To unpack packages takes half as long as to configure them, too."""
    archive = _CACHE / f"{SUITE}-unpacked.tar"
    if not archive.exists():
        mmdebstrap = requires_program("mmdebstrap", "mmdebstrap")
        partial = archive.with_suffix(".partial.tar")
        packages = "--include=base-files,coreutils,dash,python3-venv,util-linux"
        # base-files would make /mnt when configured. For `path-exclude`, mmdebstrap would start a
        # program of its own for each package.
        without = "mkdir mnt && cd usr/share && rm -r doc locale man"
        only = ("--quiet", "--variant=extract", packages, f'--extract-hook=cd "$1" && {without}')
        _run(mmdebstrap, *only, SUITE, str(partial))
        partial.rename(archive)
    return archive


def _wheels() -> Path:
    """All that the locks name, as wheels for the base; cached until a lock changes."""
    locks = [ROOT / "requirements/runtime.txt", ROOT / "requirements/build.txt"]
    key = hashlib.sha256(b"".join(lock.read_bytes() for lock in locks)).hexdigest()[:16]
    folder = _CACHE / f"wheels-{key}"
    if not folder.exists():
        partial = folder.with_suffix(".partial")
        machine = platform.machine()
        tags = [f"manylinux_2_{glibc}_{machine}" for glibc in (5, 12, 17, 24, 28, 34)]
        tags += [f"manylinux2014_{machine}", "any"]
        for lock in locks:
            _run(
                sys.executable,
                *("-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
                *("--no-deps", "--only-binary=:all:", f"--python-version={PYTHON}"),
                *(f"--platform={tag}" for tag in tags),
                *("--require-hashes", f"--requirement={lock}", f"--dest={partial}"),
            )
        partial.rename(folder)
    return folder


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{command[0]}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
