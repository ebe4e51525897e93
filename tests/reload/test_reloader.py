"""The reloader by itself."""

import asyncio
import os
from pathlib import Path

from structlog.testing import capture_logs

from benchmarks import virtual_time
from exporter.config.errors import ConfigError
from exporter.config.reload import Reloader
from exporter.config.settings import Config, Settings
from exporter.config.units import Duration
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


def test_a_file_that_came_before_what_it_names_is_reloaded_until_that_is_there() -> None:
    """As a ConfigMap that names a new file of a Secret, whose volume is updated later."""
    found = [["a: missing"], ["a: missing"], ["b: missing"], []]

    async def main() -> list[str]:
        loaded = asyncio.Event()

        def load() -> Settings:
            if problems := found.pop(0):
                raise ConfigError(*problems)
            return every_second

        async def apply(_: Settings) -> None:
            loaded.set()

        async def failed() -> None: ...

        every_second = SETTINGS.model_copy(
            update={"config": Config(auto_reload_interval=Duration(1))}
        )
        reloader = Reloader(load, None, every_second, apply, failed)
        with capture_logs() as logs:
            running = asyncio.create_task(reloader.run())
            reloader.asked.set()
            async with asyncio.timeout(60):
                await loaded.wait()
            running.cancel()
        return [line.get("problems", line["event"]) for line in logs]

    logged = virtual_time.run(main())
    assert logged == ["a: missing", "b: missing", "configuration reloaded"]
