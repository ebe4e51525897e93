"""What outlives a restart: every count, and what of each run was counted already."""

import asyncio
import contextlib
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from exporter.app import App
from exporter.clock import Clock
from exporter.config.errors import ConfigError
from exporter.state.backend import TABLES, DatabaseServer, InUse, Location
from simulator import (
    Attempt,
    Error,
    Script,
    Sleep,
    Step,
    Wait,
    error,
    retried,
    steps,
)
from tests import disk
from tests.postgres import PostgresServer
from tests.waiting import DEADLINE, until
from tests.watching import Watching, watching

RUN = Script((*steps("fetch", "store"), retried("charge", failures=2), Sleep("nap", 30)))
"""Steps, retries with pauses that grow, and a sleep: a minute or two in all."""

DISCOVERED = [{"name": "orders", "discover": {}}]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def state(request: pytest.FixtureRequest, file: Path) -> Location:
    """A state file, or a database; tests of what takes long have the file alone."""
    if request.param == "sqlite":
        return file
    server: PostgresServer = request.getfixturevalue("postgres")
    return DatabaseServer(SecretStr(server.new_url()), None, DEADLINE)


def counts(w: Watching) -> dict[str, float]:
    """Counters and histograms, and what of them isn't 0."""
    return {
        series: value
        for series, value in w.values().items()
        if value and ("_total{" in series or "_bucket{" in series or "_sum{" in series)
    }


async def test_a_status_not_known_today_falls_to_zero_after_a_restart(file: Path) -> None:
    async with watching(workflows=DISCOVERED, state=file) as w:
        a = w.orders.create("a")
        a.force_status("hibernating")
        await w.cycle()
        await w.restart()
        a.force_status(None, w.clock() + 1)
        await w.cycle(after=60)
        for family in ("instances", "watched_instances"):
            assert w.value(f"cloudflare_workflow_{family}", status="hibernating") == 0


def runs(w: Watching, status: str = "complete") -> float | None:
    """Runs that were counted."""
    return w.value("cloudflare_workflow_runs_finished_total", status=status)


def gauges(w: Watching) -> dict[str, float]:
    """Of instances."""
    return {s: v for s, v in w.values().items() if s.startswith("cloudflare_workflow_instance_")}


def ids(state: Location) -> set[str]:
    """Instances of which the state holds anything."""
    query = "SELECT id FROM instances"
    if isinstance(state, DatabaseServer):
        with psycopg.connect(state.url.get_secret_value()) as connection:
            return {row[0] for row in connection.execute(query)}
    with contextlib.closing(sqlite3.connect(state or "")) as file:
        return {row[0] for row in file.execute(query)}


def owners(state: Path) -> set[str]:
    """Accounts of which the file holds anything."""
    query = "SELECT account FROM workflows UNION SELECT account FROM series"
    with contextlib.closing(sqlite3.connect(state)) as connection:
        return {row[0] for row in connection.execute(query)}


class TestNothingHappened:
    async def test_everything_is_as_it_was_before_the_first_call(self, state: Location) -> None:
        async with watching(["a"], state=state) as w:
            w.orders.create("a", RUN)
            await w.round(after=5)
            before = w.values()
            assert gauges(w)
            assert counts(w)
            await w.restart()
            assert w.values() == before

    async def test_so_is_what_a_glob_had_found(self, state: Location) -> None:
        """Though the list of workflows can't be read."""
        async with watching(workflows=[{"name": "o*", "discover": {}}], state=state) as w:
            w.orders.create("a", RUN)
            for _ in range(2):
                await w.cycle(after=20)
            before = {**counts(w), **gauges(w)}
            w.simulator.faults.add(error(500))
            await w.restart()
            assert {**counts(w), **gauges(w)} == before
            await w.cycle(after=15)
            assert counts(w).items() <= before.items()
            assert w.value("cloudflare_workflow_up") == 0
            assert w.status("a") is not None

    async def test_the_exporters_own_counters_begin_at_zero(self, state: Location) -> None:
        def details() -> float | None:
            name = "cloudflare_workflows_exporter_polls_total"
            return w.value(name, kind="detail", result="success")

        async with watching(["a"], state=state) as w:
            w.orders.create("a", RUN)
            await w.round(after=5)
            assert details() == 1
            await w.restart()
            assert details() == 0

    async def test_an_exporter_that_ended_with_an_error_saved_its_counts(
        self, state: Location
    ) -> None:
        async def fail() -> None:
            await w.app.pollers[0].round(whole=True)
            raise ArithmeticError("unexpected")

        async with watching(["a"], state=state) as w:
            w.orders.create("a", Script(steps("fetch")))
            w.clock.advance(60)
            with pytest.raises(ArithmeticError):
                async with w.running:
                    await fail()
            await w.start()
            assert runs(w) == 1

    async def test_an_instance_at_rest_costs_no_detail_request(self, state: Location) -> None:
        async with watching(["a"], state=state) as w:
            w.orders.create("a", Script((Wait("approval"),)))
            await w.round(after=5)
            await w.restart()
            assert await w.round(after=15) == {"simple": 1}

    async def test_nothing_is_written_again(self, state: Location) -> None:
        async with watching(["a", "b"], state=state) as w:
            w.orders.create("a", Script((Wait("approval"),)))
            w.orders.create("b", RUN)
            await w.round(after=600)
            await w.running.aclose()
            settings = w.whole_settings()
            app = App(settings, clock=Clock(wall=w.clock, monotonic=w.clock), state=state)
            await app.writer.open(state)
            await app.watched.apply(settings)
            assert not app.pollers[0].watched.changed
            await app.writer.close()


