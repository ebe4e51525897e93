"""Runs an image's program as Kubernetes would: as its user, with a read-only root, as process 1 of
a namespace, without capabilities and without a shell."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.image.build import Image
from tests.waiting import DEADLINE, tied, wait_until

# What a runtime does between making the namespaces and becoming the program.
_ENTER = """
mount --make-rprivate /
mount --bind "$ROOT" "$ROOT"
mount -t proc proc "$ROOT/proc"
mount -t tmpfs -o uid=$UID_,gid=$UID_,mode=0700 tmpfs "$ROOT/var/lib/cloudflare-workflows-exporter"
mount --bind "$CONFIG" "$ROOT/mnt"
mount --bind /dev/null "$ROOT/bin/sh"
mount -o remount,bind,ro "$ROOT"
exec chroot "$ROOT" setpriv --reuid="$UID_" --regid="$UID_" --clear-groups --no-new-privs \\
    --bounding-set=-all --inh-caps=-all env -i -C "$WORKDIR" "$@"
"""


# As another user the program loses the signal that it gets when its parent dies. It ends with the
# namespace around its own, whose first process has that signal.
_NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child")


def _child(pid: int) -> int:
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


class Container:
    """A running container.

    Attributes:
        started: Seconds from its start until it responded.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log
        self.started = 0.0

    @property
    def pid(self) -> int:
        """The program's process, which is number 1 in its namespace."""
        return _child(_child(self._process.pid))

    @property
    def address(self) -> str:
        found = re.search(r'address[":= ]+(127\.0\.0\.1:\d+)', self.log())
        return found[1] if found else ""

    def log(self) -> str:
        return self._log.read_text()

    def status(self, field: str) -> str:
        """A field of the program's /proc/PID/status."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"^{field}:\s*(.*)$", text, re.MULTILINE)
        assert found
        return found[1]

    def stop(self) -> int:
        """Its exit status after SIGTERM."""
        os.kill(self.pid, signal.SIGTERM)
        return self._process.wait(DEADLINE)


@contextmanager
def running(image: Image, folder: Path, *flags: str, **environ: str) -> Iterator[Container]:
    """Runs the image's entrypoint with flags and variables; `folder` is /mnt in it."""
    config = image.config
    user = config["User"].partition(":")[0]
    program = [*config["Entrypoint"], *config.get("Cmd", []), *flags]
    log = folder / "log"
    with (
        log.open("wb") as file,
        subprocess.Popen(
            [
                *tied(*_NAMESPACE, *_NAMESPACE, "--mount", "bash", "-euc", _ENTER),
                *("bash", *config["Env"], *(f"{k}={v}" for k, v in environ.items()), *program),
            ],
            env={
                **os.environ,
                "ROOT": str(image.root),
                "CONFIG": str(folder),
                "UID_": user,
                "WORKDIR": config["WorkingDir"],
            },
            stdout=file,
            stderr=file,
        ) as process,
    ):
        begun = time.monotonic()
        container = Container(process, log)
        try:
            wait_until(lambda: container.address or process.poll() is not None, container.log)
            assert container.address, container.log()
            container.started = time.monotonic() - begun
            yield container
        finally:
            if process.poll() is None:
                process.kill()
                process.wait(DEADLINE)
