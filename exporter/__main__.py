"""The command, and `python -m exporter`."""

import gc
import os
import signal
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    # These signals wait until they are handled: before that, SIGHUP would end the process, and
    # SIGINT would print a traceback.
    held = {signal.SIGHUP, signal.SIGINT}
    if os.getpid() == 1:
        held.add(signal.SIGTERM)  # the first process of a container would lose it
    signal.pthread_sigmask(signal.SIG_BLOCK, held)
    # Nothing that is imported is garbage. Looking for some would take a quarter of the start, and
    # most of each later collection.
    gc.disable()
    from exporter import cli  # noqa: PLC0415

    gc.freeze()
    gc.enable()
    return cli.main(argv)


if __name__ == "__main__":
    sys.exit(main())
