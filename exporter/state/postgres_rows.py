"""Writes many rows to the state's tables in PostgreSQL with few statements."""

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from exporter.state.backend import Horizon, Owner
from exporter.state.postgres_connection import Session

T = TypeVar("T")

TABLES = {
    "instances": (("id",), {"data": "bytea", "removed": "float8", "ended": "float8"}),
    "series": (("family", "labels"), {"data": "bytea"}),
}
"""By table, its key beside the owner, and its values with their types."""
_ROWS = 2000
"""Of one statement, at most."""
_EXPIRED = 20_000
"""Instances of a workflow that one transaction deletes at most: it must end in time."""


def columns_of(rows: Iterable[tuple[Any, ...]], types: str) -> tuple[str, list[list[Any]]]:
    """Rows as the table `unnest(…)`: a round trip for all of them.

    Args:
        rows: Of as many values as there are types.
        types: PostgreSQL's, of the columns.
    """
    names = types.split()
    arrays = ", ".join(f"%b::{name}[]" for name in names)
    columns: list[list[Any]] = [[*column] for column in zip(*rows, strict=True)]
    columns = columns or [[] for _ in names]
    return f"unnest({arrays})", columns


def upsert(session: Session, name: str, rows: list[Any]) -> None:
    """Writes rows of a table, each its key and its values."""
    key, values = TABLES[name]
    types = " ".join(("text text", *("text" for _ in key), *values.values()))
    changes = ", ".join(f"{value} = excluded.{value}" for value in values)
    for part in _parts(rows):
        table, columns = columns_of(part, types)
        session.run(
            f"INSERT INTO {name} SELECT * FROM {table} "  # noqa: S608 - names of our own
            f"ON CONFLICT (account, workflow, {', '.join(key)}) DO UPDATE SET {changes}",
            columns,
        )


def delete(session: Session, name: str, rows: list[Any]) -> None:
    """Deletes the rows of a table that have these keys."""
    names = ("account", "workflow", *TABLES[name][0])
    for part in _parts(rows):
        table, columns = columns_of(part, "text " * len(names))
        session.run(
            f"DELETE FROM {name} WHERE ({', '.join(names)}) IN (SELECT * FROM {table})",  # noqa: S608
            columns,
        )


def expire_instances(session: Session, owner: Owner, horizon: Horizon) -> None:
    """Deletes what has expired of a workflow's instances; where that is much, the rest later."""
    of_workflow = "FROM instances WHERE account = %s AND workflow = %s AND"
    for expired, before in (
        ("removed < %s", horizon.removed),
        ("removed IS NULL AND ended < %s", horizon.ended),
    ):
        session.run(
            f"DELETE {of_workflow} id IN (SELECT id {of_workflow} {expired} LIMIT {_EXPIRED})",
            (*owner, *owner, before),
        )


def _parts(rows: list[T]) -> Iterator[list[T]]:
    """Rows in as many statements as they need: each must end in time."""
    return (rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS))
