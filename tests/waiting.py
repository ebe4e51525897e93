"""How tests wait for what comes in its own time, and for how long at most."""

import asyncio
import time
from collections.abc import Callable

DEADLINE = 300.0
"""Seconds in which whatever a test waits for must come about, however busy the machine is: a limit
that costs nothing as long as all is well. It is the only one."""


def wait_until(
    condition: Callable[[], object], what: Callable[[], str], *, every: float = 0.2
) -> None:
    """Returns once the condition holds. It is checked `every` that many seconds, at first more
    often: to check may take more of the machine than what is waited for.

    Raises:
        AssertionError: it doesn't in time; `what` describes what there is instead.
    """
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        assert waited < DEADLINE, f"not within {DEADLINE} s: {what()}"
        time.sleep(min(every, 0.01 + waited / 10))


async def until(condition: Callable[[], object]) -> None:
    """Returns once the condition holds, while the event loop runs.

    Raises:
        TimeoutError: it doesn't in time.
    """
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


def tied(*command: str, signal: str = "KILL") -> list[str]:
    """A command whose process gets a signal when the thread that starts it ends, as it does when
    the test run is killed."""
    return ["setpriv", f"--pdeathsig={signal}", *command]
