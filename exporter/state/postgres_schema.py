"""The tables of the state in PostgreSQL, and the migrations that create them."""

from collections.abc import Sequence

from psycopg import errors

from exporter.state.backend import TABLES, Unreachable
from exporter.state.postgres_connection import Session, reason

_TABLE = """
    CREATE TABLE {} (
        account TEXT COLLATE "C", workflow TEXT COLLATE "C", id TEXT COLLATE "C",
        data BYTEA NOT NULL, last_watched FLOAT8,
        PRIMARY KEY (account, workflow, id)
    );
"""
MIGRATIONS = (
    "",  # it had other tables, and was never released
    "".join(map(_TABLE.format, TABLES))
    + """
    CREATE INDEX watched ON instances (account, workflow, last_watched, id);
    CREATE TABLE replicas (
        id TEXT COLLATE "C" PRIMARY KEY, name TEXT NOT NULL, url TEXT NOT NULL,
        expires TIMESTAMPTZ NOT NULL
    );
    CREATE SEQUENCE epochs;
    CREATE TABLE leases (
        account TEXT COLLATE "C", workflow TEXT COLLATE "C",
        holder TEXT COLLATE "C" REFERENCES replicas ON DELETE SET NULL, epoch BIGINT NOT NULL,
        PRIMARY KEY (account, workflow)
    );
    CREATE TABLE budgets (credential TEXT COLLATE "C" PRIMARY KEY, ledger BYTEA NOT NULL);
    CREATE TABLE notices (
        account TEXT COLLATE "C", workflow TEXT COLLATE "C", data BYTEA,
        sent TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (account, workflow, data)
    );
    """,
)
"""The n-th migration makes version n out of version n - 1. The collation "C" is an order that
updates of the server's libraries don't change."""

_MARKED = """
    CREATE TABLE IF NOT EXISTS schema_version (
        one BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (one), version INTEGER NOT NULL
    );
    INSERT INTO schema_version (version) VALUES (0) ON CONFLICT DO NOTHING;
"""


def missing(session: Session, migrations: Sequence[str] = MIGRATIONS) -> bool:
    """Whether the database lacks migrations.

    Raises:
        Unreachable: it is from a newer version, or its tables belong to something else.
    """
    try:
        return _version(session, migrations) < len(migrations)
    except errors.UndefinedTable:
        return True


def migrate(session: Session, migrations: Sequence[str] = MIGRATIONS) -> None:
    """Runs the migrations that the database lacks, within a transaction.

    Raises:
        Unreachable: it can't hold the state, or its tables belong to something else.
    """
    [(encoding,)] = session.run("SELECT current_setting('server_encoding')")
    if encoding != "UTF8":
        raise Unreachable(f"the database's encoding is {encoding}; create one with UTF8")
    session.run(_MARKED)
    # The row stays locked, so that only one of several replicas that start creates the tables.
    version = _version(session, migrations, "FOR UPDATE")
    try:
        for script in migrations[version:]:
            session.run(script)
    except errors.DuplicateTable as error:
        raise Unreachable(f"the database holds tables of something else: {reason(error)}") from None
    session.run("UPDATE schema_version SET version = %s", (len(migrations),))


def _version(session: Session, migrations: Sequence[str], lock: str = "") -> int:
    try:
        [(version,)] = session.run(f"SELECT version FROM schema_version {lock}")  # noqa: S608
    except (ValueError, errors.UndefinedColumn):
        raise Unreachable("the database's table schema_version is of something else") from None
    if version > len(migrations):
        raise Unreachable(
            f"the database is of version {version}, from a newer exporter; this one knows "
            f"{len(migrations)}"
        )
    if version == 1:
        raise Unreachable("the database is of version 1, which was never released; use another")
    return int(version)
