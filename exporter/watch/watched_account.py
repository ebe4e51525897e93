"""One watched account: its list passes, one after another, and its events.

A pass over the account first reads the list of its workflows, with the platform's counts of their
instances. Then it reads the limits and the lists of one workflow after the other. List pages and
polls take turns at the budget.
"""

import asyncio
from collections.abc import Awaitable
from math import inf

import structlog

from exporter.clock import wait_at_most
from exporter.cloudflare.errors import RequestFailed
from exporter.cloudflare.models import ListedWorkflow
from exporter.cloudflare.pagination import PAGE_SIZE
from exporter.cloudflare.replica_budgets import WINDOW
from exporter.cloudflare.times import corrected, unix
from exporter.config.accounts import is_glob
from exporter.instances.urgency import stretched
from exporter.watch.account_workflows import AccountWorkflows, Attachment
from exporter.watch.events import Events

log = structlog.get_logger(__name__)

_READ_EVERY = 30.0
"""Seconds between two reads of the list of workflows. Its counts are up to half a minute old."""
_LIMITS_EVERY = 3600.0
"""Seconds between two reads of a workflow's limits."""


class WatchedAccount:
    """The list passes and the events of an account.

    Args:
        workflows: The workflows of the account.
        events: The events of the account; None: it has none.
    """

    def __init__(self, workflows: AccountWorkflows, events: Events | None) -> None:
        self._clock = clock = workflows.clock
        self._client, self._store = workflows.client, workflows.store
        self.workflows = workflows
        self.events = events
        if events is not None:
            events.on_distrust = self.wake
        self.pass_done = False
        """Whether a pass over all workflows has ended, whether or not it succeeded."""
        self.requests_per_pass = 0
        """Requests that the last pass over all workflows took."""
        self.next_pass = self._passed_at = clock.monotonic()
        """When the next pass is due (monotonic clock)."""
        self._read_at = -inf
        """When the list of workflows was last read (monotonic clock); -inf: it is to be read with
        the next pass."""
        self._wake = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    @property
    def _interval(self) -> float:
        """Seconds from the start of one pass over all workflows to the next."""
        rare = self.events.list_interval if self.events and self.events.trusted else 0.0
        return max(self.workflows.settings.poll.interval, rare)

    @property
    def readable(self) -> bool:
        """Whether anything of the account can be read: a workflow or, while none is attached, the
        list of workflows."""
        attached = self.workflows.attached.values()
        return any(a.poller.up for a in attached) if attached else self._read_at > -inf

    @property
    def lag(self) -> float:
        """Seconds by which the account's most overdue poll or list pass is late."""
        polls = (attachment.poller.lag for attachment in self.workflows.attached.values())
        lists = self._clock.monotonic() - self.next_pass if self.workflows.discoveries else 0.0
        return max(0.0, lists, self.workflows.queue.lag, *polls)

    @property
    def needed(self) -> float:
        """Requests in 5 minutes that would keep all polls and list passes on time."""
        attached = self.workflows.attached.values()
        polls = sum(len(a.watched.configured_ids) for a in attached)
        # No pass has read the lists of a workflow that is new to this replica. They have about as
        # many pages as the instances that the state holds of it fill.
        new = (a for a in attached if a.discovery is not None and not a.watched.passes.done)
        pages = sum(1 + len(a.watched.instances) // PAGE_SIZE for a in new)
        return (polls + self.requests_per_pass + pages) * WINDOW / self._interval

    @property
    def progress_at(self) -> float:
        """When a pass last made progress (monotonic clock)."""
        pages = (d.lists.progress_at for d in self.workflows.discoveries)
        return max([self._passed_at, *pages])

    def wake(self) -> None:
        """Begins the next pass at once, since there are new workflows, or events miss changes."""
        self._read_at = -inf
        self._wake.set()

    def start(self) -> None:
        """Begins to `run`, unless that has begun."""
        if self._running is None:
            self._running = asyncio.create_task(self.run())

    def stop(self) -> None:
        """Ends what `start` began."""
        if self._running is not None:
            self._running.cancel()

    async def run(self) -> None:
        """Makes one pass after the other, and pulls events. Never returns."""
        await asyncio.gather(self._passes(), *([self.events.run()] if self.events else []))

    async def _passes(self) -> None:
        while True:
            self._wake.clear()
            await self.list_passes()
            await wait_at_most(max(0.0, self.next_pass - self._clock.monotonic()), self._wake)

    async def list_passes(self) -> None:
        """Makes one list pass over each workflow."""
        started, before = self._clock.monotonic(), self._requests
        await self._survive(self._read_workflows())
        for discovery in self.workflows.discoveries:
            await self._survive(discovery.read_before_first_pass())
        for attachment in list(self.workflows.attached.values()):
            if attachment.watched.detached:
                continue
            await self._survive(self._read_limits(attachment))
            if attachment.discovery is not None:
                await self._survive(attachment.discovery.list_pass())
        self.pass_done, self.requests_per_pass = True, self._requests - before
        self._passed_at = self._clock.monotonic()
        interval = self._interval
        if self.workflows.queue.details_wait:
            interval = stretched(interval, self._passed_at - started)
        self.next_pass = started + interval

    @property
    def _requests(self) -> int:
        """Requests of list passes so far."""
        return self._client.sent.total() - self._client.sent["instance"]

    async def _survive(self, part: Awaitable[None]) -> None:
        """Does a part of a pass. A fault of ours in it must not prevent the others."""
        try:
            await part
        except Exception as error:
            self.workflows.log.pass_failed(error)

    async def _read_workflows(self) -> None:
        """Reads the list of workflows, and the platform's counts of their instances by status."""
        if self._clock.monotonic() - self._read_at < _READ_EVERY:
            return
        # If only configured instances are watched, nothing depends on the list.
        globs = any(is_glob(entry.name) for entry in self.workflows.settings.entries)
        matters = globs or bool(self.workflows.discoveries)
        failed: RequestFailed | None = None
        rows = list[ListedWorkflow]()
        try:
            async for page in self._client.workflows():
                rows += page
                self._store.polled("list", "success")
            self._read_at = self._clock.monotonic()
        except RequestFailed as failure:
            failed = failure
        if rows or failed is None:
            names = {row.name for row in rows if row.name}
            await self.workflows.on_listed(names, whole=failed is None)
        for row in rows:
            attachment = self.workflows.attached.get(row.name or "")
            if attachment is not None:
                try:
                    await self._count(attachment, row)
                except RequestFailed as failure:
                    failed = failed or failure
        if failed is not None:
            self._store.polled("list", failed.reason)
        self.workflows.list_failure = failed
        self.workflows.log.listed(failed, matters=matters)

    async def _count(self, attachment: Attachment, row: ListedWorkflow) -> None:
        if row.instances is None:  # as in the local engine's list
            row = await self._client.workflow(attachment.watched.key.workflow)
        counts = row.instances or {}
        if attachment.discovery is not None:
            attachment.discovery.counts = counts
        if not attachment.watched.detached:
            self._store.counts(attachment.watched.key, counts)

    async def _read_limits(self, attachment: Attachment) -> None:
        """Reads the limits of a workflow's newest version, where the API has them."""
        now, key = self._clock.monotonic(), attachment.watched.key
        if now - attachment.limits_at < _LIMITS_EVERY:
            return
        attachment.limits_at = now
        try:
            versions = await self._client.versions(key.workflow)
        except RequestFailed as failure:
            log.debug(
                "failed to read the workflow's limits", workflow=key.workflow, error=str(failure)
            )
            # An upstream that doesn't have them responds like this. Other failures may pass.
            if failure.reason not in ("http_4xx", "workflow_not_found"):
                attachment.limits_at += _READ_EVERY - _LIMITS_EVERY
            return
        newest = max(versions, key=lambda v: unix(corrected(v.created_on)) or 0.0, default=None)
        if newest is not None and not attachment.watched.detached:
            self._store.limits(key, newest)