@pytest.mark.slow(6)
async def test_scrapes_see_what_is_restored_so_far(file: Path) -> None:
    ids = [f"order-{n}" for n in range(1000)]
    async with watching(ids, state=file) as w:
        for name in ids:
            w.orders.create(name, Script((Wait("approval"),)))
        await w.round(after=5)
        await w.running.aclose()

        async def start(state: Path) -> bool:
            """Whether scrapes saw some of the instances while others were to come."""
            settings, shown = w.whole_settings(), list[int]()
            w.app = App(settings, clock=Clock(wall=w.clock, monotonic=w.clock), state=state)
            await w.app.writer.open(state)
            restoring = asyncio.create_task(w.app.watched.apply(settings))
            while not restoring.done():
                await w.saved()
                shown.append(len(w.shown()))
                assert w.app.health.unready()
            await w.saved()
            assert shown == sorted(shown)
            assert w.shown() == set(ids)
            await w.app.writer.close()
            return any(0 < count < len(ids) for count in shown)

        # On a busy machine all may be restored while one save is under way.
        for n in range(10):
            copy = file.with_name(f"start-{n}.db")
            shutil.copy(file, copy)
            if some := await start(copy):
                break
        assert some


class TestAfterAStop:
    """A stop leaves the same to restore as a kill."""

    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"metrics": {"instance_status": "current"}},
            {"metrics": {"instance_series": "unfinished"}},
            {"account": "renamed"},
            {"workflows": [{"name": "orders", "instances": ["b", "d"]}]},
            {"workflows": [{"name": "orders", "instances": ["a"], "discover": {"exclude": ["c"]}}]},
        ],
        ids=str,
    )
    async def test_the_same_is_shown(self, tmp_path: Path, settings: dict[str, Any]) -> None:
        few = {"error_names": {"limit": 1}}
        after = []
        for killed in (False, True):
            state = tmp_path / f"{killed}.db"
            async with watching(["a", "b", "c"], state=state, metrics=few) as w:
                w.orders.create("a", RUN)
                for name in ("b", "c", "d"):
                    w.orders.create(name, Script(steps("fetch"), throws=Error(f"Of{name}")))
                await w.round(after=5)
                await w.round(after=15)
                await w.restart(killed=killed, **settings)
                restored = w.values()
                await w.round(after=15)
                after.append((restored, w.values()))
        assert after[0] == after[1]

    async def test_what_happened_since_a_stop_is_shown(self, state: Location) -> None:
        async with watching(["a", "b"], state=state) as w:
            w.orders.create("a", RUN)
            w.orders.create("b", RUN)
            await w.round(after=5)
            await w.restart()
            await w.round(after=15)
            before = gauges(w)
            await w.restart(killed=True)
            assert gauges(w) == before

    async def test_progress_without_steps_that_was_undone(self, file: Path) -> None:
        large = tuple(Step(f"s{n}", (Attempt(10),), output="x" * 512 * 1024) for n in range(2))
        async with watching(["a"], state=file) as w:
            a = w.orders.create("a", Script((*large, Wait("approval"))))
            await w.round(after=25)
            a.force_status("running", w.clock() + 5)
            assert await w.round(after=15) == {"simple": 1}
            assert w.status("a") == "running"
            await w.restart()
            a.force_status(None, w.clock() + 5)
            await w.round(after=15)
            assert w.status("a") == "waiting"


