"""Who holds what: each replica decides alone, from what all see in the database."""

from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from exporter.clock import Clock
from exporter.state.backend import Lease, Owner, Replica, Seen, alone
from exporter.state.leases import Leases, plan

LEASE = 30.0


def replica(number: int) -> Replica:
    return Replica(f"exporter-{number}", f"exporter-{number}", "")


def workflows(count: int) -> set[Owner]:
    return {("acc", f"workflow-{number}") for number in range(count)}


class Sqlite:
    """Leases as the database grants them: to the first that asks, until its holder is dead."""

    def __init__(self) -> None:
        self.live: set[int] = set()
        self.holders: dict[Owner, int] = {}
        self.moves = 0

    @property
    def seen(self) -> Seen:
        leases = {o: Lease(replica(n), 1) for o, n in self.holders.items() if n in self.live}
        return Seen([replica(n) for n in sorted(self.live)], leases, {})

    def turn(self, number: int, wanted: set[Owner]) -> None:
        self.live.add(number)
        taken, given_up = plan(self.seen, wanted, replica(number).id)
        for owner in given_up:
            assert self.holders.pop(owner) == number
        for owner in taken:
            if self.holders.get(owner) not in self.live:
                self.holders[owner] = number
                self.moves += 1

    def counts(self) -> list[int]:
        held = [n for n in self.holders.values() if n in self.live]
        return [held.count(number) for number in self.live]


NUMBERS = st.integers(0, 4)


@given(count=st.integers(0, 12), turns=st.lists(NUMBERS, max_size=40), dead=st.sets(NUMBERS))
def test_replicas_that_come_and_die_end_with_equal_shares(
    count: int, turns: list[int], dead: set[int]
) -> None:
    database, wanted = Sqlite(), workflows(count)
    for number in turns:
        database.turn(number, wanted)
    database.live -= dead
    for number in 3 * sorted(database.live):
        database.turn(number, wanted)
    if database.live:
        counts = database.counts()
        assert sum(counts) == count
        assert max(counts) - min(counts) <= 1


@given(count=st.integers(0, 12), live=st.integers(1, 5), turns=st.lists(NUMBERS, max_size=40))
def test_nothing_moves_that_need_not(count: int, live: int, turns: list[int]) -> None:
    database, wanted = Sqlite(), workflows(count)
    for number in [*range(live)] * 3:
        database.turn(number, wanted)
    before = database.moves
    for number in turns:
        database.turn(number % live, wanted)
    assert database.moves == before
    database.live.discard(0)
    lost = sum(number == 0 for number in database.holders.values())
    for number in [*range(1, live)] * 3:
        database.turn(number, wanted)
    assert database.moves - before == (lost if live > 1 else 0)


@given(count=st.integers(1, 12), live=st.integers(1, 4), comes=NUMBERS)
def test_one_that_comes_gets_its_share_and_no_more(count: int, live: int, comes: int) -> None:
    """Whatever its name is among those of the others."""
    database, wanted = Sqlite(), workflows(count)
    for number in [n for n in range(live + 1) if n != comes % (live + 1)] * 3:
        database.turn(number, wanted)
    before = database.moves
    for number in [*range(live + 1)] * 3:
        database.turn(number, wanted)
    assert database.moves - before == count // (live + 1)


@given(
    count=st.integers(0, 6),
    others=st.lists(st.sets(st.integers(6, 9)), min_size=1, max_size=4),
    turns=st.lists(NUMBERS, max_size=20),
)
def test_what_all_want_is_held_whatever_else_only_some_want(
    count: int, others: list[set[int]], turns: list[int]
) -> None:
    """As while a changed configuration is rolled out."""
    database = Sqlite()
    wanted = [workflows(count) | {("acc", f"workflow-{n}") for n in more} for more in others]
    live = range(len(wanted))
    for number in [*(n % len(live) for n in turns), *list(live) * 10]:
        database.turn(number, wanted[number])
    assert workflows(count) <= database.holders.keys()
    before = database.moves
    for number in [*live] * 3:
        database.turn(number, wanted[number])
    assert database.moves == before


def test_what_is_no_longer_wanted_makes_room_before_what_is() -> None:
    leases = {owner: Lease(replica(0), 1) for owner in workflows(4)}
    dropped, stay = workflows(2), workflows(4) - workflows(2)
    given_up = plan(Seen([replica(0), replica(1)], leases, {}), stay, replica(0).id)[1]
    assert {*given_up} == dropped


