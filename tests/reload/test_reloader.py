"""The reloader by itself."""

import asyncio
import os
from pathlib import Path

from structlog.testing import capture_logs

from exporter.config.reload import Reloader
from exporter.config.settings import Settings
from exporter.daemon_thread import in_daemon_thread
from tests.waiting import DEADLINE

SETTINGS = Settings.model_validate(
    {
        "accounts": [
            {
                "account_id": "acc",
                "api_token": "secret",
                "workflows": [{"name": "orders", "instances": ["order-1"]}],
            }
        ]
    }
)


async def test_a_fault_is_reported_and_the_next_reload_succeeds() -> None:
    applied, failures = asyncio.Event(), list[str]()

    async def apply(_: Settings) -> None:
        if not failures:
            raise ZeroDivisionError
        applied.set()

    async def failed() -> None:
        failures.append("failed")
        reloader.asked.set()

    reloader = Reloader(lambda: SETTINGS, None, SETTINGS, apply, failed)
    with capture_logs() as logs:
        running = asyncio.create_task(reloader.run())
        reloader.asked.set()
        done = asyncio.create_task(applied.wait())
        await asyncio.wait([running, done], return_when=asyncio.FIRST_COMPLETED)
        running.cancel()
    assert applied.is_set()
    assert failures == ["failed"]
    assert "a fault of the exporter" in logs[0]["event"]


def test_a_file_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    async def nothing(*_: Settings) -> None: ...

    os.mkfifo(pipe := tmp_path / "pipe")
    made = in_daemon_thread(Reloader, lambda: SETTINGS, pipe, SETTINGS, nothing, nothing)
    made.result(DEADLINE)
