"""What is watched, as the state sees it; `exporter.watch` provides it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from exporter.cloudflare.replica_budgets import Allotment, BudgetUse
from exporter.state.record_codec import Records


class Watched(Protocol):
    """An attached workflow, as the state sees it; see `exporter.watch.watched_instances`."""

    def take_changes(self, *, workflow: bool = False) -> Records:
        """The records of the workflow and its instances that changed since the last call.

        Args:
            workflow: Whether to return the workflow's record even if it has not changed.
        """

    def record_all(self) -> None:
        """Has `take_changes` return everything again, since the state was lost."""


class Watching(Protocol):
    """All that this replica watches; see `exporter.watch.watched_accounts`."""

    @property
    def attached(self) -> Iterable[Watched]:
        """The workflows that are attached."""

    def unpolled(self) -> Sequence[str]:
        """What wasn't polled yet, a line for each."""

    def budget_uses(self) -> Mapping[str, BudgetUse]:
        """What this replica has used and needs of each credential's budget."""

    def allot(self, allotments: Mapping[str, Allotment]) -> None:
        """Takes what the turn granted for which `budget_uses` was asked."""

    def detach_unheld(self) -> None:
        """Detaches, at once, what this replica doesn't hold."""
