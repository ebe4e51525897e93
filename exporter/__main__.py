"""The command, and `python -m exporter`."""

import gc
import os
import signal
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    # They wait until they are handled: a reload would end the process, an interrupt print where.
    held = {signal.SIGHUP, signal.SIGINT}
    if os.getpid() == 1:
        held.add(signal.SIGTERM)  # a container's first process would lose it
    signal.pthread_sigmask(signal.SIG_BLOCK, held)
    # Nothing that is imported is garbage. To look for some would take a quarter of the start, and
    # most of each later collection.
    gc.disable()
    from exporter import cli  # noqa: PLC0415

    gc.freeze()
    gc.enable()
    return cli.main(argv)


if __name__ == "__main__":
    sys.exit(main())
