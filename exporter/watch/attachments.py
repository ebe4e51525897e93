"""The workflows of an account, and how what is watched changes: by attach and detach alone.

Watched are those that the configuration names, and those of the account's list that match its
globs, until they were missing for `poll.forget_after`. The start, a reload, a workflow that is
found or that no longer exists, and a lease that is gained or lost are made of these two operations.
"""

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from math import inf

import structlog
from apscheduler.job import Job

from exporter.clock import Clock
from exporter.cloudflare.credentials import Credentials
from exporter.cloudflare.errors import RequestFailed
from exporter.cloudflare.workflows_client import WorkflowsClient
from exporter.config.accounts import Account, Discover, Workflow, is_glob
from exporter.config.metrics import Metrics
from exporter.config.settings import Api, Poll
from exporter.instances.instance import Scope
from exporter.metrics.labels import WorkflowKey
from exporter.metrics.store import Store
from exporter.state.backend import EVENT_QUEUE, NotRestored, Owner, Replica
from exporter.state.writer import StateWriter
from exporter.watch.discovery import Discovery
from exporter.watch.event_coverage import EventCoverage
from exporter.watch.poll_log import AccountLog
from exporter.watch.poll_queue import PollQueue
from exporter.watch.poller import Poller
from exporter.watch.scheduler import Scheduler
from exporter.watch.selector import Selector
from exporter.watch.watched_instances import WatchedInstances

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class AccountSettings:
    """The settings that all attachments of an account share.

    Attributes:
        account: Without its workflows.
        api: Without the limits of the budget, which may change while workflows are attached.
        stored_as: The account's name in the state.
        credentials: Which may change while workflows are attached.
    """

    account: Account
    api: Api
    poll: Poll
    metrics: Metrics
    stored_as: str
    credentials: Credentials = field(compare=False)

    @property
    def budget_key(self) -> object:
        """Equal for accounts that share a budget."""
        return self.credentials.api.budget_key

    @property
    def place(self) -> tuple[str, str]:
        """What an account is recognized by after a reload: its label and, since it holds its id,
        its name in the state."""
        return self.account.label, self.stored_as


@dataclass(eq=False)
class Attachment:
    """A workflow that is attached.

    Attributes:
        settings: The configuration's entry that it matched.
        watched: Its instances.
        poller: Polls them.
        discovery: Reads its lists; None: only configured instances are watched.
        rounds: Begins those of the poller.
        limits_at: When its limits were last requested (monotonic clock).
    """

    key: WorkflowKey
    settings: Workflow
    watched: WatchedInstances
    poller: Poller
    discovery: Discovery | None
    rounds: Job
    limits_at: float = -inf


