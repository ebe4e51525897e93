"""The events of one account between replicas, as leases and notices carry them."""

import contextlib
from collections.abc import Callable, Iterable

import msgspec

from exporter.cloudflare.queue import Event
from exporter.state.backend import Notice
from exporter.state.leases import Leases

_EVENT = msgspec.msgpack.Decoder(Event)


class EventRelay:
    """What passes events on.

    Args:
        leases: Those of this replica. The queue's is the account's under an empty workflow name.
        account: The account's name in the state.
    """

    def __init__(self, leases: Leases, account: str) -> None:
        self._leases, self._notices = leases, leases.notices
        self._account = account

    @property
    def pulls(self) -> bool:
        """Whether this replica is the one that pulls the queue."""
        return self._leases.proven and self.holds("")

    @property
    def full(self) -> bool:
        """Whether no more should be pulled now, since holders take it more slowly."""
        return self._notices.full

    def holds(self, workflow: str) -> bool:
        """Whether this replica holds a workflow, and won't give it up."""
        return self._leases.may_attach((self._account, workflow))

    def listen(self, arrived: Callable[[], None]) -> None:
        """Has events received from the beginning, and who receives them called when some come."""
        self._notices.listen(self._account, arrived)

    def received(self) -> list[Event]:
        """What other replicas passed on, each event once."""
        events = []
        for notice in self._notices.take(self._account):
            with contextlib.suppress(msgspec.DecodeError):  # of another version of the exporter
                events.append(_EVENT.decode(notice.data))
        return events

    def pass_on(self, event: Event, *, new: bool) -> None:
        """Leaves an event to the holder of its workflow: the next commit sends it or, where it is
        not `new`, leaves it where it is."""
        notice = self._notice(event)
        self._notices.drop([notice])
        if new:
            self._notices.sending[notice] = None

    def done(self, events: Iterable[Event]) -> None:
        """What these made due is recorded: those that were received are deleted."""
        self._notices.delete(map(self._notice, events))

    def _notice(self, event: Event) -> Notice:
        return Notice(self._account, event.workflow, msgspec.msgpack.encode(event))
