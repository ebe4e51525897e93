"""What a backend of the state does: a few operations on bytes, whose meaning it doesn't know, in
tables that all have the same columns.

An *owner* is an account and a workflow: that is what records belong to, and what leases are for.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from math import inf
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

from pydantic import SecretStr

from exporter.cloudflare.replica_budgets import Allotment, BudgetUse

Owner = tuple[str, str]
EVENT_QUEUE = ""
"""In place of a workflow's name: the queue of the account's events, which has a lease, too."""
Table = Literal["workflows", "instances", "series"]
TABLES: tuple[Table, ...] = get_args(Table)
"""All have the columns account, workflow, id, data and last_watched."""
RecordKey = tuple[Table, Owner, str]
"""The key of a record: its table, its owner, and its id; the id of an owner's only record there is
empty."""
_NONE: Mapping[Owner, Any] = MappingProxyType({})


class InUse(Exception):  # noqa: N818 - reads as what is wrong
    """Another exporter uses the state."""


class Unusable(Exception):  # noqa: N818 - reads as what is wrong
    """The state can't be used, and is left as it is; the message says why."""


class Unreachable(Exception):  # noqa: N818 - reads as what is wrong
    """The state can't be reached or used now; the message is one line, without a password."""


class NotRestored(Exception):  # noqa: N818 - reads as what is wrong
    """The state can't be read now."""


class LeaseLost(Exception):  # noqa: N818 - reads as what is wrong
    """This replica no longer holds leases that a batch relies on.

    Attributes:
        owners: What the leases are for.
    """

    def __init__(self, owners: Collection[Owner]) -> None:
        super().__init__(f"{len(owners)} lease(s) lost")
        self.owners = frozenset(owners)


class DatabaseServer(NamedTuple):
    """A database that replicas share."""

    url: SecretStr
    """As libpq takes it."""
    password_file: Path | None
    timeout: float
    """Maximum seconds of an exchange with it."""


Location = Path | DatabaseServer | None
"""Where the state is: a file, a database, or memory."""


class StoredRow(NamedTuple):
    """A record as its table holds it."""

    data: bytes
    last_watched: float | None = None
    """Unix time at which an instance was removed; None: it is watched. For a workflow, the backend
    sets the time at which its record was last written."""


class Batch(NamedTuple):
    """What one transaction writes."""

    rows: Mapping[RecordKey, StoredRow | None]
    """Rows by key; None: the row is deleted."""
    leases: Mapping[Owner, int] = _NONE
    """All leases that this replica holds, with their epochs. The transaction renews them."""
    horizons: Mapping[Owner, float] = _NONE
    """For each workflow, a Unix time: records of instances that were removed before it are
    deleted."""

    def by_table(self, now: float) -> Iterator[tuple[Table, list[Any], list[Any]]]:
        """Each table with the rows to write at Unix time `now`, as tuples of all columns, and the
        keys of the rows to delete."""
        for table in TABLES:
            rows = {(*owner, i): row for (t, owner, i), row in self.rows.items() if t == table}
            written = [
                (*key, row.data, now if table == "workflows" else row.last_watched)
                for key, row in rows.items()
                if row is not None
            ]
            yield table, written, [key for key, row in rows.items() if row is None]


class Replica(NamedTuple):
    """A process that shares the state with others."""

    id: str
    """Its name and something random, so that it differs after each start."""
    name: str
    url: str
    """The address of its page; empty: unknown."""


class Lease(NamedTuple):
    """The right to poll a workflow and to write what is counted of it."""

    replica: Replica
    epoch: int
    """A number that rises whenever the workflow changes hands."""


class Notice(NamedTuple):
    """A message from one replica to the holder of a workflow."""

    account: str
    workflow: str
    data: bytes

    @property
    def owner(self) -> Owner:
        """The workflow whose holder it is for."""
        return self.account, self.workflow


class Turn(NamedTuple):
    """What a replica asks for and shows the others, once a second."""

    replica: Replica
    lease: float
    """Seconds until its leases expire, unless they are renewed."""
    wanted: Collection[Owner]
    """The leases that it wants: those that it holds are renewed, those that nobody holds are
    taken."""
    released: Collection[Owner]
    """The leases to give up, if it holds them. Any other lease that it holds is renewed."""
    budgets: Mapping[str, BudgetUse]
    """What it uses of each budget, by the name in the state of each account that uses it."""
    leaving: bool = False
    """Whether this is its last turn: it gives up all leases, and its shares of budgets."""
    sent: Collection[Notice] = ()
    """Notices for holders; those that the state already has aren't sent again."""
    deleted: Collection[Notice] = ()
    """Notices to delete."""


