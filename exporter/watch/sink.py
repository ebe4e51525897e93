"""Where the watch puts what it learns: the seam to metrics and to the state."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from exporter.cloudflare.errors import RequestFailed
from exporter.instances.run_tracker import Observations
from exporter.instances.values import InstanceValues


class WorkflowKey(NamedTuple):
    """A workflow as the labels name it."""

    account: str
    workflow: str


class RoundOutcome(NamedTuple):
    """What a round over a workflow came to. Times are Unix seconds."""

    up: bool
    at: float
    as_of: float
    """The status of the live instances is known as of then."""
    failing: Mapping[str, int]
    """Instances whose last poll failed, by class of failure."""
    watched: Mapping[str, int]
    """Instances that are watched, with series or without, by status."""


EVENT_RESULTS = ("shown", "known", "listed", "unconfirmed", "other", "unreadable")
"""Of messages: a poll showed the change; it was known before; it is left to list passes; no poll
showed it; it isn't of an instance that is watched; it can't be read."""


class Sink(Protocol):
    """Takes what a poll of an instance brought; every call takes effect as a whole."""

    def shown(
        self, workflow: WorkflowKey, instance_id: str, values: InstanceValues, last_change: float
    ) -> None:
        """An instance has these values, which last changed at a Unix time."""

    def restored(
        self, workflow: WorkflowKey, instance_id: str, values: InstanceValues, last_change: float
    ) -> None:
        """An instance had these values before a restart."""

    def all_restored(self, workflow: WorkflowKey) -> None:
        """All instances of a workflow that are still to have series were restored."""

    def counted(self, workflow: WorkflowKey, instance_id: str, observations: Observations) -> None:
        """Something finished, of an instance that has series or of one that is only counted."""

    def skipped(self, workflow: WorkflowKey) -> None:
        """A run that ended has expired, and its steps were never fetched."""

    def removed(self, workflow: WorkflowKey, instance_id: str) -> None:
        """An instance has no series any more."""

    def polled(self, kind: str, result: str) -> None:
        """A request succeeded, or failed: `success` or the class of failure."""

    def round_over(self, workflow: WorkflowKey, outcome: RoundOutcome) -> None:
        """A round over a workflow ended."""

    def ignored_row(self) -> None:
        """A row of a list had no status or no valid id."""

    def dropped(self) -> None:
        """`max_instances` left an instance out."""

    def attached(self, workflow: WorkflowKey) -> None:
        """A workflow is watched from now on."""

    def detached(self, workflow: WorkflowKey) -> None:
        """A workflow is detached, and its series are removed."""

    def counts(self, workflow: WorkflowKey, counts: Mapping[str, int]) -> None:
        """The platform's own counts of a workflow's instances, by status."""

    def event_seen(self, account: str, kind: str, result: str) -> None:
        """A message of the account's queue is done with; empty kind: of another, or unreadable."""

    def event_shown(self, seconds: float) -> None:
        """What an event announced was committed, so long after it happened."""

    def limits(self, workflow: WorkflowKey, *, steps: int | None, concurrency: int | None) -> None:
        """A workflow's limits on the steps of an instance and on instances running at once."""


@contextmanager
def counted(sink: Sink, kind: str) -> Iterator[None]:
    """Counts a request as a poll of a kind, by its result."""
    try:
        yield
    except RequestFailed as failure:
        sink.polled(kind, failure.reason)
        raise
    sink.polled(kind, "success")
