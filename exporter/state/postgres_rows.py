"""Writes and deletes many rows of the state's tables in PostgreSQL with few statements."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, TypeVar

from exporter.state.backend import Owner
from exporter.state.postgres_connection import Session

T = TypeVar("T")

_KEY, _KEY_TYPES = "account, workflow, id", "text text text"
_ROWS = 2000
"""Maximum rows of one statement."""
_EXPIRED = 20_000
"""Maximum instances of a workflow that one transaction deletes, since it must end in time."""


def run_on(
    session: Session,
    query: str,
    rows: Collection[Sequence[object]],
    types: str = "text text",
    **parameters: object,
) -> list[Any]:
    """Runs a statement in which `{rows}` stands for a table of these rows. That takes one round
    trip for all of them; without rows, the statement isn't run.

    Args:
        rows: Each has as many values as there are types.
        types: PostgreSQL's types of the columns.
        parameters: Other parameters of the statement, by name.
    """
    if not rows:
        return []
    table = ", ".join(f"%({number})b::{name}[]" for number, name in enumerate(types.split()))
    given = {str(number): [*column] for number, column in enumerate(zip(*rows, strict=True))}
    return session.run(query.replace("{rows}", f"unnest({table})"), given | parameters)


def write(session: Session, table: str, written: list[Any], deleted: list[Any]) -> None:
    """Writes rows of a table, and deletes those with these keys."""
    upsert = (
        f"INSERT INTO {table} SELECT * FROM {{rows}} "  # noqa: S608 - a name of our own
        f"ON CONFLICT ({_KEY}) DO UPDATE "
        "SET data = excluded.data, last_watched = excluded.last_watched"
    )
    for rows in _parts(written):
        run_on(session, upsert, rows, f"{_KEY_TYPES} bytea float8")
    delete = f"DELETE FROM {table} WHERE ({_KEY}) IN (SELECT * FROM {{rows}})"  # noqa: S608
    for keys in _parts(deleted):
        run_on(session, delete, keys, _KEY_TYPES)


def expire_instances(session: Session, owner: Owner, horizon: float) -> None:
    """Deletes the instances of a workflow that were removed before a Unix time; if there are many,
    only some, and the rest later."""
    of_workflow = "FROM instances WHERE account = %s AND workflow = %s AND"
    some = f"SELECT id {of_workflow} last_watched < %s LIMIT {_EXPIRED}"
    session.run(f"DELETE {of_workflow} id = ANY(ARRAY({some}))", (*owner, *owner, horizon))


def _parts(rows: list[T]) -> Iterator[list[T]]:
    """The rows in as many parts as they need, since each statement must end in time."""
    return (rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS))
