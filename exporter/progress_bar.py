"""The progress of `--once`, as a bar on a terminal."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from typing import TextIO

from exporter.config.units import Duration

_EVERY = 0.2
"""Seconds."""
_WIDTH = 20

Count = Callable[[], tuple[int, int, float]]
"""Instances that were polled, instances that are known, and polls a second that are possible."""


@contextlib.asynccontextmanager
async def progress(count: Count, stream: TextIO) -> AsyncIterator[None]:
    """Shows a bar until the context ends, if `stream` is a terminal, and then erases it.

    The cursor stays at the start of the line, so that a line of the log, which is always longer
    than the bar, overwrites it.
    """
    if not stream.isatty() or os.environ.get("TERM") == "dumb":
        yield
        return

    def show(text: str) -> None:
        stream.write(f"\r{text}\x1b[K\r")
        stream.flush()

    async def run() -> None:
        while True:
            show(line(*count()))
            await asyncio.sleep(_EVERY)

    running = asyncio.create_task(run())
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        show("")


def line(done: int, total: int, rate: float) -> str:
    """A bar, its numbers and the time that remains; at most 65 columns."""
    if not total:
        return "reading lists"
    bar = "#" * (_WIDTH * done // total)
    seconds = (total - done) / rate
    rest = f", {Duration(max(1, round(seconds)))} left" if seconds >= 1 else ""
    return f"[{bar:.<{_WIDTH}}] {done:,} of {total:,} instances{rest}"
