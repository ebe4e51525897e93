"""Passes events on from the replica that pulls them to the replica that holds their workflow.

An event goes through the state, as a notice. It is sent with a turn, received with the next turn of
the workflow's holder, and deleted with a later turn, once the state has recorded that its instance
is due. If the workflow changes hands before that, the next holder receives it, too.
"""

import asyncio
import contextlib
from collections.abc import Container, Iterable

import msgspec

from exporter.cloudflare.event_queue import Event
from exporter.state.backend import Notice, Owner, Seen, Turn

_MOST = 10_000
"""Maximum notices that wait for their holders; while there are as many, none should be sent."""
_EVENT = msgspec.msgpack.Decoder(Event)


class EventRelay:
    """The events of one account that this replica sends and receives.

    Args:
        account: Its name in the state.

    Attributes:
        sending: Notices that the next turn sends.
        deleting: Notices that the next turn deletes.
        arrived: Set when there is something new to receive.
    """

    def __init__(self, account: str) -> None:
        self.sending: set[Notice] = set()
        self.deleting: set[Notice] = set()
        self.arrived = asyncio.Event()
        self._account = account
        self._received: dict[Notice, bool] = {}
        """Notices in the state for this replica, and whether `received` has returned them."""
        self._unread = 0

    @property
    def full(self) -> bool:
        """Whether holders are so slow to receive events that none should be pulled now."""
        return self._unread + len(self.sending) >= _MOST

    def received(self) -> list[Event]:
        """The events that other replicas have passed on, each only once."""
        events = []
        for notice in [notice for notice, taken in self._received.items() if not taken]:
            self._received[notice] = True
            with contextlib.suppress(msgspec.DecodeError):  # of another version of the exporter
                events.append(_EVENT.decode(notice.data))
        return events

    def pass_on(self, event: Event, *, new: bool) -> None:
        """Leaves an event to the holder of its workflow.

        Args:
            new: Whether the next turn is to send it; otherwise the state already has it, and the
                holder will receive that.
        """
        notice = self._notice(event)
        self._received.pop(notice, None)
        if new:
            self.sending.add(notice)

    def done(self, events: Iterable[Event]) -> None:
        """Has the next turn delete the notices of these events, if they were received as such."""
        self.deleting.update(self._received.keys() & map(self._notice, events))

    def took(self, turn: Turn, seen: Seen, held: Container[Owner]) -> None:
        """Takes the result of a turn."""
        self.sending.difference_update(turn.sent)
        self.deleting.difference_update(turn.deleted)
        for notice in turn.deleted:
            self._received.pop(notice, None)
        self._unread = seen.unread
        received = [notice for notice in seen.notices if notice.account == self._account]
        known = {n: taken for n, taken in self._received.items() if n.owner in held}
        self._received = dict.fromkeys(received, False) | known
        if not known.keys() >= {*received}:
            self.arrived.set()

    def _notice(self, event: Event) -> Notice:
        return Notice(self._account, event.workflow, msgspec.msgpack.encode(event))