class Seen(NamedTuple):
    """What a replica sees at its turn."""

    replicas: Sequence[Replica]
    """The live replicas, itself included."""
    leases: Mapping[Owner, Lease]
    """The leases of all replicas that have not expired."""
    budgets: Mapping[str, Allotment]
    """What it may use of each budget, by name as in the turn."""
    notices: Sequence[Notice] = ()
    """Notices for the workflows that it holds, the oldest first; if there are many, not all."""
    unread: int = 0
    """The number of notices in the state, for all holders."""


def alone(turn: Turn) -> Seen:
    """What a replica sees that is the only one: it has everything that it wants."""
    return Seen(
        [turn.replica],
        {owner: Lease(turn.replica, 1) for owner in turn.wanted},
        {
            credential: Allotment(share=inf, pace=inf, peers_spent=0, blocked=use.blocked)
            for credential, use in turn.budgets.items()
        },
        [*turn.sent],
    )


_OF_OWNER = "SELECT id, data FROM {} WHERE account = ? AND workflow = ?"


class Backend(ABC):
    """An open state. Its methods may be called from any thread, one at a time.

    Attributes:
        set_aside: Where a damaged file was moved; None: there was none.
        unusable: Why the file can't be used, so that the state is in memory; empty: it can.
    """

    set_aside: Path | None = None
    unusable: str = ""

    @property
    def is_there(self) -> bool:
        """Whether the state that was opened still exists."""
        return True

    @abstractmethod
    def _select(self, query: str, *parameters: object) -> Iterable[Any]:
        """The rows of a query in SQL, in which `?` stands for each parameter."""

    def records(self, table: Table, owner: Owner) -> Iterable[tuple[str, bytes]]:
        """An owner's records in a table, by id."""
        return self._select(_OF_OWNER.format(table), *owner)

    def workflows(self, account: str) -> Iterable[tuple[str, bytes]]:
        """The records of an account's workflows, by name."""
        return self._select("SELECT workflow, data FROM workflows WHERE account = ?", account)

    def by_ids(self, table: Table, owner: Owner, ids: Sequence[str]) -> Iterable[tuple[str, bytes]]:
        """Those of them that have these ids."""
        marks = ", ".join("?" * len(ids))
        return self._select(f"{_OF_OWNER.format(table)} AND id IN ({marks})", *owner, *ids)

    def watched(self, owner: Owner, after: str, limit: int) -> Iterable[tuple[str, bytes]]:
        """The records of a workflow's watched instances in the order of their ids: at most `limit`,
        from the first id after `after`."""
        some = "AND last_watched IS NULL AND id > ? ORDER BY id LIMIT ?"
        return self._select(f"{_OF_OWNER.format('instances')} {some}", *owner, after, limit)

    @abstractmethod
    def write(self, batch: Batch, *, now: float) -> None:
        """Commits all of a batch at Unix time `now`, or nothing if it raises.

        Raises:
            LeaseLost: another replica has taken over a lease of the batch. A lease that has expired
                is renewed if no other replica has taken it.
            Unreachable: it may be unknown whether the batch was committed. It can be written again.
        """

    def ensure_idle(self) -> None:  # noqa: B027
        """Makes sure that no write is still under way, such as one whose result is unknown. Where
        each has ended when `write` returns or raises, none is.

        Raises:
            Unreachable: one is, or may be.
        """

    @abstractmethod
    def take_turn(self, turn: Turn) -> Seen:
        """Renews, takes and releases leases, and shares budgets with the other replicas.

        Raises:
            Unreachable: it may be unknown whether that was committed, as with `write`.
        """

    @abstractmethod
    def expire(self, *, after: float, now: float) -> None:
        """Deletes the workflows that no replica holds and that were last watched more than `after`
        seconds before Unix time `now`, with all of their records."""

    @staticmethod
    def is_damage(error: Exception) -> bool:
        """Whether an error means that the content is damaged, so that `renew` helps."""
        del error
        return False

    def renew(self) -> None:
        """Begins an empty state in place of a damaged one."""
        raise NotImplementedError

    @abstractmethod
    def close(self) -> None:
        """Closes it."""