@pytest.mark.parametrize("killed", [False, True])
class TestCountedOnce:
    @pytest.mark.slow(6)
    async def test_restarted_every_other_second(self, file: Path, killed: bool) -> None:
        async with watching(["a"]) as w:
            w.orders.create("a", RUN)
            await w.round(after=240)
            true = counts(w)
            assert runs(w) == 1
        async with watching(["a"], state=file) as w:
            w.orders.create("a", RUN)
            for _ in range(40):  # twice as long as it takes
                before = counts(w)
                await w.round(after=2)
                shown = counts(w)
                assert {s for s in before if shown.get(s, 0) < before[s]} == set()
                await w.restart(killed=killed)
                assert counts(w) == shown
            assert counts(w) == true

    async def test_hundreds_of_attempts_of_a_step(self, state: Location, killed: bool) -> None:
        charge = retried("charge", failures=200, duration=1, backoff=0)
        often = {"interval": "1s", "detail_refresh": "1s"}
        async with watching(["a"], state=state, poll=often) as w:
            w.orders.create("a", Script((charge, Wait("approval"))))
            attempts = "cloudflare_workflow_step_attempt_duration_seconds_count"
            before = -0.5
            for failures in (63, 64, 150, 200):
                await w.round(after=failures - before)
                before = failures
                assert w.value(attempts, step="charge", outcome="failure") == failures
                await w.restart(killed=killed)
                assert w.value(attempts, step="charge", outcome="failure") == failures

    async def test_what_wasnt_written_is_counted_again(self, state: Location, killed: bool) -> None:
        async with watching(["a"], state=state) as w:
            w.orders.create("a", Script(steps("one")))
            await w.round(after=0.5)
            w.clock.advance(60)
            w.simulator.requests.clear()
            await w.restart(killed=killed)
            assert runs(w) == 0
            await w.round(after=15)
            assert runs(w) == 1

    async def test_what_a_save_had_begun_to_write_that_was_cancelled(
        self, state: Location, killed: bool
    ) -> None:
        """A stop cancels the saves of events, of a reload and of what moves between replicas."""
        async with watching(["a"], state=state) as w:
            w.orders.create("a", Script(steps("one")))
            w.clock.advance(60)
            await w.app.pollers[0].round(whole=True)
            save = asyncio.create_task(w.app.writer.save())
            await until(lambda: w.app.writer.writes_since is not None)
            save.cancel()
            await asyncio.wait([save])
            await w.saved()
            assert runs(w) == 1
            await w.restart(killed=killed)
            assert runs(w) == 1

    async def test_one_whose_polls_failed_all_the_time(self, state: Location, killed: bool) -> None:
        named = [{"name": "orders", "instances": ["a"], "discover": {}}]
        async with watching(workflows=named, state=state, poll={"forget_after": "1m"}) as w:
            w.simulator.faults.add(error(500), instance="a")
            w.orders.create("a", Script(steps("one")))
            for _ in range(20):
                await w.cycle(after=15)
            await w.restart(killed=killed)
            w.simulator.faults.clear()
            await w.cycle(after=15)
            assert runs(w) == 1

    async def test_a_run_that_was_restarted_meanwhile(self, state: Location, killed: bool) -> None:
        async with watching(["a"], state=state) as w:
            order = w.orders.create("a", Script(steps("one")))
            await w.round(after=60)
            await w.restart(killed=killed)
            order.restart()
            await w.round(after=600)
            await w.round(after=600)
            assert runs(w) == 2

    async def test_a_discovered_run_that_began_and_ended_meanwhile(
        self, state: Location, killed: bool
    ) -> None:
        async with watching(workflows=DISCOVERED, state=state) as w:
            await w.cycle()
            await w.cycle(after=15)
            await w.restart(killed=killed)
            w.clock.advance(100)
            w.orders.create("short", Script(steps("one")))
            w.clock.advance(600)
            await w.cycle()
            await w.cycle(after=15)
            assert runs(w) == 1

    @pytest.mark.slow(6)
    async def test_a_discovered_run_that_was_counted_and_forgotten(
        self, file: Path, killed: bool
    ) -> None:
        async with watching(workflows=DISCOVERED, state=file, poll={"forget_after": "1m"}) as w:
            await w.cycle()
            w.orders.create("short", Script(steps("one")))
            for _ in range(8):
                await w.cycle(after=15)
                await w.restart(killed=killed)
                await w.cycle()
            assert runs(w) == 1

    async def test_history_stays_history(self, state: Location, killed: bool) -> None:
        async with watching(["a", "b"], state=state, metrics={"backfill": False}) as w:
            w.orders.create("a", Script(steps("one")), at=w.clock() - 600)
            await w.round()
            await w.restart(killed=killed)
            w.orders.create("b", Script(steps("one")))
            await w.round(after=600)
            assert runs(w) == 1

    async def test_an_error_is_counted_once_and_shown_at_once(
        self, state: Location, killed: bool
    ) -> None:
        async with watching(workflows=DISCOVERED, state=state) as w:
            script = Script(steps("one"), throws=Error("TypeError"))
            w.orders.create("bad", script)
            await w.cycle(after=60)
            await w.restart(killed=killed)
            assert w.status("bad") == "errored"
            await w.cycle(after=15)
            assert runs(w, "errored") == 1


