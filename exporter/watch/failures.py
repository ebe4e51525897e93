"""What the outcome of polls means: for an instance, when it is polled again and whether its series
expire; for its workflow, whether it can be read at all."""

from collections import Counter
from collections.abc import Iterable
from math import inf

from exporter.cloudflare.errors import RequestFailed
from exporter.config.settings import Poll
from exporter.watch.instance import Instance
from exporter.watch.poll_reason import PollRequest

_ABSENT = 2
"""Responses in a row that say that an instance doesn't exist: one may be of a replica behind."""


class Failures:
    """Outcomes of the polls of one workflow. Moments are those of the monotonic clock."""

    def __init__(self, poll: Poll) -> None:
        self.poll = poll
        self.readable = True
        """Whether any poll succeeded in the last round in which one could tell."""
        self._read: bool | None = None
        """Whether any did in this round; None: none ended that tells. An instance that has failed
        before tells nothing of the others."""

    def succeeded(self, instance: Instance, *, now: float) -> None:
        """A poll succeeded."""
        self._read = True
        instance.failure, instance.not_found, instance.checked_at = None, 0, now
        if instance.configured:
            instance.expires_at = None

    def absent(self, instance: Instance, *, now: float) -> bool:
        """The API says that there is no such instance, and nothing is wrong with that; whether its
        series begin to expire for it."""
        self._read = True
        instance.failure = None
        instance.not_found += 1
        if instance.not_found < _ABSENT:
            return False
        if not instance.configured:
            instance.due = inf
        expires = instance.expires_at is None and (instance.seen or not instance.configured)
        if expires:
            instance.expires_at = now + self.poll.forget_after
        return expires

    def failed(
        self, instance: Instance, failure: RequestFailed, *, before: PollRequest | None, now: float
    ) -> None:
        """A poll failed; `before` is the last request of the poll before.

        The pause is twice as long as the one before, so that what fails for ever costs next to
        nothing.
        """
        poll, first = self.poll, instance.failure is None
        if first or not self.readable:
            self._read = self._read or False
        instance.failure, instance.not_found = failure, 0
        pause = 0.0 if first or before is None else 2 * (now - before.at)
        pause = max(min(pause, poll.ended_interval), poll.interval)
        # A round polls what falls due before the middle of its interval.
        instance.due = max(now + pause, instance.detail_after + poll.interval / 2)

    def control(
        self, instances: Iterable[Instance], *, since: float, now: float
    ) -> Instance | None:
        """Of those that weren't polled since the round began, one to poll where all others failed.

        It tells whether they failed or the workflow, and when that can be read again.
        """
        if self._read or (self._read is None and self.readable):
            return None
        idle = (
            i
            for i in instances
            if not i.busy
            and (i.last_request is None or i.last_request.at < since)
            and (i.failure is None or i.detail_after <= now)
        )
        return min(idle, key=lambda i: (i.failure is not None, i.due), default=None)

    def round_over(self, instances: Iterable[Instance], *, now: float) -> list[Instance]:
        """Ends a round; those that fail."""
        failing = [i for i in instances if i.failure is not None]
        if self._read and not self.readable:
            for instance in failing:  # with all others, perhaps, and for the same reason
                instance.due = min(instance.due, max(now, instance.detail_after))
        if self._read is not None:
            self.readable, self._read = self._read, None
        return failing


def by_class(failing: Iterable[Instance]) -> Counter[str]:
    """How many instances fail, by class of failure."""
    return Counter(i.failure.reason for i in failing if i.failure is not None)
