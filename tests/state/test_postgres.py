"""The state in PostgreSQL: leases, one budget, and what becomes of it when the server fails."""

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import psycopg
import pytest
import trustme
from pydantic import SecretStr

from exporter.cloudflare.replica_budgets import BudgetUse, least
from exporter.config.errors import ConfigError
from exporter.config.metrics import Metrics
from exporter.metrics.store import Store
from exporter.state.access import StateAccess
from exporter.state.backend import (
    Backend,
    Batch,
    DatabaseServer,
    LeaseLost,
    Notice,
    NotRestored,
    Owner,
    RecordKey,
    Replica,
    StoredRow,
    Unreachable,
)
from exporter.state.postgres import Postgres
from exporter.state.postgres_connection import Session, validate
from exporter.state.postgres_schema import MIGRATIONS, migrate
from tests.postgres import PASSWORD, PostgresServer, postgres_server
from tests.relay import relay
from tests.state.backends import (
    FULL,
    ME,
    OTHER,
    OWNER,
    PEER,
    batch,
    content,
    epochs,
    postgres,
    turn,
    whole,
)
from tests.waiting import DEADLINE

T = TypeVar("T")

pytestmark = pytest.mark.postgres

SHORT = 0.5
"""Seconds for an exchange, where a test waits until they are over."""


@pytest.fixture
def server(postgres: PostgresServer) -> PostgresServer:
    return postgres


@pytest.fixture
def database(server: PostgresServer) -> str:
    return server.new_database()


@pytest.fixture
def user(server: PostgresServer) -> str:
    return server.new_user()


@pytest.fixture
def url(server: PostgresServer, user: str) -> str:
    return server.url("postgres", user=user)


@pytest.fixture
def first(url: str) -> Iterator[Postgres]:
    """What a replica uses."""
    with contextlib.closing(postgres(url)) as backend:
        yield backend


@pytest.fixture
def second(url: str) -> Iterator[Postgres]:
    """What another one uses."""
    with contextlib.closing(postgres(url)) as backend:
        yield backend


def expired(backend: Postgres, *wanted: Owner) -> dict[Owner, int]:
    """The epochs of leases of which the time is over, though nobody took them yet."""
    held = epochs(turn(backend, wanted=wanted or (OWNER,)))
    turn(backend, wanted=wanted or (OWNER,), lease=0)
    return held