class TestSettingsChange:
    async def test_another_workflow_keeps_what_was_counted(self, state: Location) -> None:
        async with watching(["a"], state=state) as w:
            w.orders.create("a", Script(steps("one")))
            await w.round(after=60)
            before = counts(w)
            w.simulator.world.account("acc").workflow("billing")
            await w.restart(
                workflows=[
                    {"name": "orders", "instances": ["a"]},
                    {"name": "billing", "instances": ["b"]},
                ]
            )
            assert counts(w) == before

    async def test_a_workflow_that_is_left_out_for_a_while(self, state: Location) -> None:
        async with watching(["a"], state=state) as w:
            w.orders.create("a", Script(steps("one")))
            await w.round(after=60)
            before = counts(w)
            orders = w.settings["workflows"]
            await w.restart(workflows=[{"name": "billing", "instances": ["b"]}])
            assert counts(w) == {}
            await w.restart(workflows=orders)
            assert counts(w) == before
            await w.round(after=600)
            assert counts(w) == before

    async def test_for_a_week(self, file: Path) -> None:
        async with watching(["a"], state=file) as w:
            w.orders.create("a", Script(steps("one")))
            await w.round(after=60)
            orders = w.settings["workflows"]
            await w.restart(workflows=[{"name": "billing", "instances": ["b"]}])
            w.clock.advance(8 * 86_400)
            await w.saved()
            await w.restart(workflows=orders)
            assert counts(w) == {}

    async def test_an_account_of_another_name(self, state: Location) -> None:
        async with watching(["a"], state=state) as w:
            w.orders.create("a", Script(steps("one")))
            await w.round(after=60)
            before = counts(w)
            await w.restart(account="production")
            renamed = {s.replace('account="acc"', 'account="production"') for s in before}
            assert counts(w).keys() == renamed
            assert w.status("a") == "complete"

    async def test_an_instance_that_is_no_longer_listed(self, file: Path) -> None:
        async with watching(["a", "b"], state=file) as w:
            w.orders.create("a", Script(steps("one")))
            w.orders.create("b", Script(steps("one")))
            await w.round(after=60)
            before = counts(w)
            await w.restart(workflows=[{"name": "orders", "instances": ["b"]}])
            assert (w.status("a"), w.status("b")) == (None, "complete")
            assert counts(w) == before

    async def test_one_that_the_selector_takes_no_longer(self, state: Location) -> None:
        async with watching(workflows=DISCOVERED, state=state) as w:
            w.orders.create("a", Script((Wait("approval"),)))
            await w.cycle(after=1)
            assert w.status("a") == "waiting"
            await w.restart(workflows=[{"name": "orders", "discover": {"exclude": ["a"]}}])
            await w.cycle(after=15)
            assert w.status("a") is None

    async def test_other_buckets_restart_that_histogram_and_only_that(self, file: Path) -> None:
        async with watching(["a"], state=file) as w:
            w.orders.create("a", Script(steps("one")))
            await w.round(after=60)
            before = counts(w)
            with capture_logs() as logs:
                await w.restart(metrics={"buckets": {"run_duration_seconds": [1, 2]}})
            assert [(e["event"], e["metric"]) for e in logs if "metric" in e] == [
                (
                    "the histogram's buckets have changed; counting from zero",
                    "cloudflare_workflow_run_duration_seconds",
                )
            ]
            run = "cloudflare_workflow_run_duration_seconds"
            assert counts(w) == {s: v for s, v in before.items() if not s.startswith(run)}

    async def test_step_names_are_held_to_their_limit_through_restarts(self, file: Path) -> None:
        names = {"step_names": {"limit": 2}}
        async with watching(["a", "b"], state=file, metrics=names) as w:
            w.orders.create("a", Script(steps("one", "two")))
            await w.round(after=60)
            await w.restart()
            w.orders.create("b", Script(steps("three", "two")))
            await w.round(after=60)
            found = w.samples("cloudflare_workflow_step_duration_seconds_count")
            assert {dict(labels)["step"] for labels in found} == {"one", "two", "other"}


@pytest.mark.postgres
async def test_instances_are_found_while_the_database_fails(postgres: PostgresServer) -> None:
    """Those that it can't hold: where another was counted already, it alone knows."""
    state = DatabaseServer(SecretStr(postgres.new_url()), None, DEADLINE)
    poll = {"forget_after": "1m"}
    waits = Script((*steps("one"), Wait("approval")))
    async with watching(workflows=DISCOVERED, state=state, poll=poll) as w:
        await w.cycle()
        a = w.orders.create("a", waits)
        await w.cycle(after=15)
        await w.reload(workflows=[{"name": "orders", "discover": {"exclude": ["a"]}}])
        await w.reload(workflows=DISCOVERED)
        assert "a" not in w.app.pollers[0].instances
        postgres.stop()
        try:
            w.clock.advance(5)
            w.orders.create("b", waits)
            await w.cycle(after=10)
            assert w.status("b") == "waiting"
            assert w.status("a") is None
        finally:
            postgres.start()
        for _ in range(2):
            await w.cycle(after=15)
        assert w.status("a") == "waiting"
        a.send_event()
        await w.cycle(after=15)
        await w.cycle(after=15)
        assert runs(w) == 1


