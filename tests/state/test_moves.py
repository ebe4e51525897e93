"""What moves from one replica to another does so soon, and doesn't hold up the rest."""

import asyncio
from typing import Any

import httpx
import psycopg
import pytest
from pydantic import SecretStr

from exporter.app import App
from exporter.clock import Clock
from exporter.config.accounts import Discover, Workflow
from exporter.config.metrics import Metrics
from exporter.config.settings import Settings
from exporter.metrics import catalogue
from exporter.metrics.catalogue import WorkflowKey
from exporter.metrics.store import Store
from exporter.state.access import READS_AT_ONCE, StateAccess
from exporter.state.backend import DatabaseServer, NotRestored
from simulator import ManualClock, Script, Simulator, Sleep, World
from tests.e2e.scrape import scrape, value
from tests.postgres import PostgresServer
from tests.state.backends import turn
from tests.waiting import DEADLINE, until

pytestmark = pytest.mark.postgres

LARGE = 20_000
"""Instances."""


SETTINGS = Settings.model_validate(
    {
        "accounts": [
            {
                "name": "acc",
                "account_id": "acc",
                "api_token": "secret",
                "workflows": [
                    {"name": name, "discover": {"min_age": "0s"}} for name in ("large", "small")
                ],
            }
        ]
    }
)


class Replicas:
    """Of one database and one simulator."""

    def __init__(self, url: str) -> None:
        self.location = DatabaseServer(SecretStr(url), None, DEADLINE)
        self.clock = ManualClock()
        self.simulator = Simulator(World(self.clock))
        self.simulator.access.token("secret")
        for name in ("large", "small"):
            workflow = self.simulator.world.account("acc").workflow(name)
            workflow.create("a", Script((Sleep("nap", 86_400),)))
        self.clock.advance(60)

    def another(self) -> App:
        return App(
            SETTINGS,
            transport=httpx.ASGITransport(self.simulator),
            clock=Clock(wall=self.clock, monotonic=self.clock),
            state=self.location,
        )

    async def started(self, settings: Settings = SETTINGS) -> App:
        """Another one that takes turns, and watches what these settings name."""
        app = self.another()
        await app.writer.open(self.location)
        await app.watched.apply(settings)
        return app


async def test_what_a_replica_gives_up_as_it_stops_is_taken_at_the_next_turn(
    postgres: PostgresServer,
) -> None:
    replicas = Replicas(postgres.new_url())
    former, heir = await replicas.started(), await replicas.started()
    assert not heir.leases.held
    await former.writer.close()
    await heir.writer.turn()
    assert heir.leases.held.keys() == {("acc", "large"), ("acc", "small")}
    await heir.writer.close()


async def test_what_its_holder_finds_deleted_is_no_other_s_to_hold(
    postgres: PostgresServer,
) -> None:
    replicas = Replicas(postgres.new_url())
    account = SETTINGS.accounts[0].model_copy(
        update={"workflows": [Workflow(name="*", discover=Discover())]}
    )
    api = SETTINGS.api.model_copy(update={"requests_per_5m": 100_000})
    settings = SETTINGS.model_copy(update={"accounts": [account], "api": api})
    both = await replicas.started(settings), await replicas.started(settings)

    async def turns() -> None:
        for app in both * 4:
            await app.writer.save()
            await app.accounts[0].workflows.reconcile()
        replicas.clock.advance(31)  # the list of workflows is read every 30 s
        for app in both:
            await app.accounts[0].list_passes()

    await turns()
    await turns()
    (deleted,) = both[0].accounts[0].workflows.attached
    del replicas.simulator.world.account("acc").workflows[deleted]
    for _ in range(3):
        await turns()
    for app in both:
        assert deleted not in app.accounts[0].workflows.wanted
        assert app.leases.unheld == 0
        await app.writer.close()


async def test_what_is_given_up_while_it_is_restored_is_not_shown(
    postgres: PostgresServer,
) -> None:
    url, owner = postgres.new_url(), ("acc", "small")
    replicas = Replicas(url)
    async with replicas.another().opened() as former:
        await former.accounts[0].list_passes()
    app, heir = replicas.another(), replicas.another()
    await app.writer.open(replicas.location)
    app.leases.wanted["acc"] = heir.leases.wanted["acc"] = [owner, ("acc", "large")]
    await app.writer.turn()
    await heir.writer.open(replicas.location)
    with psycopg.connect(url) as other:
        other.execute("LOCK TABLE series")
        restoring = asyncio.create_task(app.writer.restore(WorkflowKey(*owner), owner))
        await asyncio.sleep(0)
        await app.writer.turn()  # sees the heir, which is to have half
        turning = asyncio.create_task(app.writer.turn())  # gives up what is not shown
        await asyncio.sleep(0)
    with pytest.raises(NotRestored):
        await restoring
    await turning
    await heir.writer.turn()
    assert owner in heir.leases.held
    assert b'"small"' not in app.exposition.render()[0]
    for replica in (app, heir):
        await replica.writer.close()


