"""Logging as it was before a test set it up."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from exporter import logs


@contextmanager
def restored_logging() -> Iterator[None]:
    """Undoes `logs.configure` at the end."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in logs.QUIET}
    # Secrets of former tests, until they are garbage, are hidden from any text.
    logs.scrubbers.clear()
    try:
        yield
    finally:
        root.handlers = handlers
        root.setLevel(level)
        for name, before in levels.items():
            logging.getLogger(name).setLevel(before)
        structlog.reset_defaults()