@pytest.mark.postgres
async def test_an_account_is_renamed_while_the_database_fails(postgres: PostgresServer) -> None:
    state = DatabaseServer(SecretStr(postgres.new_url()), None, DEADLINE)
    async with watching(["a"], state=state) as w:
        w.orders.create("a", Script(steps("one")))
        await w.cycle(after=60)
        postgres.stop()
        try:
            with pytest.raises(ConfigError):
                await w.reload(account="renamed")
        finally:
            postgres.start()
        await w.reload()
        await w.cycle(after=15)
        assert [account.workflows.label for account in w.app.accounts] == ["renamed"]
        assert runs(w) == 1


@pytest.mark.postgres
async def test_a_reload_fails_while_the_database_does(postgres: PostgresServer) -> None:
    """Nothing could be attached again, and alerts on instances would see none."""
    state = DatabaseServer(SecretStr(postgres.new_url()), None, DEADLINE)
    async with watching(["a"], state=state) as w:
        w.orders.create("a", Script((Wait("approval"),)))
        await w.cycle(after=60)
        postgres.stop()
        try:
            with pytest.raises(ConfigError, match=r"state: can't be read now .*reload again"):
                await w.reload(poll={"interval": "20s"})
            await w.round(after=15)
            assert w.status("a") == "waiting"
        finally:
            postgres.start()
        await w.reload(poll={"interval": "20s"})
        assert str(w.app.accounts[0].workflows.settings.poll.interval) == "20s"
        assert w.status("a") == "waiting"


@pytest.mark.postgres
async def test_a_workflow_that_cant_be_restored_is_logged(postgres: PostgresServer) -> None:
    """Without it, nothing is written that could fail."""
    database = postgres.new_database()
    state = DatabaseServer(SecretStr(postgres.url(database)), None, DEADLINE)
    async with watching(["a"], state=state) as w:
        await w.running.aclose()
        postgres.execute(f"REVOKE SELECT ON series FROM {database}", database=database)
        with capture_logs() as logs:
            await w.start()
            await w.reload()
        (line,) = [log for log in logs if log["log_level"] == "warning"]
        assert (line["workflow"], line["error"]) == (
            "orders",
            "permission denied for table series",
        )


@pytest.mark.postgres
@pytest.mark.parametrize("holder", ["this replica", "one before it"])
async def test_a_database_restored_from_a_backup_makes_nothing_count_twice(
    postgres: PostgresServer, holder: str
) -> None:
    """What ended since the backup counts again, from what the counts were then."""
    user = postgres.new_user()
    state = DatabaseServer(SecretStr(postgres.url("postgres", user=user)), None, DEADLINE)
    tables = [*TABLES, "replicas", "leases", "budgets"]
    restored = [f"TRUNCATE {', '.join(f'{user}.{table}' for table in tables)}"]
    restored += [f"INSERT INTO {user}.{table} TABLE {user}.old_{table}" for table in TABLES]
    if holder == "this replica":
        restored += [
            f"INSERT INTO {user}.{table} TABLE {user}.old_{table}"
            for table in ("replicas", "leases", "budgets")
        ]
    restored += [f"SELECT setval('{user}.epochs', 1, false)"]
    async with watching(workflows=DISCOVERED, state=state) as w:
        await w.cycle()
        w.orders.create("a", Script(steps("one")))
        await w.cycle(after=15)
        postgres.execute(
            *(f"CREATE TABLE {user}.old_{table} AS TABLE {user}.{table}" for table in tables),
            f"UPDATE {user}.old_replicas SET expires = expires - interval '1 hour'",
        )
        w.orders.create("b", Script(steps("one")))
        await w.cycle(after=15)
        assert runs(w) == 2
        postgres.execute("; ".join(restored))
        if holder == "one before it":
            await w.saved()  # there is nothing to write
        w.orders.create("c", Script(steps("one")))
        for _ in range(3):
            await w.cycle(after=15)
        assert runs(w) == 3
        await w.restart()
        for _ in range(2):
            await w.cycle(after=15)
        assert runs(w) == 3


class TestWhatIsOldGoes:
    """From the file, too: it holds what is watched, and for a while what was."""

    async def test_an_instance_that_left(self, file: Path) -> None:
        async with watching(["a", "b"], state=file) as w:
            w.orders.create("a", RUN)
            await w.cycle(after=600)
            await w.reload(workflows=[{"name": "orders", "instances": ["b"]}])
            assert "a" in ids(file)
            for _ in range(8):
                await w.cycle(after=86400)
            assert ids(file) == {"b"}

    @pytest.mark.slow(6)
    async def test_an_instance_that_left_while_nothing_ran(self, file: Path) -> None:
        async with watching(["a", "b"], state=file) as w:
            w.orders.create("a", RUN)
            await w.cycle(after=600)
            await w.restart(workflows=[{"name": "orders", "instances": ["b"]}])
            assert "a" in ids(file)
            for _ in range(8):
                await w.cycle(after=86400)
                # None of these has its week begin again.
                await w.restart()
            assert ids(file) == {"b"}

    async def test_the_end_of_one_that_was_forgotten(self, file: Path) -> None:
        async with watching(workflows=DISCOVERED, state=file, poll={"forget_after": "1m"}) as w:
            await w.cycle()
            w.orders.create("a", Script(steps("one")))
            await w.cycle(after=15)
            assert ids(file) == {"a"}
            while w.app.pollers[0].instances:
                await w.cycle(after=15)
            assert ids(file) == set()

    async def test_an_id_that_no_instance_ever_had(self, state: Location) -> None:
        async with watching(["a", "b"], state=state) as w:
            await w.cycle(after=15)
            await w.reload(workflows=[{"name": "orders", "discover": {"max_instances": 1}}])
            await w.cycle(after=15)
            assert ids(state) == set()

    async def test_an_account(self, file: Path) -> None:
        other = {
            "name": "other", "account_id": "acc2", "api_token": "secret",
            "workflows": [{"name": "orders", "instances": ["z"]}],
        }  # fmt: skip
        async with watching(["a"], state=file, more_accounts=[other]) as w:
            w.simulator.world.account("acc2").workflow("orders").create("z", RUN)
            await w.cycle(after=60)
            await w.restart(more_accounts=[])
            await w.cycle(after=6 * 86400)
            assert owners(file) == {"acc", "acc2"}
            await w.cycle(after=2 * 86400)
            assert owners(file) == {"acc"}


