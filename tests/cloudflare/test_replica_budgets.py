"""One budget for several replicas: who gets what of it, turn by turn."""

import msgspec
import pytest

from exporter.cloudflare.replica_budgets import (
    WINDOW,
    Allotment,
    BudgetUse,
    allot,
    least,
    usable,
)


class Database:
    """The ledger of one credential, and the database's clock."""

    def __init__(self) -> None:
        self.ledger, self.now = b"", 0.0

    def turn(
        self,
        replica: str,
        demand: float = 1000.0,
        *,
        share: float | None = None,
        spent: int = 0,
        evenly: int = 0,
        blocked: float = 0.0,
        leaving: bool = False,
    ) -> Allotment:
        """A replica's turn, that has its share since the last one by default.

        Its requests of the last 10 s are `spent`, those of the last 300 s `evenly`.
        """
        had = self.shares.get(replica, 0.0) if share is None else share
        sent = (0, *[evenly // 30] * 30) if evenly else (0, spent)
        use = BudgetUse(600, had, sent, demand, blocked)
        self.ledger, allotment = allot(self.ledger, replica, use, now=self.now, leaving=leaving)
        self.shares = {**self.shares, replica: allotment.share}
        return allotment

    shares: dict[str, float] = {}  # noqa: RUF012 - replaced, never changed

    def settle(self, **demands: float) -> dict[str, float]:
        """Two turns of each replica with these demands, a second each: their shares."""
        for _ in range(2):
            for replica, demand in demands.items():
                self.turn(replica, demand)
            self.now += 1
        return {replica: self.turn(replica, demand).share for replica, demand in demands.items()}


class TestShares:
    def test_one_replica_has_the_whole_limit(self) -> None:
        assert Database().turn("a").share == 600

    def test_they_are_in_proportion_to_demand(self) -> None:
        shares = Database().settle(a=2000, b=1000, c=1000)
        assert shares == pytest.approx({"a": 285, "b": 157.5, "c": 157.5})

    def test_who_needs_nothing_has_a_twentieth(self) -> None:
        assert Database().settle(a=1000, b=0) == pytest.approx({"a": 570, "b": 30})

    def test_they_are_equal_if_nobody_needs_anything(self) -> None:
        assert Database().settle(a=0, b=0, c=0) == pytest.approx({"a": 200, "b": 200, "c": 200})

    def test_they_are_equal_if_a_twentieth_for_each_is_too_much(self) -> None:
        shares = Database().settle(**{f"r{n}": 100.0 * n for n in range(30)})
        assert shares == pytest.approx(dict.fromkeys(shares, 20))

    def test_a_new_one_waits_until_the_others_know_of_it(self) -> None:
        database = Database()
        database.turn("a")
        assert database.turn("b").share == 0
        assert database.turn("a").share == 300
        assert database.turn("b").share == 0  # the result of a's turn may have been lost
        assert database.turn("a").share == 300
        assert database.turn("b").share == 300

    def test_what_was_sent_of_a_larger_share_stays_reserved(self) -> None:
        database = Database()
        database.turn("a")
        database.turn("b")
        database.turn("a", spent=500)
        database.turn("a", spent=450)
        assert database.turn("b").share == 150
        database.turn("a", spent=400)
        assert database.turn("b").share == 200


class TestAbsent:
    def test_the_requests_of_one_that_left_are_reserved_while_they_count(self) -> None:
        database = Database()
        database.turn("a")
        assert database.turn("a", spent=400, leaving=True).share == 0
        assert database.turn("b")[:2] == (200, 600)
        database.now = WINDOW - 1
        assert database.turn("b").share == 200
        database.now = WINDOW
        assert database.turn("b").share == 600

    def test_the_share_of_one_that_is_silent_is_reserved_while_it_may_use_it(self) -> None:
        database = Database()
        database.settle(a=1000, b=1000, c=1000)
        silent_since = database.now
        for unseen, free in ((10, 400), (40, 400), (660, 575), (960, 587.5)):
            database.now = silent_since + unseen
            shares = database.settle(a=1000, b=1000)
            assert shares == pytest.approx({"a": free / 2, "b": free / 2}, abs=2)

    @pytest.mark.parametrize(
        ("sent", "free"),
        [
            (600, {59: 0, 61: 0, 90: 18, 180: 108, 330: 258, 390: 460}),
            (0, {59: 0, 61: 300, 90: 320, 180: 270, 330: 120, 390: 460}),
        ],
    )
    def test_one_that_follows_a_killed_one_sends_requests_as_its_own_leave_the_window(
        self, sent: int, free: dict[int, float]
    ) -> None:
        """It may have sent a burst and 35% of its share in 30 s, then at the rate of half of it.
        All of that may have arrived 30 s late."""
        database = Database()
        database.now = silent_since = 1000.0
        database.turn("a")
        database.turn("a", evenly=sent)
        for unseen, share in free.items():
            database.now = silent_since + unseen
            assert database.turn(f"b-{unseen}").share == pytest.approx(share, abs=2)
            database.turn(f"b-{unseen}", leaving=True)
        database.now += 36_000
        database.turn("c")
        assert msgspec.json.decode(database.ledger).keys() == {"c"}

    @pytest.mark.parametrize(
        ("unseen", "share"), [(0, 200), (29, 200), (30, 100), (330, 50), (630, 25), (10**9, 0)]
    )
    def test_a_replica_uses_less_and_less_without_turns(self, unseen: float, share: float) -> None:
        assert usable(200, unseen) == share


class TestRefused:
    def test_all_stop_and_one_sends_first_again(self) -> None:
        database = Database()
        database.settle(a=1000, b=1000, c=1000)
        assert database.turn("b", blocked=300).blocked == 315
        database.now += 10
        assert database.turn("a").blocked == 290
        assert database.turn("c").blocked == 305
        database.now += 290
        assert [database.turn(name).blocked for name in "abc"] == [0, 0, 0]

    def test_another_is_first_once_the_first_is_silent(self) -> None:
        database = Database()
        database.settle(a=1000, b=1000, c=1000)
        database.now += 60
        database.turn("c")
        assert database.turn("b", blocked=300).blocked == 300
        assert database.turn("c").blocked == 315

    def test_all_stop_though_the_one_that_was_refused_has_left(self) -> None:
        database = Database()
        database.turn("b", blocked=900)
        database.turn("b", blocked=900, leaving=True)
        database.now += 400
        assert database.turn("a").blocked == 500


def test_requests_of_the_others_are_reported() -> None:
    database = Database()
    database.turn("a", spent=100)
    database.turn("b", spent=50, leaving=True)
    assert database.turn("c", spent=7).peers_spent == 150
    database.now = WINDOW
    assert database.turn("c").peers_spent == 0


def test_of_several_allotments_each_limit_holds() -> None:
    allotments = Allotment(20, 30, peers_spent=0, blocked=0), Allotment(10, 200, 7, 60)
    assert least(allotments) == (10, 30, 7, 60)
