"""Waits for something that another task brings about."""

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], object], deadline: float = 5.0) -> None:
    """Return once the condition holds.

    Raises:
        TimeoutError: it doesn't within `deadline` seconds.
    """
    async with asyncio.timeout(deadline):
        while not condition():  # noqa: ASYNC110 (the condition has no event)
            await asyncio.sleep(0)
