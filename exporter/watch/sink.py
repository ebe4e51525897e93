"""Where the watch puts what it learns: the seam to metrics, and to state kept on disk."""

from typing import NamedTuple, Protocol

from exporter.watch.tracker import Tracked


class WorkflowKey(NamedTuple):
    """A workflow as the labels name it."""

    account: str
    workflow: str


class Sink(Protocol):
    """Takes what a look at an instance brought; every call takes effect as a whole."""

    def moved(
        self, workflow: WorkflowKey, instance_id: str, tracked: Tracked, last_change: float
    ) -> None:
        """An instance's figures changed, or something finished. `last_change` is Unix time."""

    def forgotten(self, workflow: WorkflowKey, instance_id: str) -> None:
        """An instance is gone, and its series with it."""

    def polled(self, kind: str, result: str) -> None:
        """A call was answered, or failed: `success` or the class of failure."""

    def round_over(self, workflow: WorkflowKey, *, up: bool, at: float) -> None:
        """A round over a workflow ended at Unix time `at`."""
