"""What is attached: a workflow, with settings that stay as they are until it is detached."""

from dataclasses import dataclass

from exporter.config.accounts import Account, Workflow
from exporter.config.metrics import Metrics
from exporter.config.settings import Api, Poll
from exporter.metrics.labels import WorkflowKey
from exporter.watch.discovery import Discovery
from exporter.watch.poller import Poller
from exporter.watch.watched_instances import WatchedInstances

Place = tuple[str, str | None, str]
"""What an account is recognized by after a reload: label, id, and name in the state."""


@dataclass(frozen=True)
class AccountSettings:
    """The settings that all attachments of an account share.

    Attributes:
        account: Without its workflows.
        api: Without the limits of the budget, which may change while workflows are attached.
        stored_as: The account's name in the state.
    """

    account: Account
    api: Api
    poll: Poll
    metrics: Metrics
    stored_as: str

    @property
    def place(self) -> Place:
        """What is the same for as long as it is this account."""
        return self.account.label, self.account.account_id, self.stored_as


@dataclass(frozen=True, eq=False)
class Attachment:
    """A workflow that is attached.

    Attributes:
        settings: The configuration's entry that it matched.
        watched: Its instances.
        poller: Polls them.
        discovery: Reads its lists; None: only configured instances are watched.
    """

    key: WorkflowKey
    settings: Workflow
    watched: WatchedInstances
    poller: Poller
    discovery: Discovery | None
