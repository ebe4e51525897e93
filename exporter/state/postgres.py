"""The state in PostgreSQL, which several replicas share.

Each transaction begins with an update of the replica's own row. That renews its leases. It also
prevents two transactions of one replica from overlapping, even if the server still runs one that
the replica has given up. To take leases from replicas whose time is over, their rows are locked
first. All times are by the database's clock.
"""

import contextlib
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar

import psycopg
from psycopg import errors

from exporter.cloudflare.replica_budgets import Allotment, BudgetUse, allot
from exporter.state.backend import (
    TABLES,
    Backend,
    Batch,
    DatabaseServer,
    Lease,
    LeaseLost,
    Notice,
    Owner,
    Replica,
    Seen,
    StoredRow,
    Turn,
    Unreachable,
)
from exporter.state.postgres_connection import Connector, Session, connect, reason
from exporter.state.postgres_rows import expire_instances, run_on, write
from exporter.state.postgres_schema import migrate, missing

T = TypeVar("T")

_NO_USE = BudgetUse(limit=1, share=0.0, spent=(), demand=0.0, blocked=0.0)

_CONFLICTS = (
    errors.SerializationFailure,
    errors.DeadlockDetected,
    errors.UniqueViolation,
    errors.DuplicateTable,
    errors.DuplicateObject,  # the type of a table that another transaction is creating
)
"""Errors of transactions that conflict with another one."""
_TRIES = 5
_NOTICES = 1000
"""Maximum notices that one turn receives."""
_NOTICE_LASTS = 600.0
"""Seconds after which a notice that no holder took expires."""
_STAYS = 3600.0
"""Seconds for which a replica that stopped stays in the table."""


