"""What replicas have for each other: for the holder of a workflow, from whoever found it out.

A notice goes through the state. It is sent with a turn, received with the next turn of the
workflow's holder, and deleted with a later one, once what it says is recorded. When the workflow
changes hands before, the next holder receives it.
"""

from collections.abc import Callable, Container, Iterable

from exporter.state.backend import Notice, Owner, Seen, Turn

_MOST = 10_000
"""Notices that wait for their holders; until there are fewer, no more should be sent."""


class Notices:
    """The notices of one replica.

    Attributes:
        sending: What goes with the next turn.
        deleting: What that turn deletes, too.
    """

    def __init__(self) -> None:
        self.sending: dict[Notice, None] = {}
        self.deleting: dict[Notice, None] = {}
        self._received: dict[Notice, bool] = {}
        """In the state, by whether they were handed out."""
        self._unread = 0
        self._listeners: dict[str, Callable[[], None]] = {}

    @property
    def full(self) -> bool:
        """Whether no more should be sent now."""
        return self._unread + len(self.sending) >= _MOST

    def listen(self, account: str, arrived: Callable[[], None]) -> None:
        """Has what is received for an account handed out, from the beginning, to who listens."""
        self._listeners[account] = arrived
        self.drop([notice for notice in self._received if notice.account == account])

    def take(self, account: str) -> list[Notice]:
        """What was received for an account, each once."""
        new = [n for n, taken in self._received.items() if n.account == account and not taken]
        self._received.update(dict.fromkeys(new, True))
        return new

    def drop(self, notices: Iterable[Notice]) -> None:
        """Leaves notices in the state: they are received again."""
        for notice in notices:
            self._received.pop(notice, None)

    def delete(self, notices: Iterable[Notice]) -> None:
        """Deletes those of these that were received with the next turn: they are done."""
        self.deleting.update((notice, None) for notice in notices if notice in self._received)

    def took(self, turn: Turn, seen: Seen, held: Container[Owner]) -> None:
        """Takes what a turn has brought."""
        for notice in turn.sent:
            self.sending.pop(notice, None)
        for notice in turn.deleted:
            self.deleting.pop(notice, None)
            self._received.pop(notice, None)
        self._unread = seen.unread
        kept = {n: taken for n, taken in self._received.items() if n.owner in held}
        self._received = dict.fromkeys(seen.notices, False) | kept
        for account in {n.account for n in seen.notices if n not in kept} & self._listeners.keys():
            self._listeners[account]()
