"""Structured logs on standard error, logfmt or JSON, including those of libraries."""

import logging
import select
import sys
from collections.abc import MutableMapping
from typing import Any, Literal, Protocol, TextIO
from weakref import WeakSet

import structlog

log = structlog.get_logger(__name__)

_PATIENCE = 0.1
"""Seconds for which a line waits to be read."""
QUIET = {
    # A line for each request, at level info.
    "httpx": logging.WARNING,
    "httpcore": logging.WARNING,
    # A warning for each round that starts late; poll_lag_seconds shows that better.
    "apscheduler": logging.ERROR,
    # A warning for each malformed request, and anyone can send any number of them.
    "uvicorn": logging.ERROR,
    "asyncio": logging.WARNING,
    # A warning where a transaction can't be rolled back, since its connection was lost.
    "psycopg": logging.ERROR,
}


class Scrubber(Protocol):
    def scrub(self, text: str) -> str:
        """`text` without a secret."""


scrubbers: WeakSet[Scrubber] = WeakSet()
"""Every line passes through these, as long as they exist. So no line shows their secrets, not even
one with the message of an exception."""


class _Handler(logging.StreamHandler[TextIO]):
    """Drops lines while nobody reads them, as when a pipe is full or a terminal was stopped: one
    that waits to be read would hold up everything, scrapes and the end of the process too."""

    dropped = 0
    """Lines since the last one that was written. It's the class's: each reload makes a handler."""

    def emit(self, record: logging.LogRecord) -> None:
        if not self._is_read():
            _Handler.dropped += 1
            return
        if dropped := self.dropped:
            _Handler.dropped = 0
            # An error, so that no log.level leaves it out.
            log.error("nobody read the log; lines were dropped", lines=dropped)
        super().emit(record)

    def _is_read(self) -> bool:
        wait = 0.0 if self.dropped else _PATIENCE
        try:
            return bool(select.select([], [self.stream], [], wait)[1])
        except (OSError, ValueError, TypeError):  # it is no file, or it is closed
            return True


def configure(level: str, fmt: Literal["logfmt", "json"]) -> None:
    """Sets up logging for the whole process."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if fmt == "json"
        else structlog.processors.LogfmtRenderer(key_order=["ts", "level", "logger", "msg"])
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        processors=[
            structlog.stdlib.add_logger_name,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("msg"),
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _cleaned,
            renderer,
        ]
    )
    structlog.configure(
        processors=[structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    handler = _Handler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name, least in QUIET.items():
        logging.getLogger(name).setLevel(max(least, logging.root.level))


def _cleaned(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Drops empty fields, such as `advice` where there is none, and makes the others safe."""
    return {key: _safe(value) for key, value in event.items() if value != ""}


def _safe(value: object) -> object:
    """A value without secrets and characters that control a terminal."""
    text = str(value) if isinstance(value, BaseException) else value
    if not isinstance(text, str):
        return value
    for scrubber in scrubbers:
        text = scrubber.scrub(text)
    return printable(text)


def printable(text: str) -> str:
    """The text with control characters escaped: what an upstream sends must not control a
    terminal."""
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text
    )
