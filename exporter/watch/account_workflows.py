"""The workflows of an account. What is watched changes only by attaching and detaching them.

An account's wanted workflows are those that its configuration names, and those of its list of
workflows that match a configured glob, until they were missing from the list for
`poll.forget_after`. With replicas, this one attaches those whose leases it holds. The start, a
reload, a workflow that is found or that no longer exists, and a lease that is gained or lost all
come down to `reconcile`, which attaches and detaches.
"""

import asyncio
import contextlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from math import inf

import structlog
from apscheduler.job import Job

from exporter.clock import Clock
from exporter.cloudflare.credentials import Credentials
from exporter.cloudflare.errors import RequestFailed
from exporter.cloudflare.workflows_client import WorkflowsClient
from exporter.config.accounts import Account, Workflow, is_glob
from exporter.config.metrics import Metrics
from exporter.config.settings import Api, Poll
from exporter.instances.instance import Scope
from exporter.metrics.catalogue import WorkflowKey
from exporter.metrics.store import Store
from exporter.state.backend import EVENT_QUEUE, NotRestored, Owner, Replica
from exporter.state.writer import StateWriter
from exporter.watch.discovery import Discovery
from exporter.watch.event_coverage import EventCoverage
from exporter.watch.poll_log import AccountLog
from exporter.watch.poll_queue import PollQueue
from exporter.watch.poller import Poller
from exporter.watch.scheduler import Scheduler
from exporter.watch.selector import Selector, match_of
from exporter.watch.watched_instances import WatchedInstances

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class AccountSettings:
    """The settings that all attachments of an account share.

    Attributes:
        account: The account, without its workflows.
        entries: Its workflows. Not compared: other ones may be attached and detached.
        api: Without the limits of the budget: they may change while workflows stay attached.
        stored_as: The account's name in the state.
        credentials: Not compared: they may change while workflows stay attached.
    """

    account: Account
    entries: list[Workflow] = field(compare=False)
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
    def identity(self) -> tuple[str, str]:
        """What identifies an account across reloads: its label, and its name in the state, which
        has its id."""
        return self.account.label, self.stored_as


@dataclass(eq=False)
class Attachment:
    """A workflow that is attached.

    Attributes:
        entry: The entry of the configuration that it matches.
        watched: Its instances.
        poller: Polls them.
        discovery: Reads its lists; None: only configured instances are watched.
        rounds: The job that begins the poller's rounds.
        limits_at: When its limits were last requested (monotonic clock).
    """

    entry: Workflow
    watched: WatchedInstances
    poller: Poller
    discovery: Discovery | None
    rounds: Job
    limits_at: float = -inf