@given(numbers=st.permutations(range(3)), owners=st.permutations(sorted(workflows(8))))
def test_all_come_to_the_same_division_in_whatever_order_the_database_has_it(
    numbers: list[int], owners: list[Owner]
) -> None:
    holders = {owner: int(owner[1][-1]) % 3 for owner in owners[:7]}
    ordered = {owner: holders[owner] for owner in sorted(holders)}
    live = [replica(n) for n in numbers]
    for number in range(3):
        one, other = (
            plan(
                Seen(replicas, {o: Lease(replica(n), 1) for o, n in held.items()}, {}),
                set(owners),
                replica(number).id,
            )
            for replicas, held in ((live, holders), (sorted(live), ordered))
        )
        assert one == other


def test_a_replica_that_is_not_seen_yet_takes_nothing() -> None:
    assert plan(Seen([], {}, {}), workflows(3), replica(0).id) == ([], [])


def attachable(leases: Leases) -> set[Owner]:
    return {owner for owner in workflows(3) if leases.may_attach(owner)}


class TestLeases:
    def make(self, lease: float = LEASE) -> tuple[Leases, list[float]]:
        now = [1000.0]
        clock = Clock(wall=lambda: 0.0, monotonic=lambda: now[0])
        return Leases(replica(0), lease=lease, clock=clock), now

    def take(self, leases: Leases, count: int) -> None:
        leases.wanted["acc"] = workflows(count)
        for _ in range(2):
            turn = leases.turn(leases.held, {})
            leases.took(turn, alone(turn), began=1000.0, shown={})

    def test_the_only_replica_has_all_at_once(self) -> None:
        leases, _ = self.make()
        self.take(leases, 3)
        assert attachable(leases) == workflows(3)
        assert leases.unheld == 0

    def test_they_are_proven_for_less_time_than_they_last(self) -> None:
        leases, _ = self.make()
        self.take(leases, 3)
        assert 1000 + LEASE * 0.8 < leases.proven_until < 1000 + LEASE

    def test_what_is_no_longer_wanted_is_released_once_it_is_detached(self) -> None:
        leases, _ = self.make()
        self.take(leases, 2)
        stays, dropped = sorted(workflows(2))
        leases.wanted["acc"] = {stays}
        turn = leases.turn(attached={stays, dropped}, budgets={})
        assert (set(turn.wanted), list(turn.released)) == ({stays, dropped}, [])
        assert attachable(leases) == {stays}
        turn = leases.turn(attached={stays}, budgets={})
        assert (set(turn.wanted), list(turn.released)) == ({stays}, [dropped])
        assert leases.took(turn, alone(turn), began=1001.0, shown={}) == set()
        assert attachable(leases) == {stays}

    def test_what_another_has_taken_is_lost_and_nothing_proven_by_that_turn(self) -> None:
        leases, _ = self.make()
        self.take(leases, 2)
        stays, taken = sorted(workflows(2))
        turn = leases.turn(leases.held, {})
        peer = replica(1)
        seen = Seen([replica(0), peer], {stays: Lease(replica(0), 1), taken: Lease(peer, 2)}, {})
        before = leases.proven_until
        shown = {stays: 1, taken: 1}
        assert leases.took(turn, seen, began=1020.0, shown=shown) == {taken}
        assert leases.proven_until == before
        # Nor by the next one, while scrapes may still see its counts.
        assert leases.took(turn, seen, began=1021.0, shown=shown) == set()
        assert leases.proven_until == before
        leases.took(turn, seen, began=1022.0, shown={stays: 1})
        assert leases.proven_until > before
        assert attachable(leases) == {stays}

    def test_a_lease_that_was_another_s_meanwhile_is_lost(self) -> None:
        leases, _ = self.make()
        self.take(leases, 1)
        (owner,) = workflows(1)
        turn = leases.turn(leases.held, {})
        seen = Seen([replica(0)], {owner: Lease(replica(0), 3)}, {})
        assert leases.took(turn, seen, began=1050.0, shown={owner: 1}) == {owner}
        assert leases.proven_until < 1050

    def test_what_is_given_up_for_good_is_not_lost(self) -> None:
        leases, _ = self.make()
        self.take(leases, 2)
        turn = leases.turn((), {}, leaving=True)
        assert leases.took(turn, Seen([], {}, {}), began=1010.0, shown={}) == set()
        assert attachable(leases) == set()

    def test_what_no_live_replica_holds_is_unheld(self) -> None:
        leases, _ = self.make()
        self.take(leases, 3)
        turn = leases.turn(leases.held, {})
        peers = [replica(0), replica(1), replica(2)]
        leases.took(turn, Seen(peers, {}, {}), began=1010.0, shown={})
        assert leases.unheld == 3
        assert len(leases.turn((), {}).wanted) == ceil(3 / 3)
