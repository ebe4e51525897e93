"""What a backend of the state does: few operations on bytes, whose meaning it doesn't know, in
tables of the same names and columns.

An owner is an account and a workflow; either is empty for what belongs to none.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from math import inf
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import SecretStr

from exporter.cloudflare.replica_budgets import Allotment, BudgetUse

Owner = tuple[str, str]
InstanceKey = tuple[str, str, str]
"""Of an instance: its owner, and its id."""
SeriesPlace = tuple[str, str, str, str]
"""Of a series: its owner, its family, and its other labels in JSON."""
_NONE: Mapping[Owner, int] = MappingProxyType({})


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


class InstanceRow(NamedTuple):
    """What is recorded of an instance. Times are Unix seconds; without one, it is watched."""

    data: bytes
    removed: float | None = None
    """When it was taken out of what is watched."""


KEYS = {"instances": ("id",), "series": ("family", "labels")}
"""The key of each table beside the owner."""


class Batch(NamedTuple):
    """What one transaction writes; None deletes."""

    workflows: Mapping[Owner, bytes]
    instances: Mapping[InstanceKey, InstanceRow | None]
    series: Mapping[SeriesPlace, tuple[bytes] | None]
    leases: Mapping[Owner, int] = _NONE
    """The epochs of all leases that are held: the transaction renews them."""

    horizons: Mapping[Owner, float] = MappingProxyType({})
    """Deletes what was removed before these Unix times."""
    rendered: Mapping[Owner, bytes] = MappingProxyType({})
    """The lines of instances as scrapes see them. A later batch with a workflow's record, or with
    one of its instances, deletes those that it doesn't hold."""

    def __bool__(self) -> bool:
        return bool(self.workflows or self.instances or self.series or self.rendered)

    @property
    def renderings(self) -> dict[Owner, bytes | None]:
        """By owner, what is to be there of the lines of its instances."""
        changed = (*self.workflows, *dict.fromkeys(key[:2] for key in self.instances))
        return {**dict.fromkeys(changed), **self.rendered}

    @property
    def tables(self) -> dict[str, Mapping[Any, Sequence[object] | None]]:
        """The values of each row of the tables in `KEYS`, by its whole key."""
        return {"instances": self.instances, "series": self.series}


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

    def workflow(self, owner: Owner) -> Iterable[tuple[str, bytes]]:
        """The record of a workflow by its name, if there is one."""
        query = "SELECT workflow, data FROM workflows WHERE account = ? AND workflow = ?"
        return self._select(query, *owner)

    def rendered(self, owner: Owner) -> Iterable[tuple[str, bytes]]:
        """The lines of its instances as scrapes saw them, if nothing was written of them since."""
        query = (
            "SELECT workflow, rendered FROM workflows WHERE account = ? AND workflow = ? "
            "AND rendered IS NOT NULL"
        )
        return self._select(query, *owner)

    def series(self, owner: Owner) -> Iterator[tuple[tuple[str, str], bytes]]:
        """The series of an owner, each by its family and other labels."""
        query = "SELECT family, labels, data FROM series WHERE account = ? AND workflow = ?"
        for family, labels, data in self._select(query, *owner):
            yield (family, labels), data

    def instances(self, owner: Owner, *, after: str, limit: int) -> Iterable[tuple[str, bytes]]:
        """The records of a workflow's watched instances: at most `limit` of those after an id, in
        the order of ids."""
        query = (
            "SELECT id, data FROM instances WHERE account = ? AND workflow = ? "
            "AND removed IS NULL AND id > ? ORDER BY id LIMIT ?"
        )
        return self._select(query, *owner, after, limit)

    def by_ids(self, owner: Owner, ids: Sequence[str]) -> Iterable[tuple[str, bytes]]:
        """The records of these instances, watched or not, as far as there are any."""
        query = (
            "SELECT id, data FROM instances WHERE account = ? AND workflow = ? "  # noqa: S608
            f"AND id IN ({', '.join('?' * len(ids))})"
        )
        return self._select(query, *owner, *ids)

    @abstractmethod
    def write(self, batch: Batch, *, now: float) -> None:
        """Commits all of a batch, at Unix time `now`, or, when it raises, nothing.

        Raises:
            LeaseLost: a lease of the batch is someone else's. One that expired is renewed if nobody
                took it since.
            Unreachable: whether the batch was committed may be unknown; it can be written again.
        """

    @abstractmethod
    def take_turn(self, turn: Turn) -> Seen:
        """Renews, takes and releases leases, and shares budgets with the other replicas.

        Raises:
            Unreachable: as of `write`.
        """

    @abstractmethod
    def expire(self, *, after: float, now: float, accounts: Collection[str]) -> None:
        """Deletes workflows last watched more than `after` seconds before the Unix time `now`, and
        all that is theirs; and the series of accounts without workflows, but of those that are
        named."""

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