class TestAWrongClock:
    """As the exporter stops and starts again; set right later on."""

    @pytest.mark.parametrize("days", [2, -2])
    async def test_makes_no_history_of_what_comes(self, state: Location, days: int) -> None:
        async with watching(workflows=DISCOVERED, state=state) as w:
            w.orders.create("x", Script((Wait("approval"),)))
            await w.cycle(after=15)
            await wrong_for_a_while(w, days)
            w.orders.create("a", Script(steps("one")))
            for _ in range(3):
                await w.cycle(after=15)
            assert runs(w) == 1

    @pytest.mark.parametrize("days", [2, -2])
    async def test_makes_no_news_of_history(self, file: Path, days: int) -> None:
        async with watching(workflows=DISCOVERED, state=file, poll={"forget_after": "1m"}) as w:
            await w.cycle()
            w.orders.create("a", Script(steps("one")))
            for _ in range(30):
                await w.cycle(after=15)
            assert not w.app.pollers[0].instances
            assert runs(w) == 1
            await wrong_for_a_while(w, days)
            for _ in range(3):
                await w.cycle(after=15)
            assert runs(w) == 1

    async def test_hides_no_error(self) -> None:
        async with watching(workflows=DISCOVERED) as w:
            w.orders.create("a", Script((Wait("approval", timeout=40),)))
            await w.cycle(after=15)
            w.ahead = -30 * 86400
            await w.cycle(after=60)
            assert w.status("a") == "errored"
            assert runs(w, "errored") == 1

    async def test_counts_nothing_again_of_what_only_a_row_showed(self) -> None:
        few: dict[str, Any] = {"statuses": ["errored"]}
        async with watching(workflows=[{"name": "orders", "discover": few}]) as w:
            w.ahead = -60
            w.orders.create("a", Script((Wait("approval"),)))
            await w.cycle(after=15)
            for other in ({**few, "exclude": ["a"]}, few):
                await w.reload(workflows=[{"name": "orders", "discover": other}])
                await w.cycle(after=15)
            assert w.value("cloudflare_workflow_queue_duration_seconds_count") == 1

    async def test_leaves_what_is_new_as_an_instance_leaves(self, file: Path) -> None:
        async with watching(["a", "b"], state=file) as w:
            w.orders.create("a", Script(steps("one")))
            w.orders.create("b", Script(steps("one")))
            await w.round(after=60)
            await w.reload(workflows=[{"name": "orders", "instances": ["a"]}])
            w.ahead = 30 * 86400
            await w.restart()
            await w.round(after=15)
            w.ahead = 0
            await w.restart(workflows=[{"name": "orders", "instances": ["a", "c"]}])
            w.orders.create("c", Script(steps("one")))
            for _ in range(3):
                await w.round(after=60)
            assert runs(w) == 3

    async def test_counts_nothing_again_that_left_meanwhile(self, file: Path) -> None:
        async with watching(["a"], state=file) as w:
            w.orders.create("a", Script(steps("one")))
            await w.round(after=60)
            w.ahead = -30 * 86400
            await w.reload(workflows=[{"name": "orders", "instances": ["b"]}])
            w.ahead = 0
            await w.round(after=60)
            await w.reload(workflows=[{"name": "orders", "instances": ["a"]}])
            await w.round(after=60)
            assert runs(w) == 1

    @pytest.mark.parametrize("again", [False, True], ids=["set", "set and restarted"])
    async def test_leaves_what_comes_after_the_first_discovery(
        self, file: Path, again: bool
    ) -> None:
        async with watching(["a"], state=file) as w:
            await w.cycle()
            w.ahead = 2 * 86400
            await w.restart(workflows=DISCOVERED)
            await w.cycle(after=15)
            w.ahead = 0
            if again:
                await w.restart()
            await w.cycle(after=15)
            w.orders.create("a", Script(steps("one")))
            for _ in range(3):
                await w.cycle(after=60)
            assert runs(w) == 1


