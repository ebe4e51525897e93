"""Two replicas on one database against the model of what the responses said.

Each replica polls, commits and takes its turns when the rules say so; in between it stands still. A
replica may be killed, stopped, or not get round to renewing its leases in time, whatever the other
does meanwhile. What it received of a workflow and hadn't committed when it lost the lease, it never
counts; what either has committed is never taken back, counted again, or shown by both.
"""

import re
from collections import Counter
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule, run_state_machine_as_test
from pydantic import SecretStr

from exporter.app import App
from exporter.clock import Clock
from exporter.config.settings import Settings
from exporter.state.backend import DatabaseServer
from simulator import Script
from tests.postgres import PostgresServer
from tests.state import backends
from tests.state.test_model import (
    IDS,
    SCRIPTS,
    SELECTED,
    Received,
    RecordingTransport,
    Thing,
    Upstream,
    counts,
    fetched,
    truth,
)
from tests.waiting import DEADLINE

BILLED = ("x", "y")
"""Instances of a second workflow: there is one to give up when a replica joins."""
WORKFLOWS = {"orders": IDS, "billing": BILLED}
LEASE = 3600
"""Seconds. The database's own clock hardly moves beside it; the rules move it on."""
WHICH = st.sampled_from([0, 1])
TABLES = ("workflows", "instances", "series", "replicas", "leases", "budgets")


