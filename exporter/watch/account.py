"""One account: which of its workflows are watched, and the sweeps over their lists, in turn.

List passes follow each other without end: first the account's workflows and the platform's counts,
then each workflow's lists, whose pages take turns with polls at the budget.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from math import inf
from typing import Protocol

import structlog

from exporter.clock import Clock
from exporter.cloudflare.errors import RequestFailed
from exporter.cloudflare.models import Version
from exporter.cloudflare.models import Workflow as Row
from exporter.config.accounts import Workflow, is_glob
from exporter.config.settings import Poll
from exporter.log_dedup import OpenProblems, Throttle
from exporter.watch.discovery import Discovery
from exporter.watch.poll_queue import PollQueue
from exporter.watch.poller import Poller
from exporter.watch.selector import Selector
from exporter.watch.sink import Sink, WorkflowKey

log = structlog.get_logger(__name__)

_ROSTER_EVERY = 30.0
# The platform's counts are up to half a minute old anyway.
_LIMITS_EVERY = 3600.0
_PER_PAGE = 100
_MOST_PAGES = 100


MakePoller = Callable[[WorkflowKey, Workflow, Poller | None], Poller]
MakeDiscovery = Callable[[Poller, Selector, Discovery | None], Discovery]


class Upstream(Protocol):
    """The calls on an account and its workflows; each raises `RequestFailed`."""

    async def workflows(self, page: int, per_page: int) -> list[Row]: ...
    async def workflow(self, workflow: str) -> Row: ...
    async def versions(self, workflow: str) -> list[Version]: ...


class Account:
    """What is watched of one account.

    Args:
        label: Its name on `/metrics`.
        workflows: What the configuration names; the first that matches a workflow counts.
        make_poller: Makes the poller of a workflow, as it is configured, or has the one there is
            follow the configuration.
        make_discovery: The same for the discovery of a workflow that is discovered.
        on_found: Told of each workflow that is watched from now on.
        on_lost: Told of each workflow that is given up.
    """

    def __init__(
        self,
        label: str,
        workflows: Iterable[Workflow],
        *,
        upstream: Upstream,
        looks: PollQueue,
        sink: Sink,
        poll: Poll,
        clock: Clock,
        make_poller: MakePoller,
        make_discovery: MakeDiscovery,
        on_found: Callable[[Poller], None],
        on_lost: Callable[[Poller], None],
    ) -> None:
        self.label = label
        self.pollers: dict[str, Poller] = {}
        self.discoveries: dict[str, Discovery] = {}
        self.pass_done = False
        """Whether every discovered workflow's lists were read once, whatever came of it."""
        self._on_found, self._on_lost = on_found, on_lost
        self._sink = sink
        self._clock = clock
        self._settings: list[Workflow] = []
        self._configured = asyncio.Event()
        self._roster_at = -inf
        self._limits_at: dict[str, float] = {}
        self._missing: dict[str, float] = {}
        self._troubles = OpenProblems(clock)
        self._faults = Throttle(clock)
        self._unmatched: set[str] = set()
        self._started = self._cycled_at = clock.monotonic()
        self.next_pass = self._started
        """When the next list pass is due (monotonic clock)."""
        self.pages = 0
        """Calls that the last sweep over everything took."""
        self.configure(
            workflows,
            upstream=upstream,
            looks=looks,
            poll=poll,
            make_poller=make_poller,
            make_discovery=make_discovery,
        )

    def configure(
        self,
        workflows: Iterable[Workflow],
        *,
        upstream: Upstream,
        looks: PollQueue,
        poll: Poll,
        make_poller: MakePoller,
        make_discovery: MakeDiscovery,
    ) -> None:
        """Goes on as a configuration says; the arguments are the class's own."""
        for poller in self.leaving(workflows := list(workflows)):
            self._detach(poller)
        self._upstream, self.queue, self.budget = upstream, looks, looks.budget
        self._poll, self._make_poller, self._make_discovery = poll, make_poller, make_discovery
        if workflows != self._settings:
            self._settings, self._roster_at = workflows, -inf
        self._named = frozenset(w.name for w in workflows if not is_glob(w.name))
        for name in dict.fromkeys((*self.pollers, *(w.name for w in workflows))):
            match = match_of(name, workflows)
            if match is not None and not is_glob(name):
                self._watch(name, match)
        if self.pass_done:
            self.next_pass = self._started + poll.interval
        self._configured.set()

    def leaving(self, workflows: Iterable[Workflow]) -> list[Poller]:
        """Those whose workflows such a configuration doesn't name."""
        return [p for name, p in self.pollers.items() if match_of(name, workflows) is None]

    def detach(self) -> None:
        """Ends the watching of all workflows."""
        for poller in list(self.pollers.values()):
            self._detach(poller)

    @property
    def readable(self) -> bool:
        """Whether anything of it can be read: a workflow or, while none is watched, their list."""
        if not self.pollers:
            return self._roster_at > -inf
        return any(poller.up for poller in self.pollers.values())

    @property
    def lag(self) -> float:
        """Seconds by which the next list pass is late."""
        return max(0.0, self._clock.monotonic() - self.next_pass)

    @property
    def progress(self) -> float:
        """When anything of a sweep was last done (monotonic clock)."""
        return max([self._cycled_at, *(d.progress for d in self.discoveries.values())])

    async def run(self) -> None:
        """Sweeps without end."""
        while True:
            self._configured.clear()
            workflows = self._settings
            await self.cycle()
            # Those of a new configuration don't wait.
            while workflows is self._settings:
                rest = max(0.0, self.next_pass - self._clock.monotonic())
                try:
                    async with asyncio.timeout(rest):
                        await self._configured.wait()
                    self._configured.clear()
                except TimeoutError:
                    break

    async def cycle(self) -> int:
        """One sweep over everything; the number of calls it took."""
        started, calls = self._clock.monotonic(), 0
        try:
            calls += await self._roster()
            for name, discovery in list(self.discoveries.items()):
                if self.discoveries.get(name) is not discovery:
                    continue  # given up meanwhile
                calls += await self._read_limits(name)
                calls += await discovery.list_pass()
            for name in self.pollers.keys() - self.discoveries.keys():
                calls += await self._read_limits(name)
        except Exception as error:  # a fault of ours: it must not end the watching
            if self._faults.may(type(error).__name__):
                log.exception("sweep failed for an unknown reason", account=self.label)
        self.pass_done, self.pages = True, calls
        self._cycled_at = self._clock.monotonic()
        self._started = started
        self.next_pass = started + self._poll.interval
        return calls

    async def _roster(self) -> int:
        """Which workflows there are, and how many instances in which status."""
        if self._clock.monotonic() - self._roster_at < _ROSTER_EVERY:
            return 0
        try:
            rows, calls = await self._workflows()
            self._roster_at = self._clock.monotonic()
            self._find({row.name for row in rows if row.name})
            for row in rows:
                if row.name in self.pollers and row.instances is not None:
                    self._count(row.name, row.instances)
            for name in {row.name for row in rows if row.name and row.instances is None}:
                if not (self._leads(name) or name in self.discoveries):
                    continue
                # The local engine's list tells no counts.
                calls += 1
                row = await self._upstream.workflow(name)
                self._count(name, row.instances or {})
        except RequestFailed as failure:
            self._sink.polled("list", failure.reason)
            self._report(failure)
            return 1
        self._report(None)
        return calls

    async def _workflows(self) -> tuple[list[Row], int]:
        rows: list[Row] = []
        for page in range(1, _MOST_PAGES):
            new = await self._upstream.workflows(page, _PER_PAGE)
            self._sink.polled("list", "success")
            known = {row.name for row in rows}
            rows += [row for row in new if row.name not in known]
            if len(new) < _PER_PAGE or len(rows) == len(known):
                break
        return rows, page

    def _find(self, names: set[str]) -> None:
        """Watches what globs match; gives up what has been gone for `poll.forget_after`."""
        for name in sorted(names - self.pollers.keys()):
            match = match_of(name, self._settings)
            if match is not None:
                log.info("workflow found", account=self.label, workflow=name, glob=match.name)
                self._watch(name, match)
        self._tell_unmatched(names)
        now = self._clock.monotonic()
        for name in list(self.pollers):
            if name in names or name in self._named:
                self._missing.pop(name, None)
            elif now - self._missing.setdefault(name, now) >= self._poll.forget_after:
                log.info("workflow is gone, its series too", account=self.label, workflow=name)
                self._detach(self.pollers[name])

    def _tell_unmatched(self, names: set[str]) -> None:
        """Says once of each configured name that no workflow has it; it may still appear."""
        configured = (w.name for w in self._settings)
        unmatched = {c for c in configured if not any(fnmatchcase(name, c) for name in names)}
        for name in sorted(unmatched - self._unmatched):
            log.warning(
                "no workflow of the account has this name, looking for it on",
                account=self.label,
                workflow=name,
                advice="check the name and account_id",
            )
        self._unmatched = unmatched
        for name, poller in self.pollers.items():
            poller.unmatched = name in unmatched

    def _watch(self, name: str, settings: Workflow) -> None:
        key, known = WorkflowKey(self.label, name), self.pollers.get(name)
        if known is None:
            self._sink.found(key)
        discovery = self.discoveries.pop(name, None)
        if settings.discover is None and discovery is not None:
            discovery.detached = True
        poller = self.pollers[name] = self._make_poller(key, settings, known)
        if settings.discover is not None:
            selector = Selector(settings.discover)
            self.discoveries[name] = self._make_discovery(poller, selector, discovery)
        if known is None:
            self._on_found(poller)

    def _detach(self, poller: Poller) -> None:
        name = poller.key.workflow
        poller.detach()
        del self.pollers[name]
        self.discoveries.pop(name, None)
        for by_name in (self._missing, self._limits_at):
            by_name.pop(name, None)
        self._on_lost(poller)
        self._sink.lost(poller.key)

    def _leads(self, name: str) -> bool:
        """Whether a workflow is watched, and what is to be said of it as a whole said here."""
        return name in self.pollers and self.pollers[name].state.share.leads

    def _count(self, name: str, counts: dict[str, int]) -> None:
        if name in self.discoveries:
            self.discoveries[name].counts = counts
        if self._leads(name):
            self._sink.counts(self.pollers[name].key, counts)

    async def _read_limits(self, name: str) -> int:
        """The limits of a workflow's newest version, where the API tells them."""
        recent = self._clock.monotonic() - self._limits_at.get(name, -inf) < _LIMITS_EVERY
        if recent or not self._leads(name):
            return 0
        self._limits_at[name] = self._clock.monotonic()
        try:
            versions = await self._upstream.versions(name)
        except RequestFailed as failure:
            log.debug("no limits to be had", workflow=name, error=str(failure))
            # Not every upstream has them: that is no failure that passes.
            if failure.reason not in ("http_4xx", "workflow_not_found"):
                self._limits_at[name] += _ROSTER_EVERY - _LIMITS_EVERY
            return 1
        newest = max(
            versions, key=lambda v: v.created_on.timestamp() if v.created_on else 0.0, default=None
        )
        if newest is not None and name in self.pollers:
            self._sink.limits(
                self.pollers[name].key,
                steps=newest.limits.steps if newest.limits else None,
                concurrency=newest.concurrency.limit if newest.concurrency else None,
            )
        return 1

    def _report(self, failure: RequestFailed | None) -> None:
        present = [failure.reason] if failure else []
        # Where only listed instances are watched, the looks at them tell the trouble.
        matters = bool(self.discoveries or any(is_glob(w.name) for w in self._settings))
        if failure is not None and self._troubles.news(present):
            log.log(
                logging.WARNING if matters else logging.DEBUG,
                "the account's workflows can't be listed; those known are watched on",
                account=self.label,
                result=failure.reason,
                error=str(failure),
                advice=failure.advice,
            )
        elif self._troubles.over(present):
            log.log(
                logging.INFO if matters else logging.DEBUG,
                "the account's workflows can be listed again",
                account=self.label,
            )


def match_of(name: str, workflows: Iterable[Workflow]) -> Workflow | None:
    """What a configuration says of a workflow: under its name, else the first glob's."""
    globs = (w for w in workflows if is_glob(w.name) and fnmatchcase(name, w.name))
    return next((w for w in workflows if w.name == name), None) or next(globs, None)
