"""Puts together what an account needs, as a configuration says; what there is already follows."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any

import httpx
import structlog

from exporter.clock import Clock
from exporter.cloudflare.budget import Budget
from exporter.cloudflare.client import Client
from exporter.cloudflare.credentials import Credential
from exporter.config import accounts as settings_
from exporter.config.settings import Settings
from exporter.log_dedup import Throttle
from exporter.metrics.store import Store
from exporter.state.writer import StateWriter
from exporter.watch.account import Account
from exporter.watch.discovery import Discovery
from exporter.watch.poll_queue import PollQueue
from exporter.watch.poller import Poller
from exporter.watch.scheduler import Scheduler
from exporter.watch.selector import Selector
from exporter.watch.shard import Shard, Share
from exporter.watch.sink import WorkflowKey

log = structlog.get_logger(__name__)

_CALLS_AT_ONCE = 10
_LACKING = re.compile(r"\$\.result\[\d+\]\.(id|status)")
"""Without these discovery ignores the whole row, and counts it."""


@dataclass(frozen=True)
class Wiring:
    """What lives as long as the process, and accounts are wired to."""

    store: Store
    writer: StateWriter | None
    scheduler: Scheduler
    shard: Shard
    clock: Clock

    def looks(
        self,
        settings: Settings,
        credentials: Sequence[Credential],
        accounts: Sequence[Account | None],
        former: Mapping[object, PollQueue],
    ) -> dict[object, PollQueue]:
        """One queue and one budget a credential, by its identity, however many accounts it serves.

        An account's new token is taken for one of the same user, as it is when tokens are rotated:
        the calls that were made with the old one count on.

        Args:
            settings: All of them.
            credentials: Of each account.
            accounts: Those that are there already, each in the place of its credential.
            former: What there is.
        """
        wanted = {credential.budget_key for credential in credentials}
        used: dict[object, PollQueue] = {}
        for credential, account in zip(credentials, accounts, strict=True):
            looks = used.get(credential.budget_key, former.get(credential.budget_key))
            if looks is None and account is not None and account.queue not in used.values():
                served = {identity for identity, known in former.items() if known is account.queue}
                looks = None if served & wanted else account.queue
            if looks is None:
                budget = Budget(
                    settings.requests_per_5m,
                    reserve=settings.api.reserve,
                    shards=self.shard.count,
                    clock=self.clock,
                )
                looks = PollQueue(budget, at_once=_CALLS_AT_ONCE, clock=self.clock)
            looks.budget.configure(settings.requests_per_5m, reserve=settings.api.reserve)
            used[credential.budget_key] = looks
        return used

    def account(
        self,
        settings: Settings,
        account: settings_.Account,
        credential: Credential,
        *,
        http: httpx.AsyncClient,
        looks: PollQueue,
        known: Account | None = None,
    ) -> Account:
        """An account as configured; `known` is the one that is there already."""
        client = Client(
            http,
            settings.api,
            account.account_id,
            credential,
            budget=looks.budget,
            on_request=partial(self.store.api_request, account.label),
            on_ignored=partial(_ignored, self.store, account.label, Throttle(self.clock)),
        )
        making = _Making(self, settings, account, client, looks)
        parts: dict[str, Any] = {
            "upstream": client,
            "looks": looks,
            "poll": settings.poll,
            "make_poller": making.poller,
            "make_discovery": making.discovery,
        }
        if known is not None:
            known.configure(account.workflows, **parts)
            return known
        self.store.account_found(account.label)
        if self.writer:
            self.writer.adopt_account(account.label)
        return Account(
            account.label,
            account.workflows,
            sink=self.store,
            clock=self.clock,
            on_found=self.scheduler.add,
            on_lost=self._lost,
            **parts,
        )

    def first_watched(self, key: WorkflowKey) -> float:
        """When a workflow was first watched, in Unix time."""
        return self.writer.first_watched(key) if self.writer else self.clock.wall()

    def sharded_since(self, key: WorkflowKey) -> float:
        """Since when so many shards share a workflow, in Unix time."""
        writer, count = self.writer, self.shard.count
        return writer.sharded_since(key, count) if writer else self.clock.wall()

    def _lost(self, poller: Poller) -> None:
        self.scheduler.remove(poller)
        if self.writer:
            self.writer.release(poller.state)


@dataclass(frozen=True)
class _Making:
    """Makes pollers and discoveries of an account, or has those there are follow."""

    wiring: Wiring
    settings: Settings
    account: settings_.Account
    client: Client
    looks: PollQueue

    def poller(
        self, key: WorkflowKey, workflow: settings_.Workflow, known: Poller | None
    ) -> Poller:
        wiring, backfill = self.wiring, self.settings.metrics.backfill
        parts: dict[str, Any] = {
            "discovers": workflow.discover is not None,
            "upstream": self.client,
            "poll": self.settings.poll,
            "since": wiring.first_watched(key) if backfill is False else -inf,
            "looks": self.looks,
        }
        if known is not None:
            known.configure(workflow.instances, **parts)
            return known
        began = wiring.sharded_since(key)
        poller = Poller(
            key,
            workflow.instances,
            share=Share(wiring.shard, self.account.key, key.workflow, began),
            sink=wiring.store,
            clock=wiring.clock,
            **parts,
        )
        if wiring.writer:
            wiring.writer.adopt(poller.state)
        return poller

    def discovery(self, poller: Poller, selector: Selector, known: Discovery | None) -> Discovery:
        wiring = self.wiring
        parts: dict[str, Any] = {
            "lister": self.client,
            "poll": self.settings.poll,
            "backfill": bool(self.settings.metrics.backfill),
        }
        if known is not None:
            known.configure(selector, **parts)
            return known
        return Discovery(poller, selector, sink=wiring.store, clock=wiring.clock, **parts)


def kept_as(accounts: Iterable[settings_.Account]) -> dict[str, str]:
    """By label, what the state knows each account as: its id, so that it may be renamed. Of
    several with the same id the first; the others, by id and label."""
    known: dict[str, str] = {}
    for account in accounts:
        name = account.account_id or account.label
        taken = name in known.values()
        known[account.label] = f"{name}/{account.label}" if taken else name
    return known


def _ignored(
    store: Store, account: str, throttle: Throttle, endpoint: str, places: list[str]
) -> None:
    store.ignored(sum(_LACKING.fullmatch(place) is None for place in places))
    if throttle.may(endpoint):
        log.warning(
            "ignored parts of a response that could not be read; the rest is taken",
            account=account,
            endpoint=endpoint,
            parts=len(places),
            first=places[0],
            advice="Cloudflare's API may have changed: look for a newer version of the exporter",
        )
