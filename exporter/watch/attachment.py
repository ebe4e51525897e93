"""Attach and detach: the two operations by which what is watched changes.

A workflow is attached with settings that stay as they are until it is detached. The start, a
reload, and a workflow that a glob finds or that no longer exists are made of these two.
"""

from dataclasses import dataclass
from math import inf

from exporter.clock import Clock
from exporter.cloudflare.workflows_client import WorkflowsClient
from exporter.config.accounts import Account, Workflow
from exporter.config.metrics import Metrics
from exporter.config.settings import Api, Poll
from exporter.instances.instance import Scope
from exporter.metrics.labels import WorkflowKey
from exporter.metrics.store import Store
from exporter.state.writer import StateWriter
from exporter.watch.discovery import Discovery
from exporter.watch.event_coverage import EventCoverage
from exporter.watch.poll_log import AccountLog
from exporter.watch.poll_queue import PollQueue
from exporter.watch.poller import Poller
from exporter.watch.scheduler import Scheduler
from exporter.watch.selector import Selector
from exporter.watch.workflow_state import WorkflowState

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
        state: Its instances.
        poller: Polls them.
        discovery: Reads its lists; None: only configured instances are watched.
    """

    key: WorkflowKey
    settings: Workflow
    state: WorkflowState
    poller: Poller
    discovery: Discovery | None


@dataclass(frozen=True)
class Attacher:
    """Attaches and detaches the workflows of one account.

    Attributes:
        client: Makes the requests.
        queue: Where polls and pages wait for the credential's budget.
        reported: What the log has reported; it outlives attachments.
        coverage: Of the account's events; None: there are none.
    """

    settings: AccountSettings
    client: WorkflowsClient
    queue: PollQueue
    store: Store
    writer: StateWriter
    scheduler: Scheduler
    reported: AccountLog
    clock: Clock
    coverage: EventCoverage | None = None

    async def attach(
        self, name: str, workflow: Workflow, *, former: Workflow | None = None
    ) -> Attachment:
        """Restores what the state holds of a workflow, in slices, and begins to poll.

        Args:
            name: The workflow.
            workflow: The configuration's entry that it matches.
            former: The one by which it was attached until now, if it was.
        """
        key, discover = WorkflowKey(self.settings.account.label, name), workflow.discover
        selector = None if discover is None else Selector(discover)
        record = await self.writer.restore(key)
        try:
            state = WorkflowState(
                key,
                record=record,
                ids=workflow.instances,
                selector=selector,
                backfill=self.settings.metrics.backfill,
                poll=self.settings.poll,
                store=self.store,
                clock=self.clock,
            )
            async for records in self.writer.instances(key):
                for instance_id, instance in records:
                    state.restore(instance_id, instance)
            known = await self.writer.records(key, state.missing)
            for instance_id in state.missing:
                state.begin(instance_id, Scope.CONFIGURED, known.get(instance_id, -inf))
            self.store.all_restored(key)
        except BaseException:
            self.store.detached(key)
            raise
        self.writer.attach(state)
        poller = Poller(state, self.client, queue=self.queue, log=self.reported.of(key))
        discovery = None
        if selector is not None:
            discovery = Discovery(poller, selector, writer=self.writer, coverage=self.coverage)
            if former is not None and former.discover != discover:
                discovery.series_cap.reselect()
        self.scheduler.add(poller, every=self.settings.poll.interval)
        return Attachment(key, workflow, state, poller, discovery)

    def detach(self, attachment: Attachment) -> None:
        """Stops polling, discards the responses under way, has what is pending committed, and takes
        the workflow's series away."""
        self.scheduler.remove(attachment.poller)
        attachment.poller.detach()
        self.writer.detach(attachment.state)
        self.store.detached(attachment.key)
        # Now, not when the garbage collector finds them: those attached instead take as much again.
        attachment.state.instances.clear()
