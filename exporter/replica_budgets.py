"""The budgets of all credentials, as the turns of replicas carry them."""

from collections.abc import Mapping, Sequence

from exporter.cloudflare.budget_shares import Allotment, BudgetUse
from exporter.watch.list_schedule import ListSchedule
from exporter.watch.poll_queue import PollQueue


class Budgets:
    """What this replica needs and may use of each credential.

    A credential goes by the name, in the state, of the first account that uses it: all replicas
    have the same configuration, and a secret never leaves this process.

    Args:
        accounts: What is watched; a list that the owner may change.
    """

    def __init__(self, accounts: Sequence[ListSchedule]) -> None:
        self._accounts = accounts

    def uses(self) -> dict[str, BudgetUse]:
        """What is used and needed of each."""
        return {
            name: queue.budget.use(
                len(queue) + sum(a.needed for a in self._accounts if a.roster.queue is queue)
            )
            for name, queue in self._queues().items()
        }

    def allot(self, allotments: Mapping[str, Allotment]) -> None:
        """Takes what the turn has brought to which `uses` went."""
        for name, queue in self._queues().items():
            if name in allotments:  # it may be new since
                queue.budget.allot(allotments[name])

    def stop(self) -> None:
        """Sends no more requests."""
        for queue in self._queues().values():
            queue.budget.stop()

    def _queues(self) -> dict[str, PollQueue]:
        names: dict[PollQueue, str] = {}
        for account in self._accounts:
            names.setdefault(account.roster.queue, account.roster.settings.stored_as)
        return {name: queue for queue, name in names.items()}
