"""Reads the files that the configuration names."""

import errno
from pathlib import Path


def read_file(path: Path) -> bytes:
    """What a file holds.

    Raises:
        OSError: it can't be read, or is a pipe or a device: that may never end.
    """
    if path.is_fifo() or path.is_char_device() or path.is_block_device():
        raise OSError(errno.EINVAL, "Not a regular file")
    return path.read_bytes()
