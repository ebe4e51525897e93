"""Builds Cloudflare's local Workflows engine: workerd, and the configuration to start it with.

Miniflare makes the configuration. That takes Node.js and packages of npm, which are then removed:
the engine runs without them.
"""

import os
import shutil
import subprocess
from pathlib import Path

from demo.node_packages import NodeError, make_once, node, npm_ci

HERE = Path(__file__).parent
ENGINE = HERE.parent / ".cache" / "engine"
WORKERD = ENGINE / "workerd"
CONFIG = ENGINE / "config.bin"
"""For `workerd serve --binary`; addresses and folders in it are to be replaced by flags."""

SOURCES = ("package-lock.json", "package.json", "engine_config.mjs", "scenarios.mjs")


def build() -> None:
    """Builds into `.cache/engine`; does nothing where that was built of the same files.

    Raises:
        NodeError: no usable Node.js, or npm or Miniflare failed; the message has its output.
    """
    make_once(ENGINE / "built-of", [HERE / name for name in SOURCES], _build)


def _build() -> None:
    shutil.rmtree(ENGINE, ignore_errors=True)
    folder = ENGINE / "build"
    folder.mkdir(parents=True)
    for name in SOURCES:
        shutil.copy(HERE / name, folder)
    npm_ci(folder, "--cache=npm-cache")
    _configure(folder)
    workerd = next(folder.glob("node_modules/@cloudflare/workerd-*/bin/workerd"))
    workerd.rename(WORKERD)
    shutil.rmtree(folder)


def _configure(folder: Path) -> None:
    """Has Miniflare start, in the place of workerd, what keeps its configuration."""
    keeper = folder / "keep-config"
    keeper.write_text('#!/bin/sh\ncat >"$0.output"\n')
    keeper.chmod(0o755)
    done = subprocess.run(
        [node(), "engine_config.mjs"],
        check=False,
        cwd=folder,
        env={**os.environ, "MINIFLARE_WORKERD_PATH": str(keeper)},
        capture_output=True,
        text=True,
    )
    kept = folder / "keep-config.output"
    if done.returncode or not kept.exists():
        raise NodeError(f"Miniflare failed to configure the engine:\n{done.stdout}{done.stderr}")
    kept.rename(CONFIG)
