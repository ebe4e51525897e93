"""Structured logs on standard error, logfmt or JSON, including those of libraries."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Literal, Protocol
from weakref import WeakSet

import structlog

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
    handler = logging.StreamHandler(sys.stderr)
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
