"""Runs what can't be interrupted in a thread that nobody has to wait for, not even the process when
it ends."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def in_daemon_thread(act: Callable[..., T], *arguments: object) -> Future[T]:
    """Calls a function in a thread of its own. The result is what it returns or raises."""
    result = Future[T]()
    result.set_running_or_notify_cancel()  # it can't be cancelled

    def run() -> None:
        try:
            result.set_result(act(*arguments))
        except BaseException as error:
            result.set_exception(error)

    Thread(target=run, daemon=True).start()
    return result
