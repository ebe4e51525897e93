"""How far `--once` is, as a bar on a terminal."""

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
"""Looks that were made, those that are known to be needed, and how many a second there may be."""


@contextlib.asynccontextmanager
async def progress(count: Count, stream: TextIO) -> AsyncIterator[None]:
    """Shows a bar for as long as the context lasts, if `stream` is a terminal; then it is gone.

    The cursor stays at the line's start, so that a line of the log, which is always longer than
    the bar, takes its place.
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
    """A bar, its figures and the time that is left; at most 65 columns."""
    if not total:
        return "reading lists"
    bar = "#" * (_WIDTH * done // total)
    left = (total - done) / rate
    rest = f", {Duration(max(1, round(left)))} left" if left >= 1 else ""
    return f"[{bar:.<{_WIDTH}}] {done:,} of {total:,} instances{rest}"