async def wrong_for_a_while(w: Watching, days: int) -> None:
    for days_ahead in (days, 0):
        w.ahead = days_ahead * 86400
        await w.restart()
        await w.cycle(after=15)


def damage(state: Path) -> None:
    # Somebody else writes to it, so that it is read again, and then it breaks.
    other = sqlite3.connect(state)
    other.execute("CREATE TABLE guests (name)")
    other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    other.close()
    with state.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (state.stat().st_size - 4096))


class TestTheDiskFails:
    @pytest.fixture
    def state(self, file: Path) -> Path:
        return file

    @pytest.mark.slow(6)
    async def test_gauges_continue_and_counts_wait(self, state: Path) -> None:
        async with watching(["a"], state=state) as w:
            w.orders.create("a", RUN)
            await w.round(after=1)
            before = counts(w)
            lock = sqlite3.connect(state)
            lock.execute("BEGIN IMMEDIATE")
            with capture_logs() as logs:
                await w.round(after=240)
                await w.saved()
            assert w.status("a") == "complete"
            assert counts(w) == before
            assert (w.value("cloudflare_workflows_exporter_state_write_errors_total") or 0) >= 1
            (line,) = [e for e in logs if e["log_level"] == "error"]
            assert line["error"] == "database is locked"
            lock.close()
            await w.saved()
            assert runs(w) == 1
            await w.restart()
            assert runs(w) == 1

    async def test_a_full_disk(self, state: Path) -> None:
        async with watching(["a"], state=state) as w:
            await w.saved()
            with disk.full(state):
                w.orders.create("a", Script(steps("one")))
                await w.round(after=1000)
                assert runs(w) == 0
                assert (w.value("cloudflare_workflows_exporter_state_write_errors_total") or 0) >= 1
            await w.saved()
            assert runs(w) == 1

    async def test_a_save_that_is_cancelled_meanwhile(self, state: Path) -> None:
        """What changed is shown all the same, and no stop records the lines from before."""
        async with watching(ids := [f"a{n}" for n in range(50)], state=state) as w:
            for instance_id in ids:
                w.orders.create(instance_id, Script((*steps("one"), Wait("approval"))))
            await w.round()
            with disk.full(state):
                w.clock.advance(60)
                await w.app.pollers[0].round(whole=True)
                save = asyncio.create_task(w.app.writer.save())
                pending = w.app.writer._access.pending
                await until(lambda: pending.records and pending.shown.series)
                await until(lambda: not pending.shown.instances)
                save.cancel()
                await asyncio.wait([save])
            await w.restart()
            await w.round(after=15)
            assert {w.status(instance_id) for instance_id in ids} == {"waiting"}

    @pytest.mark.slow(6)
    async def test_what_came_and_went_meanwhile_is_held_no_longer(self, state: Path) -> None:
        async with watching(workflows=DISCOVERED, state=state, poll={"forget_after": "1m"}) as w:
            w.orders.release(success_retention=120_000)
            await w.cycle()
            held = []
            with disk.full(state):
                for n in range(40):
                    for m in range(5):
                        w.orders.create(f"{n}-{m}", Script(steps("one")))
                    await w.cycle(after=30)
                    unsaved = w.app.writer._access.pending
                    shown = sum(map(len, unsaved.shown.instances.values()))
                    held.append(len(unsaved.records) + shown)
            assert max(held[20:]) <= max(held[:20])
            await w.cycle(after=15)
            assert runs(w) == 200

    @pytest.mark.parametrize("how", ["deleted", "broken", "replaced"])
    async def test_a_file_that_goes_while_the_disk_is_full(self, state: Path, how: str) -> None:
        async with watching(["a", "b"], state=state) as w:
            w.orders.create("a", RUN)
            await w.round(after=1000)
            await w.restart()
            if how == "deleted":
                state.unlink()
            elif how == "broken":
                damage(state)
            else:
                state.rename(state.with_name("former"))
                state.write_bytes(b"")
            w.orders.create("b", RUN)
            files = []
            with disk.full(state):
                for _ in range(10):
                    await w.round(after=60)
                    files.append(len(list(state.parent.iterdir())))
            assert files[-1] <= files[1], "none is set aside again and again"
            await w.round(after=60)
            await w.round(after=60)
            assert runs(w) == 2
            await w.restart()
            assert runs(w) == 2

    async def test_a_reload_on_a_file_that_broke(self, state: Path) -> None:
        async with watching(["a"], state=state) as w:
            w.orders.create("a", Script(steps("one")))
            await w.round(after=60)
            await w.restart()
            damage(state)
            w.simulator.world.account("acc").workflow("billing").create("x", RUN)
            await w.reload(
                workflows=[
                    {"name": "orders", "instances": ["a"]},
                    {"name": "billing", "instances": ["x"]},
                ]
            )
            await w.round(after=600)
            await w.round(after=60)
            finished = "cloudflare_workflow_runs_finished_total"
            for workflow in ("orders", "billing"):
                series = f'{finished}{{account="acc",workflow="{workflow}",status="complete"}}'
                assert w.values()[series] == 1

    async def test_a_deleted_file_is_written_again(self, state: Path) -> None:
        async with watching(["a"], state=state) as w:
            w.orders.create("a", Script(steps("one")))
            await w.round(after=60)
            before = w.values()
            state.unlink()
            await w.saved()
            await w.saved()
            await w.restart()
            assert w.values() == before

    async def test_a_file_that_breaks_while_it_is_used(self, state: Path) -> None:
        async with watching(["a", "b"], state=state) as w:
            w.orders.create("a", Script(steps("one")))
            await w.round(after=60)
            await w.restart()
            damage(state)
            w.orders.create("b", Script(steps("one")))
            await w.round(after=60)
            await w.saved()
            after = counts(w)
            assert runs(w) == 2
            assert list(state.parent.glob("state.db.damaged-*"))
            await w.restart()
            assert counts(w) == after

    async def test_a_record_that_cant_be_read_costs_only_what_it_held(self, state: Path) -> None:
        async with watching(["a", "b"], state=state) as w:
            w.orders.create("a", Script(steps("one")))
            w.orders.create("b", Script(steps("one")))
            await w.round(after=60)
            await w.running.aclose()
            with contextlib.closing(sqlite3.connect(state)) as connection, connection:
                connection.execute("UPDATE instances SET data = x'c1' WHERE id = 'a'")
            connection.close()
            with capture_logs() as logs:
                await w.start()
            (line,) = [e for e in logs if e["log_level"] == "error"]
            assert line["event"].startswith("parts of the state can't be read")
            assert runs(w) == 2
            assert (w.status("a"), w.status("b")) == (None, "complete")
            await w.round(after=60)
            assert w.status("a") == "complete"
            assert runs(w) == 2

    @pytest.mark.parametrize(
        "flip",
        [
            "UPDATE instances SET id = CAST(x'e1' AS TEXT) WHERE id = 'a'",  # from x'61'
            "UPDATE series SET id = replace(id, '[', '{') WHERE id LIKE '%up\"]'",
        ],
    )
    async def test_so_does_a_key(self, state: Path, flip: str) -> None:
        async with watching(["a", "b"], state=state) as w:
            for name in ("a", "b"):
                w.orders.create(name, Script((Wait("approval"),)))
            await w.round(after=60)
            await w.running.aclose()
            with contextlib.closing(sqlite3.connect(state)) as connection, connection:
                assert connection.execute(flip).rowcount == 1
            connection.close()
            await w.start()
            assert w.status("b") == "waiting"
            await w.round(after=60)
            assert w.status("a") == "waiting"

    async def test_a_damaged_file_is_logged_and_set_aside(self, state: Path) -> None:
        state.write_bytes(b"no database at all")
        with capture_logs() as logs:
            async with watching(["a"], state=state) as w:
                assert w.value("cloudflare_workflows_exporter_state_write_errors_total") == 1
        (line,) = [e for e in logs if e["log_level"] == "error"]
        assert line["event"] == "the state file is damaged; counting from zero"
        assert Path(line["set_aside"]).read_bytes() == b"no database at all"

    async def test_a_file_from_a_newer_version_is_left_alone(self, state: Path) -> None:
        async with watching(["a"], state=state):
            pass
        with contextlib.closing(sqlite3.connect(state)) as connection, connection:
            connection.execute("PRAGMA user_version = 99")
        connection.close()
        before = state.read_bytes()
        with capture_logs() as logs:
            async with watching(["a"], state=state) as w:
                w.orders.create("a", Script(steps("one")))
                await w.round(after=60)
                assert runs(w) == 1
                await w.saved()
                name = "cloudflare_workflows_exporter_state_write_errors_total"
                before_save = w.value(name) or 0
                await w.saved()
                assert (w.value(name) or 0) > before_save, "it is still not persisted"
        assert "from a newer exporter" in next(e["error"] for e in logs if "error" in e)
        assert state.read_bytes() == before


async def test_two_exporters_on_one_file_are_refused(file: Path) -> None:
    async with watching(["a"], state=file):
        with pytest.raises(InUse, match="in use by another exporter"):
            async with watching(["a"], state=file):
                pass


async def test_no_customers_data_is_on_the_disk(file: Path) -> None:
    secret = "4111111111111111"
    async with watching(["a"], state=file) as w:
        failing = Step("pay", (Attempt(1, Error("TypeError", secret)),), output=secret)
        script = Script((failing,), output=secret, throws=Error("TypeError", secret))
        w.orders.create("a", script, params={"card": secret})
        await w.round(after=60)
        assert w.status("a") == "errored"
        held = b"".join(path.read_bytes() for path in file.parent.iterdir())
        assert b"TypeError" in held
        assert secret.encode() not in held