async def test_one_that_stops_takes_only_its_last_turn(postgres: PostgresServer) -> None:
    """On a slow database, each takes seconds, and the process is killed if it takes too long."""
    url = postgres.new_url()
    app = await Replicas(url).started()
    await app.writer.save()
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("CREATE TABLE done (what text)")
        other.execute(
            "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN INSERT INTO done VALUES (TG_OP); RETURN NULL; END $$"
        )
        other.execute(
            "CREATE TRIGGER noted AFTER UPDATE OR DELETE ON replicas "
            "FOR EACH ROW EXECUTE FUNCTION note()"
        )
        await app.writer.leave()
        assert other.execute("SELECT what FROM done").fetchall() == [("UPDATE",), ("DELETE",)]
    await app.writer.close()


async def test_what_was_read_before_another_replica_held_it_is_not_used(
    postgres: PostgresServer,
) -> None:
    """A read may wait for many others; meanwhile a machine that was suspended loses its leases, and
    gets them back."""
    replicas, owner = Replicas(postgres.new_url()), ("acc", "small")
    async with replicas.another().opened() as app:
        reading = asyncio.create_task(app.writer.records(owner, ["a"]))
        await asyncio.sleep(0)
        app.leases.held = {**app.leases.held, owner: app.leases.held[owner] + 2}
        with pytest.raises(NotRestored):
            await reading


async def test_a_database_too_slow_to_renew_leases_is_reported(postgres: PostgresServer) -> None:
    url = postgres.new_url()
    replicas = Replicas(url)
    app = await replicas.started()
    with psycopg.connect(url) as other:
        other.execute("LOCK TABLE leases")
        saving = asyncio.create_task(app.writer.save())
        await until(lambda: app.writer.writes_since is not None)
        replicas.clock.advance(120)
        stalled = app.health.unhealthy()
    assert await saving, "it was committed all the same"
    assert app.writer.problem == "the database is slow: a commit and a turn took more than 15 s"
    assert not [what for what in stalled if what.startswith("state")], "a restart helps nobody"
    assert await app.writer.save()
    assert value(scrape(app), catalogue.STATE_WRITE_ERRORS.name) == 1
    assert not app.writer.problem
    await app.writer.close()


async def test_a_turn_that_fails_is_reported_by_the_next_save(postgres: PostgresServer) -> None:
    """Nor does it end the task that saves, which takes turns only, while a reload is under way."""
    url = postgres.new_url()
    app = await Replicas(url).started()
    with psycopg.connect(url) as other:
        other.execute("UPDATE budgets SET ledger = 'damaged'")
    await app.writer.turn()
    assert not await app.writer.save()
    assert "malformed" in app.writer.problem
    await app.writer.close()


async def test_a_long_reload_does_not_cost_the_leases(postgres: PostgresServer) -> None:
    replicas = Replicas(postgres.new_url())
    async with replicas.another().opened() as app, app.writer.saving:  # as in a reload
        before = app.leases.proven_until
        replicas.clock.advance(20)
        await until(lambda: app.leases.proven_until > before + 19)


@pytest.mark.slow
async def test_a_large_workflow_holds_up_neither_others_nor_turns(postgres: PostgresServer) -> None:
    url = postgres.new_url()
    replicas = Replicas(url)
    async with replicas.another().opened() as former:
        await former.accounts[0].list_passes()
        await former.writer.save()
    await asyncio.to_thread(multiply, url)

    app = replicas.another()
    await app.writer.open(replicas.location)
    starting = asyncio.create_task(app.watched.apply(SETTINGS))
    turns_while_small_alone, attached = 0, dict[str, Any]()
    while not starting.done():
        await app.writer.save()
        await asyncio.sleep(0.1)  # turns without a pause would take most of the time
        attached = app.accounts[0].workflows.attached if app.accounts else {}
        turns_while_small_alone += (
            attached.keys() == {"small"} and b'"small"' in (app.exposition.render()[0])
        )
    await starting
    assert turns_while_small_alone > 1
    assert len(attached["large"].watched.instances) == LARGE + 1
    await app.writer.close()


async def test_a_turn_waits_for_few_of_the_reads_of_many_workflows(
    postgres: PostgresServer,
) -> None:
    access, ended = StateAccess(Store(Metrics())), list[str]()

    async def read(name: str) -> None:
        await access.records("workflows", ("acc", name))
        ended.append(name)

    await access.open(DatabaseServer(SecretStr(postgres.new_url()), None, DEADLINE))
    reads = [asyncio.create_task(read(str(number))) for number in range(5 * READS_AT_ONCE)]
    await asyncio.sleep(0)  # so that all of them wait
    await access.in_thread(turn, access.backend)
    assert len(ended) <= READS_AT_ONCE
    await asyncio.gather(*reads)
    access.close()


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
