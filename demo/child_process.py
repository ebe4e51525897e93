"""Programs that the demo runs."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

_STOP_TIMEOUT = 15.0


@contextmanager
def child_process(
    *command: str, output: IO[bytes] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is terminated at the end, and killed when that takes longer than 15 s.

    Args:
        output: of both kinds; None: that of this process.
    """
    with subprocess.Popen(
        [*tied_to_this_process(), *command],
        stdout=output,
        stderr=output,
        process_group=0,  # so that Ctrl-C reaches it once: through us
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(_STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()


def tied_to_this_process(signal: str = "TERM") -> list[str]:
    """What to write before a command so that it gets a signal when this process ends, even if this
    one is killed, where `setpriv` is installed (Linux)."""
    return ["setpriv", f"--pdeathsig={signal}"] if shutil.which("setpriv") else []