@dataclass(eq=False)
class AccountWorkflows:
    """The workflows of one account.

    Attributes:
        settings: What all of them share.
        configured: The configuration's entries, which a reload may replace.
        client: Makes the requests.
        queue: Where polls and pages wait for the credential's budget.
        reported: What the log has reported; it outlives attachments.
        changing: Held while what is watched changes.
        coverage: Of the account's events; None: there are none.
        list_failure: Why the account's workflows could not be listed the last time, if so.
        attached: Those that are watched here, by name.
    """

    settings: AccountSettings
    configured: list[Workflow]
    client: WorkflowsClient
    queue: PollQueue
    store: Store
    writer: StateWriter
    scheduler: Scheduler
    reported: AccountLog
    clock: Clock
    changing: asyncio.Lock
    coverage: EventCoverage | None = field(default=None, init=False)
    list_failure: RequestFailed | None = field(default=None, init=False)
    attached: dict[str, Attachment] = field(default_factory=dict, init=False)
    _found: set[str] = field(default_factory=set, init=False)
    _discovered_by: dict[str, Discover | None] = field(default_factory=dict, init=False)
    """The `discover` with which each workflow was last attached."""
    _missing: dict[str, float] = field(default_factory=dict, init=False)

    @property
    def label(self) -> str:
        return self.settings.account.label

    @property
    def discoveries(self) -> dict[str, Discovery]:
        """Those of the workflows that are discovered."""
        return {n: a.discovery for n, a in self.attached.items() if a.discovery is not None}

    @property
    def elsewhere(self) -> dict[str, Replica | None]:
        """The workflows to be watched that aren't attached here, each with the live replica that
        holds it, if one does."""
        missing = sorted(self.wanted.keys() - self.attached.keys())
        return {n: self.writer.leases.holder(self._owner(n)) for n in missing}

    @property
    def wanted(self) -> dict[str, Workflow]:
        """The entries for the workflows that are named, and for those that were found."""
        named = (w.name for w in self.configured if not is_glob(w.name))
        matches = {n: match_of(n, self.configured) for n in dict.fromkeys((*named, *self._found))}
        return {name: match for name, match in matches.items() if match is not None}

    def take_over(self, former: "AccountWorkflows") -> None:
        """Continues with what was found and selected under former settings."""
        self._found, self._discovered_by = former._found, former._discovered_by
        self.list_failure = former.list_failure

    async def _attach(self, name: str, workflow: Workflow) -> None:
        """Restores what the state holds of a workflow, in slices, and begins to poll; later, where
        the state can't be read now.

        Args:
            name: The workflow.
            workflow: The configuration's entry that it matches.
        """
        key, discover = WorkflowKey(self.label, name), workflow.discover
        selector = None if discover is None else Selector(discover)
        try:
            watched = await self._restored(key, workflow.instances, selector)
        except NotRestored as error:
            self.reported.not_restored(name, str(error))
            return
        self.writer.attach(watched)
        poller = Poller(watched, self.client, self.queue, self.reported.of(key))
        discovery = None
        if selector is not None:
            discovery = Discovery(poller, selector, self.writer, self.coverage)
            if self._discovered_by.get(name, discover) != discover:
                discovery.series_limit.reselect()
            discovery.series_limit.recount()
        self._discovered_by[name] = discover
        rounds = self.scheduler.add(poller, every=self.settings.poll.interval)
        self.attached[name] = Attachment(key, workflow, watched, poller, discovery, rounds)

    async def _restored(
        self, key: WorkflowKey, ids: Collection[str], selector: Selector | None
    ) -> WatchedInstances:
        """The instances of a workflow as the state holds them, and those that are configured.

        Raises:
            NotRestored: the state can't be read now.
        """
        record = await self.writer.restore(key)
        try:
            watched = WatchedInstances(
                key=key,
                record=record,
                ids=frozenset(ids),
                selector=selector,
                backfill=self.settings.metrics.backfill,
                poll=self.settings.poll,
                store=self.store,
                clock=self.clock,
            )
            async for records in self.writer.instances(key):
                for instance_id, instance in records:
                    watched.restore(instance_id, instance)
            known = await self.writer.records(key, watched.missing)
            for instance_id in watched.missing:
                watched.begin(instance_id, Scope.CONFIGURED, known.get(instance_id))
            self.store.all_restored(key)
        except BaseException:
            self.store.detached(key)
            raise
        return watched

    def detach(self, name: str) -> None:
        """Stops polling a workflow, discards the responses under way, has what is pending
        committed, and takes the workflow's series away."""
        attachment = self.attached.pop(name)
        attachment.rounds.remove()
        attachment.poller.detach()
        self.writer.detach(attachment.watched)
        self.store.detached(attachment.key)
        # Now, not when the garbage collector finds them: those attached instead take as much again.
        attachment.watched.instances.clear()

    def detach_all(self) -> None:
        """Detaches every workflow."""
        for name in list(self.attached):
            self.detach(name)

    async def follow(self) -> bool:
        """Attaches what is wanted and this replica's to watch, and detaches what isn't, or was
        attached with other settings; whether there is something new to watch."""
        wanted = self.wanted
        for name, attachment in list(self.attached.items()):
            if wanted.get(name) != attachment.settings:
                self.detach(name)
        self.detach_others()
        missing = {n: w for n, w in wanted.items() if n not in self.attached}
        ours = [self._attach(n, w) for n, w in missing.items() if self.holds(n)]
        await asyncio.gather(*ours)
        self.detach_others()  # what was lost meanwhile
        return bool(ours)

    def detach_others(self) -> None:
        """Detaches what isn't this replica's to watch."""
        for name in [name for name in self.attached if not self.holds(name)]:
            self.detach(name)

    def holds(self, name: str) -> bool:
        """Whether a workflow is this replica's to watch, or `EVENT_QUEUE` its to pull."""
        return self.writer.leases.may_attach(self._owner(name))

    def _owner(self, name: str) -> Owner:
        return self.settings.stored_as, name

    async def find(self, names: Collection[str]) -> None:
        """Attaches what globs match of these names, all that the account has; detaches what was
        missing for `poll.forget_after`, or twice where its own lists say that it is gone, too: but
        not all at once, which may be an error of the API."""
        async with self.changing:
            known = self.wanted.keys()
            for name in sorted(set(names) - known):
                match = match_of(name, self.configured)
                if match is not None:
                    log.info("workflow found", account=self.label, workflow=name, glob=match.name)
                    self._found.add(name)
            configured = (w.name for w in self.configured)
            # Those that no workflow has; one may still appear.
            unmatched = {c for c in configured if not any(fnmatchcase(n, c) for n in names)}
            self.reported.unmatched(unmatched)
            now = self.clock.monotonic()
            for name in list(self._found):
                if name in names:
                    self._missing.pop(name, None)
                    continue
                missing_for = now - self._missing.setdefault(name, now)
                gone = names and missing_for and self._is_gone(name)
                if gone or missing_for >= self.settings.poll.forget_after:
                    log.info(
                        "workflow no longer exists; its series expired",
                        account=self.label,
                        workflow=name,
                    )
                    self._found.discard(name)
                    del self._missing[name]
            self.want()
            await self.writer.turn()
            await self.follow()

    def _is_gone(self, name: str) -> bool:
        """Whether a workflow's own lists say that there is none."""
        attachment = self.attached.get(name)
        failure = attachment.watched.pass_failure if attachment else None
        return failure is not None and failure.reason == "workflow_not_found"

    def want(self) -> None:
        """Has what is wanted watched and the events pulled, by this replica or by another."""
        wanted, queue = self.wanted, [] if self.coverage is None else [EVENT_QUEUE]
        owners = {self._owner(name) for name in (*wanted, *queue)}
        self.writer.leases.wanted[self.settings.stored_as] = owners
        self.reported.drop_others(wanted)


def match_of(name: str, workflows: Iterable[Workflow]) -> Workflow | None:
    """The configuration's entry for a workflow: under its name, else the first glob's."""
    globs = (w for w in workflows if is_glob(w.name) and fnmatchcase(name, w.name))
    return next((w for w in workflows if w.name == name), None) or next(globs, None)
