"""Events on their way from the replica that pulls them to the one that holds their workflow.

An event goes through the state, as a notice: it is sent with a turn, received with the next turn of
the workflow's holder, and deleted with a later one, once what it made due is recorded. When the
workflow changes hands before, the next holder receives it.
"""

import asyncio
import contextlib
from collections.abc import Container, Iterable

import msgspec

from exporter.cloudflare.event_queue import Event
from exporter.state.backend import Notice, Owner, Seen, Turn

_MOST = 10_000
"""Notices that wait for their holders; until there are fewer, no more should be sent."""
_EVENT = msgspec.msgpack.Decoder(Event)


class EventRelay:
    """The events of one account that this replica sends and receives.

    Args:
        account: Its name in the state.

    Attributes:
        sending: What goes with the next turn.
        deleting: What that turn deletes, too.
        arrived: Set when there is something new to receive.
    """

    def __init__(self, account: str) -> None:
        self.sending: dict[Notice, None] = {}
        self.deleting: dict[Notice, None] = {}
        self.arrived = asyncio.Event()
        self._account = account
        self._received: dict[Notice, bool] = {}
        """In the state, by whether they were handed out."""
        self._unread = 0

    @property
    def full(self) -> bool:
        """Whether no more should be pulled now, since holders take it more slowly."""
        return self._unread + len(self.sending) >= _MOST

    def received(self) -> list[Event]:
        """What other replicas passed on, each event once."""
        events = []
        for notice in [notice for notice, taken in self._received.items() if not taken]:
            self._received[notice] = True
            with contextlib.suppress(msgspec.DecodeError):  # of another version of the exporter
                events.append(_EVENT.decode(notice.data))
        return events

    def pass_on(self, event: Event, *, new: bool) -> None:
        """Leaves an event to the holder of its workflow: the next turn sends it or, where it is not
        `new`, leaves it in the state, to be received again."""
        notice = self._notice(event)
        self._received.pop(notice, None)
        if new:
            self.sending[notice] = None

    def done(self, events: Iterable[Event]) -> None:
        """What these made due is recorded: those that were received are deleted."""
        notices = map(self._notice, events)
        self.deleting.update((notice, None) for notice in notices if notice in self._received)

    def took(self, turn: Turn, seen: Seen, held: Container[Owner]) -> None:
        """Takes what a turn has brought."""
        for notice in turn.sent:
            self.sending.pop(notice, None)
        for notice in turn.deleted:
            self.deleting.pop(notice, None)
            self._received.pop(notice, None)
        self._unread = seen.unread
        received = [notice for notice in seen.notices if notice.account == self._account]
        known = {n: taken for n, taken in self._received.items() if n.owner in held}
        self._received = dict.fromkeys(received, False) | known
        if not known.keys() >= {*received}:
            self.arrived.set()

    def _notice(self, event: Event) -> Notice:
        return Notice(self._account, event.workflow, msgspec.msgpack.encode(event))
