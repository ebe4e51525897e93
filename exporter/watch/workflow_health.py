"""Whether a workflow can be read, as the polls of its rounds show. Pure.

One instance that fails is that instance's problem. Where every poll of a round failed, one that
wasn't due is polled, too: it shows whether the workflow can't be read, or only they.
"""

from collections.abc import Iterable

from exporter.instances.instance import Instance


class WorkflowHealth:
    """What the polls of one workflow show, round by round."""

    def __init__(self) -> None:
        self.readable = True
        """Whether any poll succeeded in the last round that could show it."""
        self._read: bool | None = None
        """Whether any did in this round; None: none ended that shows it."""

    def succeeded(self) -> None:
        """A poll succeeded, or the API said that the instance doesn't exist."""
        self._read = True

    def failed(self, *, before: bool) -> None:
        """A poll failed. One of an instance that failed `before` says nothing of the others."""
        if not before or not self.readable:
            self._read = self._read or False

    def control(
        self, instances: Iterable[Instance], *, since: float, now: float
    ) -> Instance | None:
        """Where all polls of the round since then failed, one that wasn't polled, to be polled."""
        if self._read or (self._read is None and self.readable):
            return None
        idle = (
            i
            for i in instances
            if i.activity is None
            and (i.last_poll.request is None or i.last_poll.request.at < since)
            and (i.failure is None or i.detail_after <= now)
        )
        return min(idle, key=lambda i: (i.failure is not None, i.due), default=None)

    def round_over(self, *, empty: bool) -> bool:
        """Ends a round; whether the workflow can be read again. Of an `empty` one, without any
        instance, only lists show it."""
        again = bool(self._read) and not self.readable
        if self._read is not None or empty:
            self.readable, self._read = empty or bool(self._read), None
        return again
