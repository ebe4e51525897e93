"""Works on many rows of the state's tables in PostgreSQL with few statements."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from exporter.state.backend import KEYS, Owner
from exporter.state.postgres_connection import Session

T = TypeVar("T")

_VALUES = {
    "instances": {"data": "bytea", "removed": "float8"},
    "series": {"data": "bytea"},
}
"""By table, the types of the columns beside the key."""
_ROWS = 2000
"""Of one statement, at most."""
_EXPIRED = 20_000
"""Instances of a workflow that one transaction deletes at most: it must end in time."""


def run_on(
    session: Session,
    query: str,
    rows: Collection[Sequence[object]],
    types: str = "text text",
    **parameters: object,
) -> list[Any]:
    """Runs a statement in which `{rows}` stands for rows, as a table: a round trip for all of them,
    and none without any.

    Args:
        rows: Of as many values as there are types.
        types: PostgreSQL's, of the columns.
        parameters: The statement's others, by name.
    """
    if not rows:
        return []
    table = ", ".join(f"%({number})b::{name}[]" for number, name in enumerate(types.split()))
    given = {str(number): [*column] for number, column in enumerate(zip(*rows, strict=True))}
    return session.run(query.replace("{rows}", f"unnest({table})"), given | parameters)


def write(
    session: Session, table: str, rows: Mapping[tuple[str, ...], Sequence[object] | None]
) -> None:
    """Writes the rows of a table; deletes those without values."""
    key, values = ("account", "workflow", *KEYS[table]), _VALUES[table]
    key_columns, key_types = ", ".join(key), "text " * len(key)
    changes = ", ".join(f"{value} = excluded.{value}" for value in values)
    upsert = (
        f"INSERT INTO {table} SELECT * FROM {{rows}} "  # noqa: S608 - names of our own
        f"ON CONFLICT ({key_columns}) DO UPDATE SET {changes}"
    )
    for written in _parts([(*key, *row) for key, row in rows.items() if row is not None]):
        run_on(session, upsert, written, key_types + " ".join(values.values()))
    delete = f"DELETE FROM {table} WHERE ({key_columns}) IN (SELECT * FROM {{rows}})"  # noqa: S608
    for deleted in _parts([key for key, row in rows.items() if row is None]):
        run_on(session, delete, deleted, key_types)


def expire_instances(session: Session, owner: Owner, horizon: float) -> None:
    """Deletes what was removed of a workflow's instances; where that is much, the rest later."""
    of_workflow = "FROM instances WHERE account = %s AND workflow = %s AND"
    some = f"SELECT id {of_workflow} removed < %s LIMIT {_EXPIRED}"
    session.run(f"DELETE {of_workflow} id = ANY(ARRAY({some}))", (*owner, *owner, horizon))


def _parts(rows: list[T]) -> Iterator[list[T]]:
    """Rows in as many statements as they need: each must end in time."""
    return (rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS))
