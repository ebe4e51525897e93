"""What replicas have for each other, as one of them sees it."""

import pytest

from exporter.state.backend import Notice, Replica, Seen, Turn, alone
from exporter.state.replica_notices import Notices

ME = Replica("a-1", "a", "")
MINE = ("acc", "orders")


def notice(name: str, account: str = "acc", workflow: str = "orders") -> Notice:
    return Notice(account, workflow, name.encode())


def turn(
    notices: Notices,
    *received: Notice,
    unread: int = 0,
    held: tuple[tuple[str, str], ...] = (MINE,),
) -> Turn:
    """A turn that brought these; what it sent and deleted."""
    made = Turn(ME, 30.0, held, (), {}, False, [*notices.sending], [*notices.deleting])
    notices.took(made, Seen([ME], {}, {}, received, unread), held)
    return made


@pytest.fixture
def notices() -> Notices:
    return Notices()


class TestReceived:
    def test_is_handed_out_once(self, notices: Notices) -> None:
        turn(notices, notice("1"), notice("other", account="another"))
        turn(notices, notice("1"), notice("2"))
        assert notices.take("acc") == [notice("1"), notice("2")]
        assert notices.take("acc") == []
        turn(notices, notice("1"), notice("2"))
        assert notices.take("acc") == []

    def test_is_deleted_once_it_is_done(self, notices: Notices) -> None:
        turn(notices, notice("1"), notice("2"))
        notices.delete([notice("1"), notice("never received")])
        assert list(turn(notices, notice("2")).deleted) == [notice("1")]
        assert not turn(notices, notice("2")).deleted

    def test_comes_again_where_it_was_dropped(self, notices: Notices) -> None:
        turn(notices, notice("1"))
        notices.take("acc")
        notices.drop([notice("1")])
        notices.delete([notice("1")])
        assert not turn(notices, notice("1")).deleted
        assert notices.take("acc") == [notice("1")]

    def test_is_the_next_holders_once_the_lease_has_moved(self, notices: Notices) -> None:
        turn(notices, notice("1"))
        notices.take("acc")
        turn(notices, held=())
        turn(notices, notice("1"))
        assert notices.take("acc") == [notice("1")]

    def test_wakes_who_listens_and_is_handed_out_from_the_beginning_to_the_next(
        self, notices: Notices
    ) -> None:
        woken: list[str] = []
        notices.listen("acc", lambda: woken.append("former"))
        turn(notices, notice("1"))
        turn(notices, notice("1"))
        assert woken == ["former"]
        notices.take("acc")
        notices.listen("acc", lambda: woken.append("next"))
        turn(notices, notice("1"), notice("2", account="another"))
        assert woken == ["former", "next"]
        assert notices.take("acc") == [notice("1")]


class TestSent:
    def test_goes_with_each_turn_until_one_succeeds(self, notices: Notices) -> None:
        notices.sending[notice("1")] = None
        failed = Turn(ME, 30.0, (), (), {}, False, [*notices.sending])
        notices.sending[notice("2")] = None
        assert [*failed.sent, notice("2")] == list(turn(notices).sent)
        assert not turn(notices).sent

    def test_comes_back_to_the_only_replica(self, notices: Notices) -> None:
        notices.sending[notice("1")] = None
        made = Turn(ME, 30.0, (), (), {}, False, [*notices.sending])
        notices.took(made, alone(made), (MINE,))
        assert notices.take("acc") == [notice("1")]

    def test_is_no_more_than_holders_take(self, notices: Notices) -> None:
        full = []
        for unread in (9_999, 10_000, 9_000):
            turn(notices, unread=unread)
            full.append(notices.full)
        assert full == [False, True, False]
        notices.sending.update((notice(str(number)), None) for number in range(1000))
        assert notices.full
