"""What replicas pass on to each other, as one of them sees it."""

from math import inf

import msgspec
import pytest

from exporter.cloudflare.event_queue import Event
from exporter.state.backend import Notice, Replica, Seen, Turn, alone
from exporter.state.event_relay import EventRelay

ME = Replica("a-1", "a", "")
MINE = ("acc", "orders")


def event(instance: str) -> Event:
    return Event("completed", "id", "orders", instance, -inf)


def notice(instance: str, account: str = "acc") -> Notice:
    return Notice(account, "orders", msgspec.msgpack.encode(event(instance)))


def sends(relay: EventRelay) -> Turn:
    return Turn(ME, 30.0, (), (), {}, False, [*relay.sending], [*relay.deleting])


def turn(
    relay: EventRelay,
    *received: Notice,
    unread: int = 0,
    held: tuple[tuple[str, str], ...] = (MINE,),
) -> Turn:
    """A turn that brought these; what it sent and deleted."""
    made = sends(relay)
    relay.took(made, Seen([ME], {}, {}, received, unread), held)
    return made


@pytest.fixture
def relay() -> EventRelay:
    return EventRelay("acc")


class TestReceived:
    def test_is_handed_out_once(self, relay: EventRelay) -> None:
        turn(relay, notice("1"), notice("other", account="another"))
        turn(relay, notice("1"), notice("2"))
        assert relay.received() == [event("1"), event("2")]
        assert relay.received() == []
        turn(relay, notice("1"), notice("2"))
        assert relay.received() == []

    def test_is_deleted_once_it_is_done(self, relay: EventRelay) -> None:
        turn(relay, notice("1"), notice("2"))
        relay.done([event("1"), event("never received")])
        assert list(turn(relay, notice("2")).deleted) == [notice("1")]
        assert not turn(relay, notice("2")).deleted

    def test_comes_again_where_it_was_left_to_the_holder(self, relay: EventRelay) -> None:
        turn(relay, notice("1"))
        relay.received()
        relay.pass_on(event("1"), new=False)
        relay.done([event("1")])
        again = turn(relay, notice("1"))
        assert (again.sent, again.deleted) == ([], [])
        assert relay.received() == [event("1")]

    def test_is_the_next_holders_once_the_lease_has_moved(self, relay: EventRelay) -> None:
        turn(relay, notice("1"))
        relay.received()
        turn(relay, held=())
        turn(relay, notice("1"))
        assert relay.received() == [event("1")]

    def test_wakes_who_waits_for_it(self, relay: EventRelay) -> None:
        turn(relay, notice("other", account="another"))
        assert not relay.arrived.is_set()
        turn(relay, notice("1"))
        assert relay.arrived.is_set()
        relay.arrived.clear()
        turn(relay, notice("1"))
        assert not relay.arrived.is_set()

    def test_is_left_where_another_version_sent_it(self, relay: EventRelay) -> None:
        turn(relay, Notice("acc", "orders", b"of another version"), notice("1"))
        assert relay.received() == [event("1")]


class TestSent:
    def test_goes_with_each_turn_until_one_succeeds(self, relay: EventRelay) -> None:
        relay.pass_on(event("1"), new=True)
        failed = sends(relay)
        relay.pass_on(event("2"), new=True)
        assert {*failed.sent, notice("2")} == {*turn(relay).sent}
        assert not turn(relay).sent

    def test_comes_back_to_the_only_replica(self, relay: EventRelay) -> None:
        relay.pass_on(event("1"), new=True)
        made = sends(relay)
        relay.took(made, alone(made), (MINE,))
        assert relay.received() == [event("1")]

    def test_is_no_more_than_holders_take(self, relay: EventRelay) -> None:
        full = []
        for unread in (9_999, 10_000, 9_000):
            turn(relay, unread=unread)
            full.append(relay.full)
        assert full == [False, True, False]
        for number in range(1000):
            relay.pass_on(event(str(number)), new=True)
        assert relay.full