class Postgres(Backend):
    """An open database.

    Raises:
        Unreachable: it can't be reached or used now, is from a newer version of the exporter, or
            holds something else.
    """

    def __init__(self, server: DatabaseServer) -> None:
        self._connector = Connector(server)
        self._session: Session | None = None
        self._me: tuple[str, float] = ("", 0.0)
        """The id of this replica and the seconds of its leases, from its last turn."""
        self._wrote_at: datetime | None = None
        """When this replica last committed anything; None: it has not, or it left."""
        try:
            self._select("SELECT 1")
        except BaseException:
            self.close()
            raise

    def take_turn(self, turn: Turn) -> Seen:
        before = self._wrote_at if turn.replica.id == self._me[0] else None
        seen, now = self._transaction(lambda session: _turn(session, turn, before))
        self._me = turn.replica.id, turn.lease
        self._wrote_at = None if turn.leaving else now
        return seen

    def write(self, batch: Batch, *, now: float) -> None:
        """Also renews the leases."""
        del now
        me, before = self._me, self._wrote_at
        self._wrote_at = self._transaction(lambda session: _write(session, batch, *me, before))

    def ensure_idle(self) -> None:
        locked = "SELECT FROM replicas WHERE id = %s FOR UPDATE NOWAIT"
        self._tried(lambda session: session.run(locked, self._me[:1]))

    def _select(self, query: str, *parameters: object) -> list[Any]:
        query = query.replace("?", "%s")
        return self._tried(lambda session: session.run(query, parameters))

    def expire(self, *, after: float, now: float) -> None:
        del now
        self._transaction(lambda session: _expire(session, after))

    def close(self) -> None:
        self._connector.close()
        self._drop()

    def _drop(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _transaction(self, act: Callable[[Session], T]) -> T:
        return self._tried(lambda session: session.in_transaction(act))

    def _tried(self, act: Callable[[Session], T]) -> T:
        """What an operation returns. After an error that may have broken the connection, the next
        operation makes a new one."""
        try:
            if (session := self._session) is None:
                self._session = session = self._connector.session()
                if missing(session):
                    _retried(lambda: session.in_transaction(migrate))
            return _retried(lambda: act(session))
        except LeaseLost:
            raise
        except psycopg.Error as error:
            self._drop()
            raise Unreachable(reason(error)) from None
        except BaseException:
            self._drop()
            raise


def check(server: DatabaseServer) -> None:
    """Does everything that a replica does, in a transaction that is not committed.

    Raises:
        Unreachable: that fails, and why.
    """
    me, owner = Replica("check", "check", ""), ("", "check")
    notices = [Notice(*owner, b"")]
    turn = Turn(me, 60.0, [owner], [], {"check": _NO_USE}, sent=notices, deleted=notices)
    with contextlib.closing(connect(server)) as session:
        try:
            lacks_migrations = missing(session)
            session.run("BEGIN")
            if lacks_migrations:
                migrate(session)
            seen, _ = _turn(session, turn)
            held = {owner: seen.leases[owner].epoch}
            for row in (StoredRow(b""), None):
                rows = {(table, owner, ""): row for table in TABLES}
                _write(session, Batch(rows, held), me.id, turn.lease)
            _expire(session, 10 * 365 * 86400.0)
        except psycopg.Error as error:
            raise Unreachable(reason(error)) from None


def _retried(act: Callable[[], T]) -> T:
    for _ in range(_TRIES - 1):
        with contextlib.suppress(*_CONFLICTS):
            return act()
    return act()


def _set_back(session: Session, replica: str, wrote_at: datetime | None) -> bool:
    """Whether the database lacks what a replica wrote then, since it was restored from a backup: so
    it lacks what was counted, too."""
    renewed = "SELECT 1 FROM replicas WHERE id = %s AND expires >= %s FOR UPDATE"
    return wrote_at is not None and not session.run(renewed, (replica, wrote_at))


def _write(
    session: Session, batch: Batch, replica: str, lease: float, before: datetime | None = None
) -> datetime | None:
    set_back = _set_back(session, replica, before)
    renewed = session.run(
        "UPDATE replicas SET expires = clock_timestamp() + make_interval(secs => %s) WHERE id = %s "
        "RETURNING expires",
        (lease, replica),
    )
    leases = [] if set_back else session.run(_HELD, (replica,))
    held = {(a, w): epoch for a, w, epoch in leases}
    written = {*batch.horizons, *(owner for _, owner, _ in batch.rows)}
    lost = {owner for owner, epoch in batch.leases.items() if held.get(owner) != epoch}
    if lost := lost | (written - batch.leases.keys()):
        raise LeaseLost(lost)
    wrote_at = None
    for (expires,) in renewed:
        wrote_at = expires - timedelta(seconds=lease)
        for table, rows, deleted in batch.by_table(wrote_at.timestamp()):
            write(session, table, rows, deleted)
    for owner, horizon in batch.horizons.items():
        expire_instances(session, owner, horizon)
    return wrote_at


_HELD = "SELECT account, workflow, epoch FROM leases WHERE holder = %s"
_DEAD = (
    "SELECT id FROM replicas WHERE expires <= clock_timestamp() AND id != %s ORDER BY id FOR UPDATE"
)
_LOCKED_LEDGERS = (
    "INSERT INTO budgets SELECT credential, '' FROM {rows} AS used (credential) "
    "ORDER BY credential "
    "ON CONFLICT (credential) DO UPDATE SET credential = excluded.credential "
    "RETURNING credential, ledger, extract(epoch FROM clock_timestamp())::float8"
)


def _turn(session: Session, turn: Turn, before: datetime | None = None) -> tuple[Seen, datetime]:
    """Also returns its time by the database's clock."""
    me = turn.replica
    set_back = _set_back(session, me.id, before)
    if set_back:  # what it takes again before it has seen that all is lost may have the same epochs
        session.run("DELETE FROM replicas WHERE id = %s", (me.id,))
    [(expires,)] = session.run(
        "INSERT INTO replicas VALUES (%s, %s, %s, clock_timestamp() + make_interval(secs => %s)) "
        "ON CONFLICT (id) DO UPDATE SET url = excluded.url, expires = excluded.expires "
        "RETURNING expires",
        (*me, turn.lease),
    )
    if turn.leaving:
        session.run("DELETE FROM replicas WHERE id = %s", (me.id,))
    run_on(
        session,
        "UPDATE leases SET holder = NULL WHERE holder = %(me)s "
        "AND (account, workflow) IN (SELECT * FROM {rows})",
        turn.released,
        me=me.id,
    )
    if turn.wanted and not turn.leaving and not set_back:
        _take(session, me, turn.wanted)
    budgets = _allotments(session, turn)
    _exchange(session, turn)
    return _seen(session, budgets, me.id), expires - timedelta(seconds=turn.lease)


def _exchange(session: Session, turn: Turn) -> None:
    """Sends and deletes notices."""
    if turn.sent:
        session.run(
            "DELETE FROM notices WHERE sent < clock_timestamp() - make_interval(secs => %s)",
            (_NOTICE_LASTS,),
        )
        insert = "INSERT INTO notices SELECT * FROM {rows} ON CONFLICT DO NOTHING"
        run_on(session, insert, sorted(turn.sent), "text text bytea")
    delete = "DELETE FROM notices WHERE (account, workflow, data) IN (SELECT * FROM {rows})"
    run_on(session, delete, turn.deleted, "text text bytea")


def _take(session: Session, me: Replica, wanted: Collection[Owner]) -> None:
    dead = [id_ for (id_,) in session.run(_DEAD, (me.id,))]
    run_on(
        session,
        "INSERT INTO leases SELECT account, workflow, %(me)s, nextval('epochs') "
        "FROM {rows} AS wanted (account, workflow) LEFT JOIN leases USING (account, workflow) "
        "WHERE holder IS NULL OR holder = ANY(%(dead)s::text[]) "
        "ORDER BY account, workflow ON CONFLICT (account, workflow) "
        "DO UPDATE SET holder = excluded.holder, epoch = excluded.epoch "
        "WHERE leases.holder IS NULL OR leases.holder = ANY(%(dead)s::text[])",
        sorted(wanted),
        me=me.id,
        dead=dead,
    )
    if dead:
        session.run(
            "DELETE FROM replicas WHERE expires < clock_timestamp() - make_interval(secs => %s)",
            (_STAYS,),
        )


def _allotments(session: Session, turn: Turn) -> dict[str, Allotment]:
    allotments, ledgers = dict[str, Allotment](), list[tuple[str, bytes]]()
    for name, ledger, now in run_on(session, _LOCKED_LEDGERS, [(n,) for n in turn.budgets], "text"):
        use, leaving = turn.budgets[name], turn.leaving
        after, allotments[name] = allot(ledger, turn.replica.id, use, now=now, leaving=leaving)
        ledgers.append((name, after))
    update = (
        "UPDATE budgets SET ledger = new.ledger FROM {rows} AS new (credential, ledger) "
        "WHERE budgets.credential = new.credential"
    )
    run_on(session, update, ledgers, "text bytea")
    return allotments


def _seen(session: Session, budgets: Mapping[str, Allotment], me: str) -> Seen:
    replicas = {
        row[0]: Replica(*row)
        for row in session.run(
            "SELECT id, name, url FROM replicas WHERE expires > clock_timestamp() ORDER BY name, id"
        )
    }
    leases = {
        (account, workflow): Lease(replicas[holder], epoch)
        for account, workflow, holder, epoch in session.run(
            "SELECT account, workflow, holder, epoch FROM leases WHERE holder = ANY(%s)",
            ([*replicas],),
        )
    }
    notices = session.run(
        "SELECT account, workflow, data FROM notices JOIN leases USING (account, workflow) "
        "WHERE holder = %s AND sent > clock_timestamp() - make_interval(secs => %s) "
        "ORDER BY sent LIMIT %s",
        (me, _NOTICE_LASTS, _NOTICES),
    )
    query = (
        "SELECT count(*) FROM notices WHERE sent > clock_timestamp() - make_interval(secs => %s)"
    )
    [(unread,)] = session.run(query, (_NOTICE_LASTS,))
    return Seen([*replicas.values()], leases, budgets, [Notice(*n) for n in notices], unread)


def _expire(session: Session, after: float) -> None:
    old = session.run(
        "SELECT account, workflow FROM leases WHERE EXISTS ("
        "SELECT FROM workflows AS old WHERE old.account = leases.account "
        "AND old.workflow = leases.workflow "
        "AND last_watched < extract(epoch FROM clock_timestamp()) - %s"
        ") ORDER BY account, workflow FOR UPDATE",
        (after,),
    )
    # Their rows are locked, so no replica can take them now. One may have done so before.
    free = run_on(
        session,
        "DELETE FROM leases WHERE (account, workflow) IN (SELECT * FROM {rows}) "
        "AND NOT EXISTS (SELECT FROM replicas WHERE id = holder AND expires > clock_timestamp()) "
        "RETURNING account, workflow",
        old,
    )
    for owner in free:
        for table in TABLES:
            query = f"DELETE FROM {table} WHERE account = %s AND workflow = %s"  # noqa: S608
            session.run(query, owner)
