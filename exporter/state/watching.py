"""What is watched, as the state sees it; `exporter.watch` provides it."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from exporter.cloudflare.replica_budgets import Allotment, BudgetUse
from exporter.instances.state_records import InstanceRecord, WorkflowRecord
from exporter.metrics.labels import WorkflowKey
from exporter.state.backend import Owner


class Watching(Protocol):
    """All that this replica watches; see `exporter.watch.watched_accounts`."""

    def unpolled(self) -> Sequence[str]:
        """What wasn't polled yet, a line for each."""

    def budget_uses(self) -> Mapping[str, BudgetUse]:
        """What this replica has used and needs of each credential's budget."""

    def allot(self, allotments: Mapping[str, Allotment]) -> None:
        """Takes what the turn granted for which `budget_uses` was asked."""

    def detach_unheld(self) -> None:
        """Detaches, at once, what this replica doesn't hold."""


class Watched(Protocol):
    """An attached workflow, as the state sees it; see `exporter.watch.watched_instances`."""

    key: WorkflowKey
    owner: Owner
    record: WorkflowRecord

    def take_changes(self) -> Mapping[str, InstanceRecord | None]:
        """The records of instances that changed since the last call; None: to be deleted."""

    def record_all(self) -> None:
        """Has `take_changes` return everything again, since the state was lost."""
