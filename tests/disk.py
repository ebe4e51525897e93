"""A disk that is full, for this process."""

import contextlib
import resource
import signal
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def full(state: Path) -> Iterator[None]:
    """Has SQLite's log of the state file grow no further, from here to the end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    log = Path(f"{state}-wal")
    most = log.stat().st_size if log.exists() else 0
    # What tests print goes to a file, too.
    resource.setrlimit(resource.RLIMIT_FSIZE, (max(8192, most), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
