"""Whether a workflow as a whole can be read, as the polls of its rounds show. Pure.

A single instance that fails is a problem of that instance. When every poll of a round failed, one
more instance is polled that wasn't due, as a control: it shows whether the whole workflow can't be
read, or only those that were due.
"""

from collections.abc import Iterable

from exporter.instances.instance import Instance


class WorkflowHealth:
    """What the polls of one workflow show, round by round."""

    def __init__(self) -> None:
        self.readable = True
        """Whether any poll succeeded in the last round in which polls showed anything."""
        self.was_read = False
        """Whether any poll has ever succeeded."""
        self._read: bool | None = None
        """Whether any poll of this round succeeded; None: none has shown anything so far."""
        self._failures = 0
        """Polls of this round that failed and showed something."""

    def succeeded(self) -> None:
        """A poll succeeded, or the API said that the instance doesn't exist."""
        self._read = self.was_read = True

    def failed(self, *, before: bool) -> None:
        """A poll failed. It says nothing about other instances if its instance had failed
        `before`."""
        if not before or not self.readable:
            self._read = self._read or False
            self._failures += 1

    def control(
        self, instances: Iterable[Instance], *, since: float, now: float
    ) -> Instance | None:
        """The instance to poll as a control; None if none is needed, or all were polled.

        Args:
            instances: All of the workflow.
            since: When the round began (monotonic clock).
            now: The time (monotonic clock).
        """
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

    def round_over(self, *, empty: bool, waiting: bool) -> bool:
        """Ends a round. Returns whether the workflow can be read again.

        Args:
            empty: Whether the workflow has no instances: then only its lists show anything.
            waiting: Whether polls of instances that have not failed are still to end. They show
                whether a single failure was a problem of its instance.
        """
        if self.readable and self._read is False and waiting and self._failures == 1:
            return False
        again = bool(self._read) and not self.readable
        if self._read is not None or empty:
            self.readable, self._read, self._failures = empty or bool(self._read), None, 0
        return again
