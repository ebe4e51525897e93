"""Which replica holds which workflow, where several share the state.

The unit of work is a workflow. The replica that holds its lease polls it, and no other counts what
happens in it. Replicas share nothing but the database. Each decides for itself, by what all of them
see there, and so they come to the same division.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Set
from hashlib import blake2b
from math import inf

from exporter.clock import Clock
from exporter.cloudflare.replica_budgets import BudgetUse
from exporter.state.backend import EVENT_QUEUE, Owner, Replica, Seen, Turn
from exporter.state.event_relay import EventRelay

_MARGIN = 0.1
"""The part of a lease's time by which its holder stops relying on it before the database does: the
clocks of two machines run at rates that differ by less."""


def plan(seen: Seen, wanted: Set[Owner], replica: str) -> tuple[list[Owner], list[Owner]]:
    """What a replica takes of the workflows that nobody holds, and what it gives up of its own.

    Each replica gets an equal share. Where the division leaves a remainder, the replicas that hold
    most have one more, so that nothing moves without need. What others hold counts even if this one
    doesn't want it, by its configuration: otherwise, where configurations differ, each might leave
    a workflow to another one.

    Args:
        seen: What the replica saw at its last turn.
        wanted: The workflows that some replica should hold.
        replica: Its id.
    """
    holders = {owner: lease.replica.id for owner, lease in seen.leases.items()}
    held = Counter(holders.values())
    ranks = sorted((one.id for one in seen.replicas), key=lambda one: (-held[one], one))
    if replica not in ranks:
        return [], []  # it doesn't know yet how many replicas there are
    least, more = divmod(len(wanted | holders.keys()), len(ranks))
    fair = least + (replica in ranks[:more])
    # Each replica has its own order, so that two rarely try to take the same workflow.
    free = sorted(wanted - holders.keys(), key=lambda owner: _order(replica, owner))
    mine = [owner for owner, holder in holders.items() if holder == replica]
    mine.sort(key=lambda owner: (owner not in wanted, owner))  # what it gives up anyway comes last
    return free[: max(0, fair - len(mine))], mine[fair:]


def workflows_of(owners: Collection[Owner]) -> int:
    """How many of these are workflows."""
    return sum(workflow != EVENT_QUEUE for _, workflow in owners)


def _order(replica: str, owner: Owner) -> bytes:
    return blake2b("\0".join((replica, *owner)).encode(), digest_size=8).digest()


class Leases:
    """What this replica holds.

    Args:
        replica: This one.
        lease: Seconds for which the database grants a lease; inf: no other replica exists.
        clock: The time.

    Attributes:
        lease: As above.
        shared: Whether several replicas may use the state.
        wanted: What some replica is to hold, by the account's name in the state: its workflows,
            and its `EVENT_QUEUE` if it has one.
        relays: The events that go to other holders, or come from them: one for each account that
            has events.
        held: The leases that this replica holds, with their epochs.
        seen: What it saw at its last turn.
        taking: What it will ask for at its next turn, since nobody held it at the last one.
        proven_until: Until then (monotonic clock) no other replica can have taken what is held.
    """

    def __init__(self, replica: Replica, *, lease: float, clock: Clock) -> None:
        self.replica = replica
        self.wanted: dict[str, Collection[Owner]] = {}
        self.held: Mapping[Owner, int] = {}
        self.seen = Seen([], {}, {})
        self.proven_until = -inf
        self.relays: Collection[EventRelay] = ()
        self.lease = lease
        self.shared = lease < inf
        self._clock = clock
        self.taking: Collection[Owner] = ()
        self._giving_up: Collection[Owner] = ()

    def may_attach(self, owner: Owner) -> bool:
        """Whether it holds a workflow, and isn't about to give it up."""
        return owner in self.held and owner not in self._giving_up

    def holder(self, owner: Owner) -> Replica | None:
        """The live replica that held a workflow at the last turn; None: there was none."""
        lease = self.seen.leases.get(owner)
        return lease and lease.replica

    @property
    def proven(self) -> bool:
        """Whether it is certain that no other replica has taken what is held."""
        return self._clock.monotonic() < self.proven_until

    @property
    def unheld(self) -> int:
        """The number of wanted workflows that no live replica holds."""
        return workflows_of(self._all_wanted() - self.seen.leases.keys())

    def turn(
        self,
        attached: Collection[Owner],
        budgets: Mapping[str, BudgetUse],
        *,
        leaving: bool = False,
    ) -> Turn:
        """What this replica asks for at its turn.

        Args:
            attached: What it can't give up yet: it isn't detached and committed, or scrapes may
                still see its counts.
            budgets: What it uses of each budget.
            leaving: Whether it stops, and gives up everything.
        """
        self._plan()
        released = [owner for owner in self._giving_up if owner not in attached]
        wanted = [*(owner for owner in self.held if owner not in released), *self.taking]
        sent = [notice for relay in self.relays for notice in relay.sending]
        deleted = [notice for relay in self.relays for notice in relay.deleting]
        return Turn(self.replica, self.lease, wanted, released, budgets, leaving, sent, deleted)

    def took(
        self, turn: Turn, seen: Seen, *, began: float, shown: Mapping[Owner, int]
    ) -> set[Owner]:
        """Takes the result of a turn. Returns the leases that were lost.

        Args:
            turn: What was asked for.
            seen: The result.
            began: When the turn began (monotonic clock).
            shown: The workflows whose counts scrapes may see, with the epochs of their leases. The
                turn only proves what is held if it shows that none of these is lost.
        """
        self.seen = seen
        mine = {o: lease.epoch for o, lease in seen.leases.items() if lease.replica == self.replica}
        given_up = {*(self.held if turn.leaving else turn.released)}
        lost = {o for o, epoch in self.held.items() if mine.get(o) != epoch} - given_up
        self.held = mine
        for relay in self.relays:
            relay.took(turn, seen, mine)
        self._plan()
        if all(mine.get(owner) == epoch for owner, epoch in shown.items()):
            self.proven_until = began + self.lease * (1 - _MARGIN)
        return lost

    def lose(self, owners: Collection[Owner]) -> None:
        """Takes note that others have taken these leases."""
        self.held = {owner: epoch for owner, epoch in self.held.items() if owner not in owners}

    def _plan(self) -> None:
        wanted = self._all_wanted()
        self.taking, give_up = plan(self.seen, wanted, self.replica.id)
        self._giving_up = {*give_up, *(self.held.keys() - wanted)}

    def _all_wanted(self) -> set[Owner]:
        return set().union(*self.wanted.values())
