"""Servers in threads of their own, for programs that have no event loop."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

T = TypeVar("T")


@contextlib.contextmanager
def in_thread(
    running: AbstractAsyncContextManager[T],
) -> Iterator[tuple[T, asyncio.AbstractEventLoop]]:
    """Runs a server in a thread of its own.

    Yields what its context manager does, and the thread's event loop, which takes calls from other
    threads (`call_soon_threadsafe`).
    """
    ready = Future[T]()
    loop, stop = asyncio.new_event_loop(), asyncio.Event()

    async def run() -> None:
        try:
            async with running as found:
                ready.set_result(found)
                await stop.wait()
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
    thread.start()
    try:
        yield ready.result(), loop
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
