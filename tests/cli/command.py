"""The command line in this process, for what ends by itself: a Python of its own takes longer than
most of these commands."""

import io
import os
import signal
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from exporter.cli import main
from tests.logs.restored import restored_logging

Finished = subprocess.CompletedProcess[str]


class Command:
    """Runs the exporter in a folder, without settings and credentials of the tests' environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def file(self, text: str, name: str = "config.yaml") -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def __call__(self, *argv: str, **environ: str) -> Finished:
        """What it wrote, and its exit status."""
        on_sigterm = signal.getsignal(signal.SIGTERM)
        out, err = io.TextIOWrapper(io.BytesIO()), io.StringIO()
        with (
            pytest.MonkeyPatch.context() as patched,
            redirect_stdout(out),
            redirect_stderr(err),
            restored_logging(),
        ):
            for name in (n for n in os.environ if n.startswith(("CWE_", "CLOUDFLARE_"))):
                patched.delenv(name)
            for name, value in {"COLUMNS": "100", **environ}.items():
                patched.setenv(name, value)
            patched.chdir(self.folder)
            try:
                status = main(argv)
            except SystemExit as exit_:
                status = int(exit_.code or 0)
            finally:
                signal.signal(signal.SIGTERM, on_sigterm)
        out.seek(0)
        return Finished(argv, status, out.read(), err.getvalue())
