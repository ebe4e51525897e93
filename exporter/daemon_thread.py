"""Runs what can't be interrupted: whoever waits for it may stop waiting, and the process ends
without it."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def in_daemon_thread(act: Callable[..., T], *arguments: object) -> Future[T]:
    """What a function returns or raises, in a thread of its own."""
    result = Future[T]()
    result.set_running_or_notify_cancel()  # it can't be cancelled

    def run() -> None:
        try:
            result.set_result(act(*arguments))
        except BaseException as error:
            result.set_exception(error)

    Thread(target=run, daemon=True).start()
    return result
