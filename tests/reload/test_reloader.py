"""The reloader by itself: what it does when the exporter has a fault."""

import asyncio

from structlog.testing import capture_logs

from exporter.config.reload import Reloader
from exporter.config.settings import Settings

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
