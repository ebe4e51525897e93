"""What tests of the state's backends share: an owner, batches, and what a backend holds."""

from collections.abc import Mapping

from pydantic import SecretStr

from exporter.cloudflare.replica_budgets import BudgetUse
from exporter.state.backend import (
    Backend,
    Batch,
    DatabaseServer,
    Notice,
    Owner,
    RecordKey,
    Replica,
    Seen,
    StoredRow,
    Turn,
)
from exporter.state.postgres import Postgres
from tests.waiting import DEADLINE

OWNER = ("acc", "orders")
OTHER = ("acc", "billing")
ME, PEER = Replica("a-1", "a", "http://a"), Replica("b-1", "b", "http://b")
LEASE = 30.0


def postgres(url: str, timeout: float = DEADLINE) -> Postgres:
    """The backend, whose exchanges with the server may take `timeout` seconds."""
    return Postgres(DatabaseServer(SecretStr(url), None, timeout))


def turn(
    backend: Backend,
    replica: Replica = ME,
    *,
    wanted: tuple[Owner, ...] = (OWNER,),
    released: tuple[Owner, ...] = (),
    lease: float = LEASE,
    budgets: Mapping[str, BudgetUse] | None = None,
    leaving: bool = False,
    sent: tuple[Notice, ...] = (),
    deleted: tuple[Notice, ...] = (),
) -> Seen:
    budgets = budgets or {}
    made = Turn(replica, lease, wanted, released, budgets, leaving, sent, deleted)
    return backend.take_turn(made)


def epochs(seen: Seen, replica: Replica = ME) -> dict[Owner, int]:
    """Of the leases that a replica holds."""
    return {o: lease.epoch for o, lease in seen.leases.items() if lease.replica == replica}


KEYS: tuple[RecordKey, ...] = (
    ("workflows", OWNER, ""),
    ("instances", OWNER, "order-1"),
    ("series", OWNER, '["runs_total", "complete"]'),
)


def batch(value: bytes = b"1", leases: Mapping[Owner, int] | None = None) -> Batch:
    return Batch(dict.fromkeys(KEYS, StoredRow(value)), leases or {})


def content(backend: Backend) -> tuple[object, ...]:
    return tuple(list(backend.records(table, owner)) for table, owner, _ in KEYS)


def whole(value: bytes = b"1") -> tuple[object, ...]:
    """The content after such a batch."""
    return tuple([(id_, value)] for _, _, id_ in KEYS)


FULL = whole()
EMPTY: tuple[object, ...] = ([], [], [])
