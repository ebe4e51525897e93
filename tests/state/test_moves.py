"""What moves from one replica to another doesn't hold up the rest."""

import asyncio
from typing import Any

import httpx
import psycopg
import pytest
from pydantic import SecretStr

from exporter.app import App
from exporter.clock import Clock
from exporter.config.settings import Settings
from exporter.state.backend import Server
from simulator import ManualClock, Script, Simulator, Sleep, World
from tests.postgres import PostgresServer
from tests.waiting import DEADLINE

LARGE = 50_000
"""Instances."""


@pytest.mark.postgres
@pytest.mark.slow
async def test_a_large_workflow_holds_up_neither_others_nor_turns(postgres: PostgresServer) -> None:
    url = postgres.url(postgres.new_database())
    clock = ManualClock()
    simulator = Simulator(World(clock))
    simulator.access.token("secret")
    workflows = [{"name": name, "discover": {"min_age": "0s"}} for name in ("large", "small")]
    account = {"name": "acc", "account_id": "acc", "api_token": "secret", "workflows": workflows}
    settings = Settings.model_validate({"accounts": [account]})

    def replica() -> App:
        return App(
            settings,
            transport=httpx.ASGITransport(simulator),
            clock=Clock(wall=clock, monotonic=clock),
            state=Server(SecretStr(url), None, DEADLINE),
        )

    for name in ("large", "small"):
        simulator.world.account("acc").workflow(name).create("a", Script((Sleep("nap", 86_400),)))
    clock.advance(60)
    async with replica().opened() as former:
        await former.accounts[0].cycle()
        await former.writer.save()
    await asyncio.to_thread(multiply, url)

    app = replica()
    await app.writer.open(Server(SecretStr(url), None, DEADLINE))
    starting = asyncio.create_task(app.apply(settings))
    turns_while_small_alone, attached = 0, dict[str, Any]()
    while not starting.done():
        await app.writer.save()
        await asyncio.sleep(0.1)  # turns without a pause would take most of the time
        attached = app.accounts[0].roster.attached if app.accounts else {}
        turns_while_small_alone += (
            attached.keys() == {"small"} and b'"small"' in (app.exposition.render()[0])
        )
    await starting
    assert turns_while_small_alone > 1
    assert len(attached["large"].state.instances) == LARGE + 1
    await app.writer.close()


def multiply(url: str) -> None:
    """Has the state hold many instances like the one of the large workflow."""
    with psycopg.connect(url) as database:
        for statement in (
            "CREATE TEMP TABLE many AS SELECT instances.*, n FROM instances, "
            f"generate_series(1, {LARGE}) AS n WHERE workflow = 'large'",
            "UPDATE many SET id = id || n",
            "ALTER TABLE many DROP n",
            "INSERT INTO instances SELECT * FROM many",
        ):
            database.execute(statement.encode())
