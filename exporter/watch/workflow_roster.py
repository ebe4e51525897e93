"""Which workflows of an account are attached: those that the configuration names, and those of the
account's list that match its globs, until they were missing for `poll.forget_after`."""

import asyncio
import contextlib
from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase
from math import inf

import structlog

from exporter.cloudflare.errors import RequestFailed
from exporter.cloudflare.models import ListedWorkflow as Listed
from exporter.config.accounts import Workflow, is_glob
from exporter.metrics.labels import WorkflowKey
from exporter.state.backend import NotRestored, Owner
from exporter.watch.attachment import Attacher, Attachment
from exporter.watch.discovery import Discovery

log = structlog.get_logger(__name__)

_READ_EVERY = 30.0
"""Seconds; the platform's counts are up to half a minute old anyway."""
_LIMITS_EVERY = 3600.0


class WorkflowRoster:
    """The attached workflows of one account.

    Args:
        configured: The configuration's entries, which a reload may replace.
        attacher: Attaches and detaches them.
        changing: Held while what is watched changes.
    """

    def __init__(
        self,
        configured: Sequence[Workflow],
        *,
        attacher: Attacher,
        changing: asyncio.Lock,
    ) -> None:
        self.attacher = attacher
        self.settings = attacher.settings
        self.label = self.settings.account.label
        self.leases = attacher.writer.leases
        self.queue = attacher.queue
        self.reported = attacher.reported
        self.attached: dict[str, Attachment] = {}
        self.configured = list(configured)
        self.read_at = -inf
        """When the account's workflows were last read (monotonic clock); -inf: they are to be read
        at once."""
        self._found: set[str] = set()
        self._changing = changing
        self._upstream, self._store = attacher.client, attacher.store
        self._clock = attacher.clock
        self._limits_at: dict[str, float] = {}
        self._missing: dict[str, float] = {}

    @property
    def discoveries(self) -> dict[str, Discovery]:
        """Those of the workflows that are discovered."""
        return {n: a.discovery for n, a in self.attached.items() if a.discovery is not None}

    @property
    def elsewhere(self) -> dict[str, tuple[str, str] | None]:
        """The workflows to be watched that aren't attached here, each with its holder, as of
        `Leases.holder`."""
        missing = (name for name in self.wanted if name not in self.attached)
        return {n: self.leases.holder(self._owner(n)) for n in missing}

    @property
    def readable(self) -> bool:
        """Whether anything of it can be read: a workflow or, while none is attached, their list."""
        if not self.attached:
            return self.read_at > -inf
        return any(attachment.poller.up for attachment in self.attached.values())

    @property
    def wanted(self) -> dict[str, Workflow]:
        """The entries for the workflows that are named, and for those that were found."""
        named = (w.name for w in self.configured if not is_glob(w.name))
        matches = {n: match_of(n, self.configured) for n in dict.fromkeys((*named, *self._found))}
        return {name: match for name, match in matches.items() if match is not None}

    def take_over(self, former: "WorkflowRoster") -> None:
        """Continues with what was found under former settings."""
        self._found = former._found

    async def attach(
        self, name: str, workflow: Workflow, *, former: Workflow | None = None
    ) -> None:
        """Attaches a workflow by the configuration's entry that it matches (`Attacher.attach`);
        later, where the state can't be read now."""
        with contextlib.suppress(NotRestored):
            self.attached[name] = await self.attacher.attach(name, workflow, former=former)

    async def follow(self) -> bool:
        """Attaches what is wanted and this replica's to watch, and detaches what isn't; whether
        there is something new to watch."""
        self.detach_others()
        missing = {n: w for n, w in self.wanted.items() if n not in self.attached}
        ours = [self.attach(n, w) for n, w in missing.items() if self.holds(n)]
        await asyncio.gather(*ours)
        self.detach_others()  # what was lost meanwhile
        return bool(ours)

    def detach_others(self) -> None:
        """Detaches what isn't this replica's to watch."""
        for name in [name for name in self.attached if not self.holds(name)]:
            self.detach(name)

    def holds(self, name: str) -> bool:
        """Whether a workflow is this replica's to watch or, under an empty name, the account's
        queue of events its to pull."""
        return self.leases.may_attach(self._owner(name))

    def _owner(self, name: str) -> Owner:
        return self.settings.stored_as, name

    def detach(self, name: str) -> None:
        """Detaches a workflow."""
        self.attacher.detach(self.attached.pop(name))
        self._limits_at.pop(name, None)

    async def read(self) -> int:
        """Reads which workflows there are, and how many instances in which status; the number of
        requests."""
        if self._clock.monotonic() - self.read_at < _READ_EVERY:
            return 0
        # Where only configured instances are watched, their polls report the problem.
        matters = bool(self.discoveries) or any(is_glob(w.name) for w in self.configured)
        try:
            rows, requests = list[Listed](), 0
            async for page in self._upstream.workflows():
                rows, requests = rows + page, requests + 1
                self._store.polled("list", "success")
            self.read_at = self._clock.monotonic()
            await self.find({row.name for row in rows if row.name})
            for row in rows:
                if not row.name or row.name not in self.attached:
                    continue
                counts = row.instances
                if counts is None:
                    # The local engine's list holds no counts.
                    requests += 1
                    counts = (await self._upstream.workflow(row.name)).instances or {}
                self._count(row.name, counts)
        except RequestFailed as failure:
            self._store.polled("list", failure.reason)
            self.reported.read(failure, matters=matters)
            return 1
        self.reported.read(None, matters=matters)
        return requests

    async def find(self, names: Collection[str]) -> None:
        """Attaches what globs match of these names, all that the account has; detaches what was
        missing for `poll.forget_after`."""
        async with self._changing:
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
            now = self._clock.monotonic()
            for name in list(self._found):
                if name in names:
                    self._missing.pop(name, None)
                elif now - self._missing.setdefault(name, now) >= self.settings.poll.forget_after:
                    log.info(
                        "workflow no longer exists; its series expired",
                        account=self.label,
                        workflow=name,
                    )
                    self._found.discard(name)
                    del self._missing[name]
                    self.reported.workflows.pop(name, None)
            self.want()
            await self.attacher.writer.turn()
            await self.follow()

    def want(self) -> None:
        """Has what is wanted watched and the events pulled, by this replica or by another."""
        queue = [] if self.attacher.coverage is None else [""]
        owners = {self._owner(name) for name in (*self.wanted, *queue)}
        self.leases.wanted[self.settings.stored_as] = owners

    def _count(self, name: str, counts: dict[str, int]) -> None:
        if name not in self.attached:
            return
        discovery = self.attached[name].discovery
        if discovery is not None:
            discovery.counts = counts
        self._store.counts(WorkflowKey(self.label, name), counts)

    async def read_limits(self, name: str) -> int:
        """Reads the limits of a workflow's newest version, where the API has them; the number of
        requests."""
        recent = self._clock.monotonic() - self._limits_at.get(name, -inf) < _LIMITS_EVERY
        if recent or name not in self.attached:
            return 0
        self._limits_at[name] = self._clock.monotonic()
        try:
            versions = await self._upstream.versions(name)
        except RequestFailed as failure:
            log.debug("failed to read the workflow's limits", workflow=name, error=str(failure))
            # Not every upstream has them: that is no failure that passes.
            if failure.reason not in ("http_4xx", "workflow_not_found"):
                self._limits_at[name] += _READ_EVERY - _LIMITS_EVERY
            return 1
        newest = max(
            versions, key=lambda v: v.created_on.timestamp() if v.created_on else 0.0, default=None
        )
        if newest is not None and name in self.attached:
            self._store.limits(
                WorkflowKey(self.label, name),
                steps=newest.limits.steps if newest.limits else None,
                concurrency=newest.concurrency.limit if newest.concurrency else None,
            )
        return 1


def match_of(name: str, workflows: Iterable[Workflow]) -> Workflow | None:
    """The configuration's entry for a workflow: under its name, else the first glob's."""
    globs = (w for w in workflows if is_glob(w.name) and fnmatchcase(name, w.name))
    return next((w for w in workflows if w.name == name), None) or next(globs, None)