def execute(url: str, statement: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(statement.encode())


class TestLeases:
    def test_what_one_holds_no_other_takes(self, first: Postgres, second: Postgres) -> None:
        held = turn(first).leases
        assert turn(second, PEER, wanted=(OWNER, OTHER)).leases[OWNER] == held[OWNER]
        seen = turn(first, wanted=(OWNER, OTHER))
        assert {owner: lease.replica for owner, lease in seen.leases.items()} == {
            OWNER: ME,
            OTHER: PEER,
        }
        assert seen.replicas == [ME, PEER]

    def test_a_released_lease_is_free(self, first: Postgres, second: Postgres) -> None:
        before = turn(first, wanted=(OWNER, OTHER)).leases[OWNER]
        assert list(turn(first, wanted=(OTHER,), released=(OWNER,)).leases) == [OTHER]
        after = turn(second, PEER).leases[OWNER]
        assert (after.replica, after.epoch > before.epoch) == (PEER, True)

    def test_only_the_holder_releases(self, first: Postgres, second: Postgres) -> None:
        held = epochs(turn(first))
        turn(second, PEER, wanted=(), released=(OWNER,))
        assert epochs(turn(first)) == held

    def test_an_expired_lease_is_taken(self, first: Postgres, second: Postgres) -> None:
        before = expired(first)
        seen = turn(second, PEER)
        assert seen.replicas == [PEER]
        assert epochs(seen, PEER)[OWNER] > before[OWNER]

    @pytest.mark.parametrize("by", ["write", "turn"])
    def test_one_that_nobody_took_is_renewed(
        self, first: Postgres, second: Postgres, url: str, by: str
    ) -> None:
        held = epochs(turn(first))
        over = "UPDATE replicas SET expires = clock_timestamp()"
        execute(url, over)
        assert not turn(second, PEER, wanted=()).leases
        if by == "write":
            first.write(batch(leases=held), now=0)
            assert content(first) == FULL
        else:
            assert epochs(turn(first)) == held
        assert epochs(turn(second, PEER)) == held

    def test_the_writes_of_one_that_lost_a_lease_are_refused(
        self, first: Postgres, second: Postgres
    ) -> None:
        stale = expired(first, OWNER, OTHER)
        second.write(batch(b"2", epochs(turn(second, PEER), PEER)), now=0)
        keys: tuple[RecordKey, ...] = ("instances", OTHER, "x"), ("series", OWNER, "[]")
        with pytest.raises(LeaseLost) as lost:
            first.write(Batch(dict.fromkeys(keys, StoredRow(b"1")), stale), now=0)
        assert lost.value.owners == {OWNER}
        assert content(first) == whole(b"2")
        assert list(first.records("instances", OTHER)) == []

    def test_so_are_those_of_one_that_lost_it_and_got_it_back(
        self, first: Postgres, second: Postgres
    ) -> None:
        stale = expired(first)
        turn(second, PEER, lease=0)
        fresh = epochs(turn(first))
        with pytest.raises(LeaseLost):
            first.write(batch(leases=stale), now=0)
        first.write(batch(leases=fresh), now=0)
        assert content(first) == FULL

    @pytest.mark.parametrize("leases", [{}, {OTHER: 1}, {OWNER: 0}])
    def test_nothing_is_written_without_a_lease(
        self, first: Postgres, leases: dict[tuple[str, str], int]
    ) -> None:
        with pytest.raises(LeaseLost) as lost:
            first.write(batch(leases=leases), now=0)
        assert OWNER in lost.value.owners
        assert list(first.records("workflows", OWNER)) == []

    def test_of_two_that_take_at_once_each_gets_what_the_other_lacks(self, url: str) -> None:
        wanted = tuple(("acc", f"workflow-{n}") for n in range(50))
        replicas = [Replica(f"r-{n}", "r", "") for n in range(4)]
        start = threading.Barrier(len(replicas))

        def take(replica: Replica) -> int:
            with contextlib.closing(postgres(url)) as backend:
                start.wait()
                for _ in range(5):
                    seen = turn(backend, replica, wanted=wanted[:: 1 if replica.id < "r-2" else -1])
                start.wait()
                assert set(seen.leases) == set(wanted)
                return len(epochs(turn(backend, replica, wanted=()), replica))

        with ThreadPoolExecutor(len(replicas)) as threads:
            assert sum(threads.map(take, replicas)) == len(wanted)

    def test_a_renewal_under_way_comes_before_who_would_take(
        self, first: Postgres, second: Postgres, url: str
    ) -> None:
        held = expired(first)
        with (
            psycopg.connect(url) as renewal,
            ThreadPoolExecutor(1) as thread,
        ):
            renewal.execute("UPDATE replicas SET expires = clock_timestamp() + interval '1 hour'")
            taker = thread.submit(turn, second, PEER)
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
            while renewal.execute(waiting).fetchone() == (0,):
                assert not taker.done()
            renewal.commit()
            assert epochs(taker.result()) == held

    def test_one_that_leaves_holds_nothing(self, first: Postgres, second: Postgres) -> None:
        turn(first, wanted=(OWNER, OTHER))
        seen = turn(first, wanted=(OWNER,), leaving=True)
        assert (seen.replicas, dict(seen.leases)) == ([], {})
        assert set(epochs(turn(second, PEER), PEER)) == {OWNER}

    def test_others_see_the_newest_url(self, first: Postgres, second: Postgres) -> None:
        turn(first)
        moved = ME._replace(url="http://elsewhere")
        assert turn(first, moved).leases[OWNER].replica == moved
        assert turn(second, PEER).replicas == [moved, PEER]

    def test_two_of_the_same_name_are_two(self, first: Postgres, second: Postgres) -> None:
        namesake = ME._replace(id="a-2")
        turn(first)
        seen = turn(second, namesake, wanted=(OWNER, OTHER))
        assert seen.replicas == [ME, namesake]
        assert set(epochs(seen, namesake)) == {OTHER}

    @pytest.mark.parametrize("ahead", [-86400.0, 86400.0])
    def test_a_replicas_own_clock_does_not_matter(self, first: Postgres, ahead: float) -> None:
        first.write(batch(leases=epochs(turn(first))), now=time.time() + ahead)
        turn(first, wanted=(), released=(OWNER,))
        first.expire(after=3600, now=time.time() + ahead)
        assert content(first) == FULL

    def test_replicas_that_stopped_are_removed_after_a_while(
        self, first: Postgres, url: str
    ) -> None:
        for n in range(3):
            turn(first, Replica(f"old-{n}", "old", ""), wanted=(), lease=0)
        past = "UPDATE replicas SET expires = clock_timestamp() - interval '2 hours'"
        execute(url, f"{past} WHERE id != 'old-2'")
        turn(first)
        with psycopg.connect(url) as connection:
            rows = connection.execute("SELECT id FROM replicas ORDER BY id").fetchall()
        assert rows == [(ME.id,), ("old-2",)]

    def test_what_an_administrator_removes_is_free(
        self, first: Postgres, second: Postgres, url: str
    ) -> None:
        stale = epochs(turn(first))
        execute(url, "DELETE FROM replicas")
        with pytest.raises(LeaseLost):
            first.write(batch(leases=stale), now=0)
        assert epochs(turn(second, PEER), PEER)[OWNER] > stale[OWNER]


def use(**changes: float) -> BudgetUse:
    made = BudgetUse(limit=600, share=0.0, spent=(0,), demand=600.0, blocked=0.0)
    return made._replace(**changes)  # type: ignore[arg-type]


class TestBudgets:
    def test_replicas_share_a_credentials_limit(self, first: Postgres, second: Postgres) -> None:
        mine = turn(first, budgets={"acc": use()}).budgets["acc"].share
        peers = turn(second, PEER, budgets={"acc": use()}).budgets["acc"].share
        assert mine > 0
        assert mine + peers <= 600
        for _ in range(5):
            mine = turn(first, budgets={"acc": use(share=mine)}).budgets["acc"].share
            peers = turn(second, PEER, budgets={"acc": use(share=peers)}).budgets["acc"].share
        assert (mine, peers) == (300, 300)

    def test_also_if_one_has_another_account_for_it(
        self, first: Postgres, second: Postgres
    ) -> None:
        mine = peers = 0.0
        for _ in range(5):
            uses = dict.fromkeys(("acc", "another"), use(share=mine))
            mine = least(turn(first, budgets=uses).budgets.values()).share
            peers = turn(second, PEER, budgets={"acc": use(share=peers)}).budgets["acc"].share
        assert (mine, peers) == (300, 300)

    def test_credentials_are_apart(self, first: Postgres) -> None:
        shares = turn(first, budgets={"acc": use(), "other": use()}).budgets
        assert {name: allotment.share for name, allotment in shares.items()} == {
            "acc": 600,
            "other": 600,
        }

    def test_a_429_stops_all(self, first: Postgres, second: Postgres) -> None:
        turn(first, budgets={"acc": use(blocked=100.0)})
        assert turn(second, PEER, budgets={"acc": use()}).budgets["acc"].blocked > 60


class TestNotices:
    NOTICE = Notice(*OWNER, b"\x00 for the holder")
    ELSEWHERE = Notice(*OTHER, b"for the holder")

    def test_come_to_the_holder_until_it_has_deleted_them(
        self, first: Postgres, second: Postgres
    ) -> None:
        turn(first, PEER, wanted=(OWNER,))
        sent = turn(second, wanted=(OTHER,), sent=(self.NOTICE, self.NOTICE))
        assert (sent.notices, sent.unread) == ([], 1)
        turn(second, wanted=(OTHER,), sent=(self.NOTICE,))
        for _ in range(2):
            assert turn(first, PEER).notices == [self.NOTICE]
        deleted = turn(first, PEER, deleted=(self.NOTICE, self.ELSEWHERE))
        assert (deleted.notices, deleted.unread) == ([], 0)

    def test_come_to_the_next_holder(self, first: Postgres, second: Postgres) -> None:
        turn(first, PEER, sent=(self.NOTICE, self.ELSEWHERE))
        turn(first, PEER, leaving=True)
        assert turn(second).notices == [self.NOTICE]
        assert turn(second, wanted=(OWNER, OTHER)).notices == [self.ELSEWHERE, self.NOTICE]

    def test_expire_when_nobody_takes_them(self, first: Postgres, url: str) -> None:
        turn(first, wanted=(), sent=(self.NOTICE,))
        execute(url, "UPDATE notices SET sent = sent - interval '11 minutes'")
        # Nothing else is sent, as when a reload has removed the account's events.
        seen = turn(first, wanted=(OWNER, OTHER))
        assert (seen.notices, seen.unread) == ([], 0)
        turn(first, wanted=(), sent=(self.ELSEWHERE,))
        assert turn(first, wanted=(OWNER, OTHER)).notices == [self.ELSEWHERE]
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT count(*) FROM notices").fetchone() == (1,)

    def test_come_in_parts_the_oldest_first(self, first: Postgres) -> None:
        sent = tuple(Notice(*OWNER, f"{n:05}".encode()) for n in range(2500))
        seen = turn(first, sent=sent)
        assert seen.unread == 2500
        for start in (0, 1000, 2000):
            part = sent[start : start + 1000]
            assert sorted(seen.notices) == list(part)
            seen = turn(first, deleted=part)
        assert seen.unread == 0


class TestMigrations:
    def test_two_that_start_at_once_make_one_schema(self, url: str) -> None:
        with ThreadPoolExecutor(4) as threads:
            backends = [*threads.map(postgres, [url] * 4)]
        backends[0].write(batch(leases=epochs(turn(backends[0]))), now=0)
        assert content(backends[3]) == FULL
        for backend in backends:
            backend.close()

    def test_a_newer_version_of_the_exporter_finds_what_was_there(
        self, first: Postgres, url: str
    ) -> None:
        first.write(batch(leases=epochs(turn(first))), now=0)
        newer = (*MIGRATIONS, "ALTER TABLE instances ADD COLUMN seen INTEGER DEFAULT 7")
        with Session.connect(url) as session:
            migrate(session, newer)
            assert session.run("SELECT id, seen FROM instances") == [("order-1", 7)]
            session.run("COMMIT")
        assert content(first) == FULL  # an older one continues until it restarts
        refusal = f"^the database is of version {len(newer)}, from a newer exporter"
        with pytest.raises(Unreachable, match=refusal):
            postgres(url)

    def test_a_version_that_was_never_released_is_refused(self, first: Postgres, url: str) -> None:
        """Its tables have the names of today's, and other columns."""
        first.write(batch(leases=epochs(turn(first))), now=0)
        execute(url, "UPDATE schema_version SET version = 1")
        refusal = "^the database is of version 1, which was never released; use another"
        with pytest.raises(Unreachable, match=refusal):
            postgres(url)
        assert content(first) == FULL

    def test_a_failed_migration_changes_nothing(self, first: Postgres, url: str) -> None:
        newer = (*MIGRATIONS, "DROP TABLE instances", "DROP TABLE nonsense")
        with (
            Session.connect(url) as session,
            pytest.raises(psycopg.errors.UndefinedTable),
        ):
            migrate(session, newer)
        first.write(batch(leases=epochs(turn(first))), now=0)
        with contextlib.closing(postgres(url)) as restarted:
            assert content(restarted) == FULL

    @pytest.mark.parametrize(
        ("table", "problem"),
        [
            (
                "instances (name TEXT)",
                'the database holds tables of something else: relation "instances" al',
            ),
            ("schema_version (major INTEGER)", "the database's table schema_version is of someth"),
            (
                "schema_version (version INTEGER)",
                "the database's table schema_version is of someth",
            ),
        ],
    )
    def test_tables_of_something_else_are_left_alone(
        self, server: PostgresServer, database: str, table: str, problem: str
    ) -> None:
        with psycopg.connect(server.url(database)) as connection:
            connection.execute(f"CREATE TABLE {table}".encode())
        with pytest.raises(Unreachable, match=problem):
            postgres(server.url(database))
        assert server.tables(database) == 1

    def test_another_encoding_is_refused(self, server: PostgresServer) -> None:
        database = server.new_database("ENCODING 'LATIN1' TEMPLATE template0")
        with pytest.raises(Unreachable, match="encoding is LATIN1; create one with UTF8"):
            postgres(server.url(database))


def in_time(act: Callable[[], T]) -> T:
    """What it returns once it can be done; an exchange may take too long on a busy machine."""
    end = time.monotonic() + DEADLINE
    while True:
        try:
            return act()
        except Unreachable:
            assert time.monotonic() < end


def recovered(backend: Backend) -> None:
    """Waits until a turn succeeds again."""
    in_time(lambda: turn(backend))


def commits_wait(server: PostgresServer, user: str) -> bool:
    """Whether a commit of a user waits for a standby."""
    waits = "SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND usename = %s"
    with psycopg.connect(server.url("postgres", user="admin")) as connection:
        return bool(connection.execute(waits, (user,)).fetchall())


def until_it_fails(backend: Postgres, held: dict[Owner, int]) -> None:
    """Writes again and again: the server takes up a setting within moments."""
    for _ in range(10_000):
        backend.write(batch(leases=held), now=0)


class TestFaults:
    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
    def test_a_restarted_server(
        self, server: PostgresServer, first: Postgres, how: signal.Signals
    ) -> None:
        held = epochs(turn(first))
        first.write(batch(leases=held), now=0)
        server.stop(how)
        try:
            for _ in range(3):
                with pytest.raises(Unreachable, match=r"^[^\n]+$"):
                    first.write(batch(b"2", held), now=0)
        finally:
            server.start()
        recovered(first)
        assert content(first) == FULL
        first.write(batch(b"3", held), now=0)
        assert content(first) == whole(b"3")

    def test_a_connection_that_the_server_ends(
        self, server: PostgresServer, user: str, first: Postgres
    ) -> None:
        held = epochs(turn(first))
        ended = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename='{user}'"
        server.execute(ended)
        with pytest.raises(Unreachable):
            first.write(batch(leases=held), now=0)
        first.write(batch(leases=held), now=0)
        assert content(first) == FULL

    def test_a_server_that_stands_still(self, server: PostgresServer, url: str) -> None:
        with contextlib.closing(in_time(lambda: postgres(url, SHORT))) as backend:
            held = epochs(in_time(lambda: turn(backend)))
            with server.standing_still():
                with pytest.raises(Unreachable, match=r"doesn't respond within 0\.5 s"):
                    backend.write(batch(leases=held), now=0)
                with pytest.raises(Unreachable, match="can't connect to the database: no response"):
                    backend.write(batch(leases=held), now=0)
                with pytest.raises(Unreachable, match="can't connect to the database: no response"):
                    postgres(url, SHORT)
            in_time(lambda: backend.write(batch(b"2", held), now=0))
            assert in_time(lambda: content(backend)) == whole(b"2")

    async def test_a_network_that_drops_everything(self, server: PostgresServer, user: str) -> None:
        async with relay() as network:
            network.port = server.port
            url = server.url("postgres", user=user, address=network.address)
            backend = await asyncio.to_thread(in_time, lambda: postgres(url, SHORT))
            held = epochs(await asyncio.to_thread(in_time, lambda: turn(backend)))
            network.silent = True
            for problem in ("doesn't respond within", "can't connect", "can't connect"):
                with pytest.raises(Unreachable, match=problem):
                    await asyncio.to_thread(backend.write, batch(b"2", held), now=0)
            began = time.monotonic()
            for _ in range(2 * int(DEADLINE)):  # one has waited; those that come now fail at once
                with pytest.raises(Unreachable, match="can't connect"):
                    await asyncio.to_thread(content, backend)
                assert time.monotonic() - began < DEADLINE
            network.silent = False
            await asyncio.to_thread(in_time, lambda: backend.write(batch(b"3", held), now=0))
            found = await asyncio.to_thread(in_time, lambda: content(backend))
            assert found == whole(b"3")
            await asyncio.to_thread(backend.close)

    def test_a_commit_whose_result_is_lost(
        self, server: PostgresServer, user: str, url: str
    ) -> None:
        """It waits for a standby that isn't there: it may or may not be lost."""
        with contextlib.closing(in_time(lambda: postgres(url, SHORT))) as backend:
            held = epochs(in_time(lambda: turn(backend)))
            setting = "ALTER SYSTEM SET synchronous_standby_names = "
            server.execute(f"{setting}'nobody'", "SELECT pg_reload_conf()")
            try:
                while not commits_wait(server, user):
                    with contextlib.suppress(Unreachable):
                        backend.write(batch(b"1", held), now=0)
                # Nothing newer overtakes it.
                with pytest.raises(Unreachable):
                    backend.write(batch(b"2", held), now=0)
            finally:
                server.execute(f"{setting}''", "SELECT pg_reload_conf()")
            recovered(backend)  # after the commit that waited: each begins with the replica's row
            assert in_time(lambda: content(backend)) == whole(b"1")
            in_time(lambda: backend.write(batch(b"2", held), now=0))
            assert in_time(lambda: content(backend)) == whole(b"2")

    async def test_a_commit_that_may_yet_succeed_drops_nothing(
        self, server: PostgresServer, user: str, url: str
    ) -> None:
        """What it writes of an instance that has expired since is to be deleted."""
        access = StateAccess(Store(Metrics()))
        await access.open(DatabaseServer(SecretStr(url), None, SHORT))
        held = epochs(in_time(lambda: turn(access.backend)))
        key: RecordKey = ("instances", OWNER, "order-1")
        access.pending.records[key] = None
        setting = "ALTER SYSTEM SET synchronous_standby_names = "
        server.execute(f"{setting}'nobody'", "SELECT pg_reload_conf()")
        try:
            while not commits_wait(server, user):
                with contextlib.suppress(Unreachable):
                    access.backend.write(batch(b"1", held), now=0)
            for _ in range(2):  # the first may find that the connection is lost
                with pytest.raises((NotRestored, Unreachable)):
                    await access.drop_expired()
        finally:
            server.execute(f"{setting}''", "SELECT pg_reload_conf()")
        recovered(access.backend)
        await access.drop_expired()
        assert access.pending.records == {key: None}
        access.close()

    def test_a_database_that_becomes_read_only(
        self, server: PostgresServer, first: Postgres
    ) -> None:
        held = epochs(turn(first))
        setting = "ALTER SYSTEM SET default_transaction_read_only = "
        server.execute(f"{setting}on", "SELECT pg_reload_conf()")
        try:
            read_only = r"the database is read-only; state\.url must name the primary"
            with pytest.raises(Unreachable, match=read_only):
                until_it_fails(first, held)
            with pytest.raises(Unreachable, match="session is read-only"):
                first.write(batch(leases=held), now=0)
        finally:
            allowed = "SET default_transaction_read_only = off"
            server.execute(allowed, f"{setting}off", "SELECT pg_reload_conf()")
        recovered(first)

    def test_a_full_disk(self, server: PostgresServer, first: Postgres) -> None:
        held = epochs(turn(first))
        first.write(batch(leases=held), now=0)
        server.stop()
        server.start(file_size=4 << 20)
        try:
            recovered(first)
            rows: dict[RecordKey, StoredRow] = {
                ("instances", OWNER, f"big-{n}"): StoredRow(os.urandom(1800)) for n in range(4000)
            }
            for _ in range(2):
                with pytest.raises(Unreachable, match=r"could not extend file .*: File too large"):
                    first.write(Batch(rows, held), now=0)
                assert content(first) == FULL
        finally:
            server.stop()
            server.start()
        recovered(first)
        first.write(batch(b"3", held), now=0)
        assert content(first) == whole(b"3")


def test_a_failover_to_a_standby() -> None:
    """The replica's URL names both: it uses the one that can be written to."""
    with postgres_server() as primary:
        database = primary.new_database()
        with postgres_server(primary) as standby:
            both = f"127.0.0.1:{standby.port},127.0.0.1:{primary.port}"
            with pytest.raises(Unreachable, match="session is read-only"):
                postgres(standby.url(database))
            with contextlib.closing(postgres(primary.url(database, address=both))) as backend:
                held = epochs(turn(backend))
                setting = "ALTER SYSTEM SET synchronous_standby_names = '*'"
                primary.execute(setting, "SELECT pg_reload_conf()")
                recovered(backend)  # the standby may have to connect first
                backend.write(batch(leases=held), now=0)
                primary.stop(signal.SIGQUIT)
                with pytest.raises(Unreachable):
                    backend.write(batch(b"2", held), now=0)
                standby.execute("SELECT pg_promote()")
                recovered(backend)
                assert content(backend) == FULL
                backend.write(batch(b"3", held), now=0)
                assert content(backend) == whole(b"3")


class TestRefusals:
    """What is wrong is said in one line, which holds no password."""

    def refused(self, url: str) -> str:
        with pytest.raises(Unreachable) as error:
            postgres(url)
        line = str(error.value)
        assert "\n" not in line
        assert "s3cret" not in line
        return line

    def test_a_missing_database(self, server: PostgresServer, user: str) -> None:
        url = server.url("nothing", user=user)
        assert self.refused(url).endswith('FATAL:  database "nothing" does not exist')

    def test_a_wrong_password(self, server: PostgresServer, user: str) -> None:
        url = server.url("postgres", user=user).replace("s3cret", "s3crets")
        expected = f'FATAL:  password authentication failed for user "{user}"'
        assert self.refused(url).endswith(expected)

    def test_no_password(self, server: PostgresServer, user: str) -> None:
        url = f"postgresql://{user}@127.0.0.1:{server.port}/postgres"
        assert self.refused(url).endswith("fe_sendauth: no password supplied")

    def test_no_server(self, server: PostgresServer, user: str) -> None:
        url = server.url("postgres", user=user, address="127.0.0.1:1")
        assert "port 1 failed: Connection refused" in self.refused(url)

    def test_an_unknown_host(self, server: PostgresServer, user: str) -> None:
        url = server.url("postgres", user=user, address="nowhere.invalid")
        assert self.refused(url).startswith("failed to resolve host 'nowhere.invalid': ")

    @pytest.mark.parametrize(
        ("address", "problem"),
        [("a..b", "label empty"), ("127.0.0.1:99999", 'invalid port number: "99999"')],
    )
    def test_an_address_that_can_be_none(
        self, server: PostgresServer, user: str, address: str, problem: str
    ) -> None:
        assert problem in self.refused(server.url("postgres", user=user, address=address))

    def test_a_missing_permission(self, server: PostgresServer, user: str) -> None:
        owner = f"ALTER SCHEMA {user} OWNER TO admin", f"GRANT USAGE ON SCHEMA {user} TO {user}"
        server.execute(*owner)
        expected = f"permission denied for schema {user}"
        assert self.refused(server.url("postgres", user=user)) == expected

    def test_too_few_connections(self, server: PostgresServer, user: str) -> None:
        server.execute(f"ALTER ROLE {user} CONNECTION LIMIT 0")
        expected = f'FATAL:  too many connections for role "{user}"'
        assert self.refused(server.url("postgres", user=user)).endswith(expected)

    def test_a_read_only_database(self, server: PostgresServer, user: str) -> None:
        server.execute(f"ALTER ROLE {user} SET default_transaction_read_only = on")
        assert self.refused(server.url("postgres", user=user)).endswith("session is read-only")


class TestLogin:
    def test_the_password_may_come_from_a_file_and_change(
        self, server: PostgresServer, user: str, tmp_path: Path
    ) -> None:
        file = tmp_path / "password"
        url = f"postgresql://{user}@127.0.0.1:{server.port}/postgres"
        file.write_text(f"{PASSWORD}\n")
        with contextlib.closing(
            Postgres(DatabaseServer(SecretStr(url), file, DEADLINE))
        ) as backend:
            turn(backend)
            server.execute(
                f"ALTER ROLE {user} PASSWORD 'another'",
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{user}'",
            )
            with pytest.raises(Unreachable):
                turn(backend)
            with pytest.raises(Unreachable, match="password authentication failed"):
                turn(backend)
            file.unlink()
            with pytest.raises(Unreachable, match=f"^{file}: No such file or directory$"):
                turn(backend)
            file.write_text("another")
            assert epochs(turn(backend))

    @pytest.mark.parametrize(
        ("path", "problem"),
        [("/none", "No such file or directory"), ("/dev/null", "Not a regular file")],
    )
    def test_a_file_that_cannot_be_read_is_a_wrong_configuration(
        self, path: str, problem: str
    ) -> None:
        with pytest.raises(ConfigError, match=rf"^state\.password_file: {path}: {problem}$"):
            validate(DatabaseServer(SecretStr("postgresql://db/exporter"), Path(path), 5.0))

    def test_tls_as_the_url_says(self, server: PostgresServer, user: str, tmp_path: Path) -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1")
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
        server.use_certificate(certificate)
        url = f"{server.url('postgres', user=user)}?sslmode=verify-full&sslrootcert="
        try:
            with contextlib.closing(postgres(f"{url}{tmp_path / 'ca.pem'}")) as backend:
                [(encrypted,)] = backend._select(
                    "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
                )
                assert encrypted
            with pytest.raises(Unreachable, match="certificate verify failed"):
                postgres(f"{url}{tmp_path / 'other.pem'}")
        finally:
            server.use_certificate(None)
