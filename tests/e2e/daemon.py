"""The exporter as people run it: a child process with a file, an environment and flags."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx

from tests.needs import no_authorities
from tests.waiting import DEADLINE, tied, wait_until


def environment(**more: str) -> dict[str, str]:
    """This process's environment without anything that configures an exporter or has it read
    certificate authorities, and more."""
    with no_authorities():
        own = {k: v for k, v in os.environ.items() if not k.startswith(("CWE_", "CLOUDFLARE_"))}
    return own | more


def configuration(
    folder: Path, url: str, sections: Mapping[str, Any] = MappingProxyType({}), /, **account: Any
) -> Path:
    """A configuration in a file of `folder` that watches `order-1` of `orders`.

    `sections` and `account`, keys of the account, replace those that are there by default.
    """
    whole_account = {
        "name": "production",
        "account_id": "acc",
        "workflows": [{"name": "orders", "instances": ["order-1"]}],
        **account,
    }
    tree = {
        "api": {"url": url, "requests_per_5m": 1_000_000},
        "accounts": [whole_account],
        "poll": {"interval": "100ms"},
        "state": {"path": str(folder / "state.db")},
        **sections,
    }
    path = folder / "config.yaml"
    path.write_text(json.dumps(tree))  # which is YAML
    return path


def command(*flags: str) -> list[str]:
    return [sys.executable, "-m", "exporter", *flags]


def signalled_at_its_start(signal: str) -> list[str]:
    """A command that runs the exporter in its own process, and sends it a signal as soon as it has
    blocked SIGHUP or, where that isn't noticed in time, handles it."""
    safe = "grep -qE 'SigBlk:.*[13]$|SigCgt:.*[13579bdf]$' /proc/$$/status"
    wait = f"until {safe}; do kill -0 $$ || exit; done; kill -{signal} $$"
    # What a shell runs in the background ignores SIGINT, and so would the exporter in such tests.
    heeding = ["env", "--default-signal"]
    return [*heeding, "sh", "-c", f'{{ {wait}; }} 2>/dev/null & exec "$@"', "sh"]


def run(
    folder: Path,
    *flags: str,
    environ: Mapping[str, str] | None = None,
    within: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """Runs an exporter that is to end by itself, `within` a command that runs another."""
    return subprocess.run(
        [*within, *command(*flags)],
        check=False,
        cwd=folder,
        env=environ or environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )


class Daemon:
    """An exporter that serves.

    Attributes:
        address: host:port that it listens on.
        http: a client whose paths are relative to it.
    """

    def __init__(self, process: subprocess.Popen[bytes], errors: Path) -> None:
        self.process = process
        self._errors = errors
        wait_until(lambda: self._listening() or process.poll() is not None, self.stderr)
        found = self._listening()
        assert found, self.stderr()
        self.address = found[1]
        self.http = httpx.Client(
            base_url=f"http://{self.address}", trust_env=False, timeout=DEADLINE, verify=False
        )

    def _listening(self) -> re.Match[str] | None:
        return re.search(r'address[":= ]+(127\.0\.0\.1:\d+)', self.stderr())

    def stderr(self) -> str:
        """The lines of its log that are whole: more of the last may be under way."""
        lines, end, _ = self._errors.read_bytes().rpartition(b"\n")
        return (lines + end).decode()

    def metrics(self) -> str:
        return self.http.get("/metrics").text

    def wait_until_ready(self) -> None:
        wait_until(lambda: self.http.get("/-/ready").status_code == 200, self.stderr)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Its exit status after the signal."""
        self.process.send_signal(number)
        return self.process.wait(DEADLINE)


@contextmanager
def daemon(
    folder: Path,
    *flags: str,
    environ: Mapping[str, str] | None = None,
    within: Sequence[str] = (),
) -> Iterator[Daemon]:
    """Runs an exporter on a free port, with `folder/config.yaml` unless the flags name another.

    `within` is a command that runs the command given to it, in its own process.
    """
    errors = folder / "stderr"
    with (
        errors.open("wb") as file,
        subprocess.Popen(
            tied(*within, *command("--web.listen-address=127.0.0.1:0", *flags)),
            cwd=folder,
            env=environ or environment(),
            stdout=file,
            stderr=file,
        ) as process,
    ):
        try:
            running = Daemon(process, errors)
            with running.http:
                yield running
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(DEADLINE)