class Replicas(Upstream):
    """Two replicas of the same name that share two workflows."""

    url: str
    database: psycopg.Connection[Any]

    def __init__(self) -> None:
        super().__init__()
        self.billing = self.simulator.world.account("acc").workflow("billing")
        self.committed = Received()
        self.shown: dict[str, Counter[Thing]] = {name: Counter() for name in WORKFLOWS}
        self.selected: dict[str, Any] = {"discover": {}}
        self.apps: list[App] = []
        self.killed: list[App] = []
        self.transports: dict[App, RecordingTransport] = {}
        """What each replica received since its last commit."""

    @initialize(selected=SELECTED)
    def begin(self, selected: dict[str, Any]) -> None:
        self.database.execute(f"TRUNCATE {', '.join(TABLES)}".encode())
        # What ended before instances were first discovered would be history.
        self.apps = [self.started(), self.started()]
        for which in (0, 1):
            self.reload(which, selected)

    def settings(self) -> Settings:
        orders, billing = {"name": "orders", **self.selected}, {"name": "billing", "discover": {}}
        account = {"name": "acc", "account_id": "acc", "api_token": "secret"}
        return Settings.model_validate(
            {
                "accounts": [{**account, "workflows": [orders, billing]}],
                "api": {"url": "http://localhost/client/v4/accounts/{account_id}"}
                # Enough for what is left of a share that halves while no turns are taken.
                | {"requests_per_5m": 10**60},
                "poll": {"interval": "15s", "detail_refresh": "1m", "forget_after": "1m"},
                "state": {"url": self.url},
                "replica": {"name": "exporter", "lease": f"{LEASE}s"},
            }
        )

    def started(self) -> App:
        async def started() -> App:
            location = DatabaseServer(SecretStr(self.url), None, DEADLINE)
            app = App(
                self.settings(),
                clock=Clock(wall=self.clock, monotonic=self.clock),
                transport=transport,
                state=location,
            )
            # Without the loop that saves: when that happens, the rules decide.
            await app.writer.open(location)
            await app.watched.apply(self.settings())
            return app

        self.share_budget()
        transport = RecordingTransport(self.simulator)
        app = self.do(started())
        self.transports[app] = transport
        return app

    def share_budget(self) -> None:
        """Whose turn is next has all of the budget: nobody would wait for the clock in hand."""
        self.database.execute(b"DELETE FROM budgets")

    def holders(self) -> dict[str, str | None]:
        """Who holds each workflow, as the database has it."""
        rows = self.database.execute(b"SELECT workflow, holder FROM leases").fetchall()
        return dict.fromkeys(WORKFLOWS) | dict(rows)

    def before_its_turn(self, app: App) -> None:
        """What a replica received of a workflow that it lost meanwhile counts for nothing."""
        self.share_budget()
        holders, received = self.holders(), self.transports[app].received
        for things in (received.full, received.all):
            for thing in list(things):
                if holders[workflow_of(thing)] != app.leases.replica.id:
                    del things[thing]

    def commit(self, app: App) -> None:
        """A replica has committed what it received."""
        received = self.transports[app].received
        self.committed = Received(
            received.full | self.committed.full, received.all | self.committed.all
        )
        self.transports[app].received = Received()

    @rule(instance_id=st.sampled_from(BILLED), script=st.sampled_from(SCRIPTS))
    def create_billed(self, instance_id: str, script: Script) -> None:
        if self.billing.get(instance_id, self.simulator.world.settle()) is None:
            self.clock.advance(2)
            self.billing.create(instance_id, script)

    @rule()
    def leases_run_out(self) -> None:
        """Of all replicas, unless one renews them before another takes them."""
        self.clock.advance(LEASE)
        self.database.execute(
            b"UPDATE replicas SET expires = expires - make_interval(secs => %s)", (LEASE,)
        )
        self.check()

    @rule(which=WHICH)
    def poll(self, which: int) -> None:
        async def polled() -> None:
            for account in app.accounts:
                await account.list_passes()
            for poller in app.pollers:
                await poller.round(whole=True)

        app = self.apps[which]
        self.clock.advance(15)
        self.before_its_turn(app)
        self.do(polled())
        self.check()

    @rule(which=WHICH)
    def save(self, which: int) -> None:
        async def saved() -> None:
            await app.writer.save()
            for account in app.accounts:
                await account.workflows.reconcile()

        app = self.apps[which]
        self.before_its_turn(app)
        self.do(saved())
        self.commit(app)
        self.check()

    @rule(which=WHICH)
    def poll_and_save(self, which: int) -> None:
        self.poll(which)
        self.save(which)

    @rule(which=WHICH, selected=SELECTED)
    def reload(self, which: int, selected: dict[str, Any]) -> None:
        self.selected = selected
        self.before_its_turn(self.apps[which])
        self.do(self.apps[which].watched.apply(self.settings()))
        self.commit(self.apps[which])
        self.save(which)

    @rule(which=WHICH)
    def stop(self, which: int) -> None:
        app = self.apps[which]
        self.before_its_turn(app)
        self.do(app.writer.close())
        self.commit(app)
        self.apps[which] = self.started()
        self.check()

    @rule(which=WHICH)
    def kill(self, which: int) -> None:
        self.killed.append(self.apps[which])
        self.apps[which] = self.started()
        self.check()

    def check(self) -> None:
        """What is counted is what was received finished and committed, each thing once, by one."""
        bodies = [app.exposition.render()[0] for app in self.apps]
        for workflow in WORKFLOWS:
            mine = f'runs_finished_total{{account="acc",workflow="{workflow}"'.encode()
            shown = [body for body in bodies if mine in body]
            assert len(shown) <= 1, "two replicas show counts of one workflow"
            for body in shown:
                counted = counts(body, workflow)
                seen = self.of(workflow, self.committed.all)
                assert counted <= seen, "counted twice, or not seen"
                full = self.of(workflow, self.committed.full)
                assert skipped(body, workflow) or counted >= full, "seen, not counted"
                assert not self.shown[workflow] - counted, "a counter went back"
                self.shown[workflow] = counted

    @staticmethod
    def of(workflow: str, things: dict[Thing, Thing]) -> Counter[Thing]:
        return Counter(c for thing, c in things.items() if workflow_of(thing) == workflow)

    @rule()
    def when_quiet_all_is_seen(self) -> None:
        """Without failures a replica holds each workflow, and sees all there is of it."""
        self.simulator.faults.clear()
        self.leases_run_out()
        for which in (0, 1):
            self.reload(which, self.selected)
        for _ in range(6):
            for which in (0, 1):
                self.save(which)
        assert set(self.holders().values()) == {app.leases.replica.id for app in self.apps}
        for seconds in (60, 600):
            self.clock.advance(seconds)
            for which in (0, 1):
                self.poll_and_save(which)
        bodies = [app.exposition.render()[0] for app in self.apps]
        for workflow, ids in WORKFLOWS.items():
            mine = f'runs_finished_total{{account="acc",workflow="{workflow}"'.encode()
            (body,) = (body for body in bodies if mine in body)
            discovered = workflow == "billing" or "discover" in self.selected
            for instance_id in ids if discovered else self.selected["instances"]:
                result = truth(self.simulator, instance_id, workflow)
                if result is None or skipped(body, workflow):
                    continue
                found = fetched(instance_id, result, body)
                assert found.keys() <= self.committed.full.keys()

    def teardown(self) -> None:
        for app in (*self.apps, *self.killed):
            self.do(app.writer.close())
        super().teardown()


def workflow_of(thing: Thing) -> str:
    return "billing" if thing[1] in BILLED else "orders"


def skipped(body: bytes, workflow: str) -> bool:
    """Whether a run was dropped of which no detail response came: its steps, which a later one
    shows, are history."""
    found = re.search(rf'details_skipped_total{{.*"{workflow}"}} (\d+)'.encode(), body)
    assert found
    return found[1] != b"0"


@pytest.mark.postgres
@pytest.mark.slow(40)
@pytest.mark.parametrize("part", [1, 2], ids="part {}".format)
def test_two_count_what_they_have_seen_finished_and_recorded(
    part: int, postgres: PostgresServer
) -> None:
    """In parts, each with its share of the examples, which workers run side by side."""
    url = postgres.new_url()
    backends.postgres(url).close()  # makes the tables
    with psycopg.connect(url, autocommit=True) as database:
        Replicas.url, Replicas.database = url, database
        run_state_machine_as_test(
            Replicas,
            settings=settings(
                max_examples=settings().max_examples // 10,
                stateful_step_count=50,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
