"""List passes of one account, one after another: first the account's workflows and the platform's
counts, then each workflow's lists, whose pages take turns with polls at the budget."""

import asyncio
from collections.abc import Awaitable
from math import inf

import structlog

from exporter.cloudflare.budget_shares import WINDOW
from exporter.log_dedup import Throttle
from exporter.watch.account_workflows import AccountWorkflows
from exporter.watch.events import Events

log = structlog.get_logger(__name__)


class ListSchedule:
    """The list passes of an account.

    Args:
        workflows: The account's workflows.
        events: Those of the account; None: there are none.
    """

    def __init__(self, workflows: AccountWorkflows, events: Events | None) -> None:
        self._clock = clock = workflows.clock
        self.workflows = workflows
        self.events = events
        if events is not None:
            events.on_distrust = self.wake
        self.pass_done = False
        """Whether every discovered workflow's lists were read once, whatever came of it."""
        self.pages = 0
        """Requests that the last pass over all workflows took."""
        self.next_pass = self._passed_at = clock.monotonic()
        """When the next pass is due (monotonic clock)."""
        self._faults = Throttle(clock)
        self._wake = asyncio.Event()

    @property
    def _interval(self) -> float:
        """Seconds from the start of one pass over all workflows to the next."""
        interval = self.workflows.settings.poll.interval
        if self.events is None or not self.events.trusted:
            return interval
        return max(interval, self.events.list_interval)

    @property
    def lag(self) -> float:
        """Seconds by which the account's most overdue poll or list pass is late."""
        polls = (attachment.poller.lag() for attachment in self.workflows.attached.values())
        lists = self._clock.monotonic() - self.next_pass if self.workflows.discoveries else 0.0
        return max(0.0, lists, self.workflows.queue.lag, *polls)

    @property
    def needed(self) -> float:
        """Requests in 5 minutes that polls and list passes take if none is late."""
        attached = self.workflows.attached.values()
        configured = sum(len(a.watched.ids) for a in attached)
        # What is new to this replica has as many pages as the state's instances fill.
        new = (a for a in attached if a.discovery is not None and not a.discovery.pass_done)
        pages = self.pages + sum(1 + len(a.watched.instances) // 100 for a in new)
        return (configured + pages) * WINDOW / self._interval

    @property
    def progress(self) -> float:
        """When anything of a pass was last done (monotonic clock)."""
        return max(
            [self._passed_at, *(d.lists.progress for d in self.workflows.discoveries.values())]
        )

    def wake(self) -> None:
        """Begins the next pass at once: there are new workflows, or events don't do."""
        self.workflows.read_at = -inf
        self._wake.set()

    async def run(self) -> None:
        """Makes pass after pass and pulls events, without end."""
        await asyncio.gather(self._passes(), *([self.events.run()] if self.events else []))

    async def _passes(self) -> None:
        while True:
            self._wake.clear()
            await self.cycle()
            try:
                async with asyncio.timeout(max(0.0, self.next_pass - self._clock.monotonic())):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def cycle(self) -> int:
        """One pass over all workflows; the number of requests it took."""
        started = self._clock.monotonic()
        requests = await self._made(self.workflows.read())
        for discovery in self.workflows.discoveries.values():
            requests += await self._made(discovery.first_contact())
        for attachment in list(self.workflows.attached.values()):
            if attachment.poller.over:
                continue  # detached meanwhile
            requests += await self._made(self.workflows.read_limits(attachment.key.workflow))
            if attachment.discovery is not None:
                requests += await self._made(attachment.discovery.list_pass())
        self.pass_done, self.pages = True, requests
        self._passed_at = self._clock.monotonic()
        self.next_pass = started + self._interval
        return requests

    async def _made(self, requests: Awaitable[int]) -> int:
        """How many requests something took; a fault of ours ends nothing else."""
        try:
            return await requests
        except Exception as error:
            if self._faults.may(type(error).__name__):
                log.exception(
                    "list pass failed for an unknown reason", account=self.workflows.label
                )
            return 0
