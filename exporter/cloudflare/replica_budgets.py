"""One budget for all replicas: how many requests of a credential each of them may send.

Each replica has a share of the credential's limit. The database holds a ledger of the shares, whose
entry of a replica reserves the most requests that it may have sent in any 300 seconds: its share,
or what it did send where its share was larger before. A share grows only into what the entries of
the others leave, so that all replicas together never pass the limit, whatever happens to one.

A replica that takes no turn may have stopped, or may lack only the database and poll: nobody can
know. After 30 s it halves its share, and again every 300 s; the others count on that, so that they
get half of it at once, as its requests leave the window.
"""

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import msgspec
from msgspec import Struct

WINDOW = 300.0
"""Seconds."""
SLICE = 10.0
"""Seconds, of what `BudgetUse.spent` counts together."""
FRESH = 30.0
"""Seconds after its last turn for which a replica sends all of its share, and more where its share
was larger before: as many requests as it had sent."""

_LATE = 30.0
"""Seconds from the decision to send a request to its arrival, at most."""
_LEAST = 0.05
"""Of what can be shared, what each replica gets even if it needs nothing."""
BURST = 0.02
"""The part of its share that a replica may send at once after a pause."""
_FRESH_SENDS = 0.35
"""The part of its share that a replica sends in `FRESH` seconds, at most."""
_PROBE = 15.0
"""Seconds that one replica has to probe, after a 429, before the others send requests."""


class BudgetUse(NamedTuple):
    """What one replica knows of a credential's budget; requests are those of 300 seconds."""

    limit: int
    """Requests that the credential allows all replicas together."""
    share: float
    """Requests that this replica may send."""
    spent: tuple[int, ...]
    """Requests that it sent: those in flight, then those of the last 10 s, of the 10 s before, and
    so on."""
    demand: float
    """Requests that it would need to be on time."""
    blocked: float
    """Seconds for which the API still refuses requests, after a 429."""


class Allotment(NamedTuple):
    """What one replica may use of a credential's budget; requests are those of 300 seconds."""

    share: float
    """Requests that it may send; inf: all that the credential allows."""
    pace: float
    """Requests at whose rate it sends them: what its share comes to as those of others drain."""
    peers_spent: int
    """Requests that the other replicas sent in the last 300 seconds."""
    blocked: float
    """Seconds for which no replica may send requests, after a 429 that any of them received."""


class _Entry(Struct, frozen=True):
    """What one replica has sent, may send, and needs."""

    seen: float
    """When it took its last turn, by the database's clock."""
    share: float
    spent: Sequence[int]
    demand: float
    blocked: float
    left: bool

    def present(self, now: float) -> bool:
        """Whether it takes turns."""
        return not self.left and now - self.seen < FRESH

    def reserved(self, now: float) -> float:
        """The most requests that it may have sent in the 300 s before `now`."""
        if self.share < 1:  # it sends none
            return self.counted(now)
        before = now - _LATE  # what was decided then has arrived
        most, silent_at = max(self.share, sum(self.spent)), self.seen + FRESH
        if before < silent_at:
            return most
        left, silent = usable(self.share, before - self.seen), before - silent_at
        if silent > WINDOW:
            return left
        # Of what it sent since it was seen last, the first seconds at the pace of all its share.
        left_to_send = most - self.counted(silent_at) + BURST * self.share
        unknown = min(_FRESH_SENDS * self.share, left_to_send)
        since = usable(self.share, FRESH) * silent / WINDOW
        return max(left, min(most, self.counted(before) + unknown + since))

    def counted(self, now: float) -> int:
        """Of the requests that it reported, those that count now."""
        unseen = max(0.0, now - self.seen)
        # The first are in flight, so that each place has the time of a slice more than its age.
        known = enumerate(self.spent)
        return sum(n for place, n in known if place * SLICE + unseen < WINDOW + SLICE)

    def refused(self, now: float) -> float:
        """Seconds for which the API refuses requests."""
        return max(0.0, self.blocked - max(0.0, now - self.seen))


_LEDGER = msgspec.json.Decoder(dict[str, _Entry])


def usable(share: float, unseen: float) -> float:
    """What a replica may use of its share, `unseen` seconds after its last turn."""
    if unseen < FRESH:
        return share
    return share * math.pow(0.5, 1 + (unseen - FRESH) / WINDOW)


def allot(
    ledger: bytes, replica: str, use: BudgetUse, *, now: float, leaving: bool = False
) -> tuple[bytes, Allotment]:
    """A replica's turn at a credential's budget.

    Args:
        ledger: As the last turn of any replica left it, as JSON; empty: there was none.
        replica: Its id.
        use: What it has sent, and needs.
        now: Seconds, by the database's clock.
        leaving: It sends no more requests.

    Returns:
        The ledger after this turn, and what the replica may send from now on.
    """
    entries = _LEDGER.decode(ledger) if ledger else {}
    entries.pop(replica, None)
    others = {
        other: entry
        for other, entry in entries.items()
        if entry.present(now) or entry.reserved(now) >= 1 or entry.refused(now)
    }
    present = {other: entry for other, entry in others.items() if entry.present(now)}
    share = pace = 0.0
    if not leaving:
        silent = (e for o, e in others.items() if not (o in present or e.left))
        absent = sum(entry.reserved(now) for entry in silent)
        free = use.limit - sum(entry.reserved(now) for entry in others.values())
        demands = [entry.demand for entry in present.values()]
        pace = _fair(max(0.0, use.limit - absent), use.demand, demands)
        share = max(0.0, min(pace, free))
    # What it had is reserved until it reports the new share: this turn's result may get lost.
    reserved = 0.0 if leaving else max(share, use.share)
    mine = _Entry(now, reserved, use.spent, use.demand, use.blocked, leaving)
    blocked = max(entry.refused(now) for entry in (mine, *others.values()))
    if blocked and any(other < replica for other in present):
        blocked += _PROBE
    spent = sum(entry.counted(now) for entry in others.values())
    return (
        msgspec.json.encode({**others, replica: mine}),
        Allotment(share, pace, peers_spent=spent, blocked=blocked),
    )


def _fair(pool: float, demand: float, demands: Collection[float]) -> float:
    """What a replica gets of a pool: in proportion to its demand among those of the others."""
    replicas = 1 + len(demands)
    least = min(max(_LEAST * pool, 1.0), pool / replicas)
    total = demand + sum(demands)
    return least + (pool - replicas * least) * (demand / total if total else 1 / replicas)