@dataclass(eq=False)
class AccountWorkflows:
    """The workflows of one account.

    Attributes:
        settings: What all of them share. A reload may replace what isn't compared.
        client: Makes the requests.
        queue: Where polls and list pages wait for the credential's budget.
        log: Reports the account's problems; it outlives attachments.
        changing: A lock that all accounts share, held while what is watched changes.
    """

    settings: AccountSettings
    client: WorkflowsClient
    queue: PollQueue
    store: Store
    writer: StateWriter
    scheduler: Scheduler
    log: AccountLog
    clock: Clock
    changing: asyncio.Lock

    def __post_init__(self) -> None:
        self.label = self.settings.account.label
        self.coverage: EventCoverage | None = None
        """How completely events announce changes; None: the account has no events."""
        self.list_failure: RequestFailed | None = None
        """Why the account's workflows could not be listed the last time; None: they could."""
        self.attached: dict[str, Attachment] = {}
        """Those that are watched here, by name."""
        self._found: set[str] = set()
        """Workflows of the account that match a glob."""
        self._missing: dict[str, float] = {}
        """Those of `_found` that the account's list lacks, with the time since when (monotonic
        clock)."""

    @property
    def discoveries(self) -> list[Discovery]:
        """Those of the attached workflows that have one."""
        return [a.discovery for a in self.attached.values() if a.discovery is not None]

    @property
    def elsewhere(self) -> dict[str, Replica | None]:
        """The wanted workflows that aren't attached here, each with the live replica that holds it;
        None: there is none."""
        missing = sorted(self.wanted.keys() - self.attached.keys())
        return {n: self.writer.leases.holder(self._owner(n)) for n in missing}

    @property
    def wanted(self) -> dict[str, Workflow]:
        """The workflows that some replica should watch, each with the entry that it matches."""
        named = (entry.name for entry in self.settings.entries if not is_glob(entry.name))
        matches = {n: match_of(n, self.settings.entries) for n in (*named, *sorted(self._found))}
        return {name: match for name, match in matches.items() if match is not None}

    def wants(self, name: str) -> bool:
        """Whether a workflow is one of those that are `wanted`."""
        match = match_of(name, self.settings.entries)
        return match is not None and (not is_glob(match.name) or name in self._found)

    async def recall(self) -> None:
        """Takes the workflows that the state knows for found: after a restart, the account's list
        may fail for long."""
        with contextlib.suppress(NotRestored):
            self._found |= await self.writer.workflows(self.settings.stored_as)

    def continue_with(self, settings: AccountSettings) -> None:
        """Takes settings that differ in what isn't compared. What was watched needn't be found
        first: a glob may stand for a workflow that was named."""
        self._found |= self.wanted.keys()
        self.settings = settings

    def continue_from(self, former: "AccountWorkflows") -> None:
        """Takes what was found or watched from the object that a reload replaces."""
        self._found = {*former._found, *former.wanted}
        self.list_failure = former.list_failure

    async def _attach(self, name: str, entry: Workflow) -> None:
        """Restores what the state holds of a workflow, in slices, and begins to poll. If the state
        can't be read now, nothing is attached; `reconcile` will try again.

        Args:
            name: The workflow.
            entry: The entry of the configuration that it matches.
        """
        key, discover = WorkflowKey(self.label, name), entry.discover
        selector = None if discover is None else Selector(discover)
        try:
            watched = await self._restored(key, entry.instances, selector)
        except NotRestored as error:
            if self.holds(name):
                self.log.not_restored(name, str(error))
            return
        poller = Poller(watched, self.client, self.queue, self.log.of(key))
        discovery = None
        selected_by = "null" if discover is None else discover.model_dump_json()
        if selector is not None:
            discovery = Discovery(poller, selector, self.writer, self.coverage)
            if watched.record.discover not in ("", selected_by):
                discovery.series_limit.reselect()
            discovery.series_limit.recount()
        watched.record.discover = selected_by
        rounds = self.scheduler.add(poller, every=self.settings.poll.interval)
        self.attached[name] = Attachment(entry, watched, poller, discovery, rounds)

    async def _restored(
        self, key: WorkflowKey, ids: Collection[str], selector: Selector | None
    ) -> WatchedInstances:
        """The instances of a workflow: those that the state holds, and all that are configured.

        Raises:
            NotRestored: the state can't be read now.
        """
        owner = self._owner(key.workflow)
        record = await self.writer.restore(key, owner)
        try:
            watched = WatchedInstances(
                key=key,
                owner=owner,
                record=record,
                configured_ids=frozenset(ids),
                selector=selector,
                backfill=self.settings.metrics.backfill,
                poll=self.settings.poll,
                store=self.store,
                clock=self.clock,
            )
            async for records in self.writer.instances(owner):
                for instance_id, instance in records.items():
                    watched.restore(instance_id, instance)
            missing = sorted(watched.configured_ids - watched.instances.keys())
            known = await self.writer.records(owner, missing)
            for instance_id in missing:
                watched.begin(instance_id, Scope.CONFIGURED, known.get(instance_id))
        except BaseException:
            self.store.detached(key)
            raise
        return watched

    def detach(self, names: Sequence[str]) -> None:
        """Stops polling these workflows, and ignores the responses that still come. Hands over what
        is pending to be committed, and removes the workflows' series."""
        for name in names:
            attachment = self.attached.pop(name)
            attachment.rounds.remove()
            attachment.poller.detach()
            self.writer.detach(attachment.watched)
            self.store.detached(attachment.watched.key)
            # Freed now, and not by the garbage collector later: what is attached in place of this
            # needs as much memory again.
            attachment.watched.instances.clear()

    async def reconcile(self) -> bool:
        """Attaches the wanted workflows that this replica holds, and detaches those that it doesn't
        hold, that aren't wanted, or whose settings have changed.

        Returns:
            Whether it tried to attach any.
        """
        ours = {n: entry for n, entry in self.wanted.items() if self.holds(n)}
        self.detach([n for n, a in self.attached.items() if ours.get(n) != a.entry])
        missing = [self._attach(n, e) for n, e in ours.items() if n not in self.attached]
        await asyncio.gather(*missing)
        self.detach_unheld()  # leases may have been lost meanwhile
        return bool(missing)

    def detach_unheld(self) -> None:
        """Detaches the workflows that this replica doesn't hold, or is to give up."""
        self.detach([name for name in self.attached if not self.holds(name)])

    def holds(self, name: str) -> bool:
        """Whether a workflow is this replica's to watch, or `EVENT_QUEUE` its to pull."""
        return self.writer.leases.may_attach(self._owner(name))

    def _owner(self, name: str) -> Owner:
        return self.settings.stored_as, name

    async def on_listed(self, names: Collection[str], *, whole: bool = True) -> None:
        """Takes the names of workflows that the account has: those that match a glob are attached
        and, if the list is `whole`, those that no longer exist are detached."""
        async with self.changing:
            for name in sorted({*names} - self.wanted.keys()):
                match = match_of(name, self.settings.entries)
                if match is not None:
                    log.info("workflow found", account=self.label, workflow=name, glob=match.name)
                    self._found.add(name)
            if whole:
                configured = (entry.name for entry in self.settings.entries)
                # Workflows of these names may still appear.
                unmatched = {c for c in configured if not any(fnmatchcase(n, c) for n in names)}
                self.log.unmatched(unmatched, names)
                self._drop_deleted(names, await self._dropped_elsewhere(names))
            self.request_leases()
            await self.writer.turn()
            await self.reconcile()

    async def _dropped_elsewhere(self, names: Collection[str]) -> set[str]:
        """The found workflows that the account's list lacks and the replica that held them has
        dropped, by the state."""
        missing = self._found - {*names} - self.attached.keys()
        try:
            return missing and missing - await self.writer.workflows(self.settings.stored_as)
        except NotRestored:
            return set()

    def _drop_deleted(self, names: Collection[str], dropped: Collection[str]) -> None:
        """Drops the found workflows that were missing from the account's list for
        `poll.forget_after`. Those whose own lists say, too, that they don't exist are dropped when
        they are missing a second time; not if the list is empty, which may be an error of the API.
        Those that another replica has `dropped` are dropped at once.
        """
        now = self.clock.monotonic()
        for name in self._found - {entry.name for entry in self.settings.entries}:
            if name in names:
                self._missing.pop(name, None)
                continue
            missing_for = now - self._missing.setdefault(name, now)
            is_deleted = names and missing_for and self._lists_say_deleted(name)
            if is_deleted or name in dropped or missing_for >= self.settings.poll.forget_after:
                log.info(
                    "workflow no longer exists; its series expired",
                    account=self.label,
                    workflow=name,
                )
                self._found.discard(name)
                del self._missing[name]
                if name in self.attached:
                    self.attached[name].watched.record.deleted = True

    def _lists_say_deleted(self, name: str) -> bool:
        """Whether a workflow's last list pass failed because it doesn't exist."""
        attachment = self.attached.get(name)
        failure = attachment.watched.passes.failure if attachment else None
        return failure is not None and failure.reason == "workflow_not_found"

    def request_leases(self) -> None:
        """Asks for the leases of all wanted workflows, and of the queue of events. The next turn
        divides them among the replicas."""
        wanted, queue = self.wanted, [] if self.coverage is None else [EVENT_QUEUE]
        owners = {self._owner(name) for name in (*wanted, *queue)}
        self.writer.leases.wanted[self.settings.stored_as] = owners
        self.log.drop_others(wanted)
