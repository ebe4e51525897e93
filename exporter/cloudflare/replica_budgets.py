"""One budget for all replicas: how many of a credential's requests each of them may send.

Each replica has a share of the credential's limit. A ledger in the database has an entry for each
replica, which reserves the most requests that the replica can have sent in any 300 seconds: its
share or, if its share was larger before, what it has sent. A share only grows into what the entries
of the others leave. So all replicas together never exceed the limit, whatever happens to one.

A replica that no longer takes turns may have stopped, or may lack only the database and still poll;
nobody can know. So such a replica halves its share after 30 s, and again every 300 s. The others
rely on that: as its requests leave the window, they get half of its share at once.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import msgspec
from msgspec import Struct

WINDOW = 300.0
"""Seconds in which Cloudflare counts requests."""
SLICE = 10.0
"""Seconds of the slices of time in which `BudgetUse.spent` counts requests."""
FRESH = 30.0
"""Seconds after its last turn for which a replica may use all of its share; if its share was larger
before, it may use as many requests as it had sent."""

_LATE = 30.0
"""Maximum seconds from the decision to send a request to its arrival."""
_LEAST = 0.05
"""The part of what can be shared that each replica gets even if it needs nothing."""
BURST = 0.02
"""The part of its share that a replica may send at once after a pause."""
_FRESH_SENDS = 0.35
"""The part of its share that a replica can send in `FRESH` seconds."""
_PROBE = 15.0
"""Seconds for which, after a 429, one replica may probe before the others send requests."""


class BudgetUse(NamedTuple):
    """What one replica reports about a credential's budget. Requests are those in 300 seconds."""

    limit: int
    """Requests that all replicas together may send."""
    share: float
    """Requests that this replica may send."""
    spent: tuple[int, ...]
    """Requests that it has sent: first those in flight, then those of the last 10 s, of the 10 s
    before, and so on."""
    demand: float
    """Requests that it would need to be on time."""
    blocked: float
    """Seconds for which the API still refuses requests, after a 429."""


class Allotment(NamedTuple):
    """What one replica may use of a credential's budget. Requests are those in 300 seconds."""

    share: float
    """Requests that it may send; inf: there are no other replicas."""
    pace: float
    """The share that it will have once others have given up what is to become its own. It already
    sends at that rate."""
    peers_spent: int
    """Requests that the other replicas sent in the last 300 seconds."""
    blocked: float
    """Seconds for which no replica may send requests, after a 429 that any of them received."""


class _Entry(Struct, frozen=True):
    """The entry of one replica in the ledger: what it has sent, may send, and needs."""

    seen: float
    """When it took its last turn, by the database's clock."""
    share: float
    spent: Sequence[int]
    demand: float
    blocked: float
    left: bool

    def present(self, now: float) -> bool:
        """Whether it still takes turns."""
        return not self.left and now - self.seen < FRESH

    def reserved(self, now: float) -> float:
        """The most requests that it can have sent in the 300 s before `now`."""
        if self.share < 1:  # it sends none
            return self.counted(now)
        before = now - _LATE  # requests that were decided on until then have arrived
        most, silent_at = max(self.share, sum(self.spent)), self.seen + FRESH
        if before < silent_at:
            return most
        left, silent = usable(self.share, before - self.seen), before - silent_at
        if silent > WINDOW:
            return left
        # Since its last turn it may first have sent at the rate of its whole share.
        left_to_send = most - self.counted(silent_at) + BURST * self.share
        unknown = min(_FRESH_SENDS * self.share, left_to_send)
        since = usable(self.share, FRESH) * silent / WINDOW
        return max(left, min(most, self.counted(before) + unknown + since))

    def counted(self, now: float) -> int:
        """How many of the requests that it reported still count."""
        unseen = max(0.0, now - self.seen)
        # Place 0 has those in flight, so the requests at place n are n - 1 slices old, or older.
        known = enumerate(self.spent)
        return sum(n for place, n in known if place * SLICE + unseen < WINDOW + SLICE)

    def refused(self, now: float) -> float:
        """Seconds for which the API still refuses requests, as the replica reported."""
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
        ledger: The ledger in JSON, as the last turn of any replica left it; empty: there was none.
        replica: Its id.
        use: What it reports.
        now: Seconds, by the database's clock.
        leaving: Whether this is its last turn: it will send no more requests.

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
    # The old share stays reserved until it reports the new one: it may never learn of this turn.
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


def least(allotments: Iterable[Allotment]) -> Allotment:
    """What a replica may use of a credential that has several names, by the allotment of each."""
    shares, paces, peers_spent, blocked = zip(*allotments, strict=True)
    return Allotment(min(shares), min(paces), max(peers_spent), max(blocked))


def _fair(pool: float, demand: float, demands: Collection[float]) -> float:
    """What a replica gets of a pool: the least for each, and its part of the rest by demand."""
    replicas = 1 + len(demands)
    least = min(max(_LEAST * pool, 1.0), pool / replicas)
    total = demand + sum(demands)
    return least + (pool - replicas * least) * (demand / total if total else 1 / replicas)
