"""What a backend of the state does: few operations on bytes, whose meaning it doesn't know, in
tables that all have the same columns.

An owner is an account and a workflow: what records belong to, and what a lease is for.
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
Table = Literal["workflows", "instances", "series", "rendered"]
TABLES: tuple[Table, ...] = get_args(Table)
"""All have the columns account, workflow, id, data and last_watched."""
Place = tuple[Table, str, str]
"""A table, and an owner."""
Key = tuple[Table, str, str, str]
"""Of a record: its place, and its id there; empty for the only one."""
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
    """Leases that a batch relies on are held by other replicas, or by none.

    Attributes:
        owners: Whose leases.
    """

    def __init__(self, owners: Collection[Owner]) -> None:
        super().__init__(f"{len(owners)} lease(s) lost")
        self.owners = frozenset(owners)


class DatabaseServer(NamedTuple):
    """Where a database is that replicas share."""

    url: SecretStr
    """libpq's."""
    password_file: Path | None
    timeout: float
    """Seconds that an exchange with it may take."""


Location = Path | DatabaseServer | None
"""Where the state is: a file, a database, or memory."""


class Row(NamedTuple):
    """A record as its table holds it."""

    data: bytes
    last_watched: float | None = None
    """Unix time at which an instance was taken out of what is watched; None: it is watched. The
    backend has that of a workflow: when its record was last written."""


class Batch(NamedTuple):
    """What one transaction writes; None deletes."""

    rows: Mapping[Key, Row | None]
    leases: Mapping[Owner, int] = _NONE
    """The epochs of all leases that are held: the transaction renews them."""
    horizons: Mapping[Owner, float] = _NONE
    """Deletes the instances that were last watched before these Unix times."""

    def by_table(self, now: float) -> Iterator[tuple[Table, list[Any], list[Any]]]:
        """Each table with its rows to write at Unix time `now`, as tuples of all columns, and the
        keys of those to delete."""
        for table in TABLES:
            rows = [(key[1:], row) for key, row in self.rows.items() if key[0] == table]
            written = [
                (*key, row.data, now if table == "workflows" else row.last_watched)
                for key, row in rows
                if row is not None
            ]
            yield table, written, [key for key, row in rows if row is None]


class Replica(NamedTuple):
    """A process that shares the state with others."""

    id: str
    """Its name and something random: another one after each start."""
    name: str
    url: str
    """Of its page; empty: unknown."""


class Lease(NamedTuple):
    """The right to poll a workflow and to write what is counted of it."""

    replica: Replica
    epoch: int
    """Rises whenever the workflow changes hands."""


class Notice(NamedTuple):
    """What a replica has for the holder of a workflow."""

    account: str
    workflow: str
    data: bytes

    @property
    def owner(self) -> Owner:
        """Whose holder it is for."""
        return self.account, self.workflow


class Turn(NamedTuple):
    """What a replica wants and shows to the others, once a second."""

    replica: Replica
    lease: float
    """Seconds until its leases expire, unless they are renewed."""
    wanted: Collection[Owner]
    """To hold: what it holds is renewed, what nobody holds is taken."""
    released: Collection[Owner]
    """To give up, if it holds them. What it holds beyond `wanted` and `released` is renewed."""
    budgets: Mapping[str, BudgetUse]
    """By credential: the name in the state of the first account that uses it."""
    leaving: bool = False
    """Its last turn: it gives up all it holds, its shares of budgets too."""
    sent: Collection[Notice] = ()
    """For holders; those that are in the state already aren't sent again."""
    deleted: Collection[Notice] = ()


class Seen(NamedTuple):
    """What a replica sees at its turn."""

    replicas: Sequence[Replica]
    """The live ones, itself included."""
    leases: Mapping[Owner, Lease]
    """Those that have not expired, of all replicas."""
    budgets: Mapping[str, Allotment]
    """By credential, as in the turn."""
    notices: Sequence[Notice] = ()
    """For what it holds, the oldest first; when there are many, not all."""
    unread: int = 0
    """Notices in the state, for all holders."""


def alone(turn: Turn) -> Seen:
    """What the only replica sees: it has all that it wants."""
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
        set_aside: Where a damaged file was moved, if there was one.
    """

    set_aside: Path | None = None

    @property
    def is_there(self) -> bool:
        """Whether what was opened is still there."""
        return True

    @abstractmethod
    def _select(self, query: str, *parameters: object) -> Iterable[Any]:
        """The rows of a query in SQL, in which `?` stands for each parameter."""

    def records(self, place: Place) -> Iterable[tuple[str, bytes]]:
        """All records of a place, by id."""
        return self._select(_OF_OWNER.format(*place), *place[1:])

    def by_ids(self, place: Place, ids: Sequence[str]) -> Iterable[tuple[str, bytes]]:
        """The records of a place that have these ids, as far as there are any."""
        marks = ", ".join("?" * len(ids))
        return self._select(f"{_OF_OWNER.format(*place)} AND id IN ({marks})", *place[1:], *ids)

    def watched(self, owner: Owner, after: str, limit: int) -> Iterable[tuple[str, bytes]]:
        """The records of a workflow's watched instances: at most `limit` of those after an id, in
        the order of ids."""
        some = "AND last_watched IS NULL AND id > ? ORDER BY id LIMIT ?"
        return self._select(f"{_OF_OWNER.format('instances')} {some}", *owner, after, limit)

    @abstractmethod
    def write(self, batch: Batch, *, now: float) -> None:
        """Commits all of a batch, at Unix time `now`, or, when it raises, nothing.

        Raises:
            LeaseLost: a lease of the batch is someone else's. One that expired is renewed if nobody
                took it since.
            Unreachable: whether the batch was committed may be unknown; it can be written again.
        """

    @abstractmethod
    def settle(self) -> None:
        """Makes sure that no write is under way any more, such as one whose result is unknown.

        Raises:
            Unreachable: one is, or may be.
        """

    @abstractmethod
    def take_turn(self, turn: Turn) -> Seen:
        """Renews, takes and releases leases, and shares budgets with the other replicas.

        Raises:
            Unreachable: as of `write`.
        """

    @abstractmethod
    def expire(self, *, after: float, now: float) -> None:
        """Deletes workflows last watched more than `after` seconds before the Unix time `now`, and
        all that is theirs."""

    @staticmethod
    def is_damage(error: Exception) -> bool:
        """Whether an error of a method means that the content is broken, and `renew` helps."""
        del error
        return False

    def renew(self) -> None:
        """Begins an empty state in place of a damaged one."""
        raise NotImplementedError

    @abstractmethod
    def close(self) -> None:
        """Closes it."""
