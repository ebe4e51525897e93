"""The watched accounts, and how a reload replaces what is watched."""

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf

import httpx

from exporter.clock import Clock
from exporter.cloudflare.budget import Budget
from exporter.cloudflare.connections import http_client
from exporter.cloudflare.credentials import read_credentials
from exporter.cloudflare.event_queue import EventQueue
from exporter.cloudflare.replica_budgets import Allotment, BudgetUse, least
from exporter.cloudflare.workflows_client import WorkflowsClient
from exporter.config.accounts import Account
from exporter.config.errors import ConfigError, collected
from exporter.config.settings import Api, Settings
from exporter.metrics.store import Store
from exporter.state.backend import NotRestored
from exporter.state.writer import StateWriter
from exporter.watch.account_workflows import AccountSettings, AccountWorkflows, Attachment
from exporter.watch.events import Events
from exporter.watch.poll_log import AccountLog
from exporter.watch.poll_queue import PollQueue
from exporter.watch.scheduler import Scheduler
from exporter.watch.watched_account import WatchedAccount
from exporter.watch.watched_instances import WatchedInstances

_REQUESTS_AT_ONCE = 10
_GRACE = 3.0
"""Seconds that requests under way get to finish when their queue is no longer used, or the exporter
stops. Together with the 2 s that scrapes under way get, stopping takes at most 5 s."""
_LACKING = re.compile(r"\$\.result\[\d+\]\.(id|status)")
"""The places in a response without which discovery ignores the whole row, and counts that."""


@dataclass(eq=False)
class WatchedAccounts:
    """What is watched, and what outlives an attachment: budgets, connections, and what the log has
    reported.

    Attributes:
        store: Gets the values to show.
        writer: Has the state, and which workflows this replica holds.
        scheduler: Begins the rounds.
        transport: In place of sockets to Cloudflare; None: sockets.
        clock: The time.
    """

    store: Store
    writer: StateWriter
    scheduler: Scheduler
    transport: httpx.AsyncBaseTransport | None
    clock: Clock

    def __post_init__(self) -> None:
        self.accounts: list[WatchedAccount] = []
        """The watched accounts; always the same list, which others refer to."""
        self.queues: dict[object, PollQueue] = {}
        """The queue of each credential, by its `budget_key`."""
        self._http: dict[tuple[float, str], httpx.AsyncClient] = {}
        """The connections by timeout and URL of the API."""
        self._changing = asyncio.Lock()
        """Held while workflows are attached and detached, which a reload, a list of workflows and
        moving leases may all begin."""
        self._started = False

    async def apply(self, settings: Settings) -> None:
        """Watches what these settings name, and nothing else.

        Workflows whose settings are the same as before are left alone. Others are detached,
        attached, or both within one commit, so that no scrape sees a gap.

        Args:
            settings: Their `state` and `web` are the same as before.

        Raises:
            ConfigError: a file that holds a secret, a proxy or certificates can't be used, or the
                state can't be read now. Everything stays as it was.
        """
        wanted = self.check(settings)
        async with self._changing:
            if self.attachments:
                await self._ensure_restorable()
            queues, self.queues = self.queues, self._queues_for(settings.api, wanted)
            accounts = [self._account(one) for one in wanted]
            for account in {*accounts} - {*self.accounts}:
                await account.workflows.recall()
            async with self.writer.saving:
                await self._replace(settings, accounts)
            self.store.configured(successful=True, at=self.clock.now().unix)
            await self.writer.turn()
            for account in accounts:
                await account.workflows.reconcile()
            await self.writer.save()
        if self._started:
            self.start()
        unused = {*queues.values()} - {*self.queues.values()}
        await asyncio.gather(*(queue.stop(_GRACE) for queue in unused))

    async def _ensure_restorable(self) -> None:
        """Makes sure that the state can be read: what a reload detaches, it has to attach again.

        Raises:
            ConfigError: it can't.
        """
        try:
            await self.writer.workflows("")
        except NotRestored as error:
            text = f"can't be read now ({error}); reload again once it can"
            raise ConfigError(f"state: {text}") from None

    async def _replace(self, settings: Settings, accounts: Sequence[WatchedAccount]) -> None:
        """Detaches the accounts that no longer exist or whose settings have changed, and attaches
        what the new settings name."""
        identities = {account.workflows.settings.identity for account in accounts}
        for account in {*self.accounts} - {*accounts}:
            workflows = account.workflows
            account.stop()
            workflows.detach([*workflows.attached])
            if workflows.settings.identity not in identities:
                self.writer.leases.wanted.pop(workflows.settings.stored_as, None)
                self.store.account_lost(workflows.label)
        if settings.metrics != self.store.settings:
            self.store.use(settings.metrics)
        for named in settings.accounts:
            self.store.account_found(named.label)
            if named.events is not None:
                self.store.events_found(named.label)
        self.accounts[:] = accounts
        self.writer.leases.relays = [a.events.relay for a in accounts if a.events is not None]
        for account in accounts:
            account.workflows.request_leases()
            await account.workflows.reconcile()

    def _known(self, settings: AccountSettings) -> WatchedAccount | None:
        """The watched account that these settings are for, if it is watched."""
        known = {account.workflows.settings.identity: account for account in self.accounts}
        return known.get(settings.identity)

    def _queues_for(self, api: Api, wanted: Sequence[AccountSettings]) -> dict[object, PollQueue]:
        """One queue and one budget for each credential, however many accounts use it.

        If an account has a new token, it is taken to be of the same user, as when tokens are
        rotated. So the requests that were made with the old one still count.
        """
        taken = {self.queues.get(one.budget_key) for one in wanted}
        used: dict[object, PollQueue] = {}
        for one in wanted:
            if one.budget_key in used:
                used[one.budget_key].budget.names.append(one.stored_as)
                continue
            queue, known = self.queues.get(one.budget_key), self._known(one)
            if queue is None and known and known.workflows.queue not in taken:
                queue = known.workflows.queue
            if queue is None:
                share = 0.0 if self.writer.leases.shared else inf
                budget = Budget(api.requests_per_5m, share=share, clock=self.clock)
                queue = PollQueue(budget, at_once=_REQUESTS_AT_ONCE, clock=self.clock)
            queue.budget.set_limits(api.requests_per_5m, reserve=api.reserve)
            queue.budget.names = [one.stored_as]
            used[one.budget_key] = queue
            taken.add(queue)
        return used

    def _account(self, settings: AccountSettings) -> WatchedAccount:
        """The account as it is watched now, if no setting that all of its workflows share has
        changed; otherwise a new one, of which nothing is attached yet."""
        known, needed = self._known(settings), (settings, self.queues[settings.budget_key])
        if known is None or (known.workflows.settings, known.workflows.queue) != needed:
            return self._new_account(settings, known.workflows if known else None)
        if settings.entries != known.workflows.settings.entries:
            known.workflows.continue_with(settings)
            known.wake()
        return known

    def _new_account(
        self, settings: AccountSettings, former: AccountWorkflows | None
    ) -> WatchedAccount:
        """An account of which nothing is attached yet, with what a former one had found out."""
        account, credentials = settings.account, settings.credentials
        queue = self.queues[settings.budget_key]
        account_log = former.log if former else AccountLog(account.label, self.clock)
        base = self._connections(settings.api), settings.api, account.account_id
        on_request = partial(self.store.api_request, account.label)
        on_ignored = partial(_ignored, self.store, account_log)
        workflows = AccountWorkflows(
            settings=settings,
            client=WorkflowsClient(*base, credentials.api, queue.budget, on_request, on_ignored),
            queue=queue,
            store=self.store,
            writer=self.writer,
            scheduler=self.scheduler,
            log=account_log,
            clock=self.clock,
            changing=self._changing,
        )
        if former:
            workflows.continue_from(former)
        events = None
        if account.events and credentials.events:
            queue_id = account.events.queue_id
            pulled = EventQueue(*base, credentials.events, on_request=on_request, queue_id=queue_id)
            events = Events(pulled, workflows, list_interval=account.events.list_interval)
            workflows.coverage = events.coverage
        return WatchedAccount(workflows, events)

    def _connections(self, api: Api) -> httpx.AsyncClient:
        """The connections that all accounts share. Those of former settings are only closed when
        the exporter stops, since requests may be under way."""
        key = api.timeout, api.url
        if key not in self._http:
            self._http[key] = http_client(api, self.transport, on_date=self.clock.compare)
        return self._http[key]

    def check(self, settings: Settings) -> list[AccountSettings]:
        """The accounts that these settings would have watched.

        Raises:
            ConfigError: a file that holds a secret, a proxy or certificates can't be used.
        """
        problems: list[str] = []
        with collected(problems):
            read = read_credentials(settings.accounts)
        with collected(problems):
            self._connections(settings.api)
        if problems:
            raise ConfigError(*problems)
        names = _stored_names(settings.accounts)
        # The limits, which belong to the budget, are made equal, so that a change of them leaves
        # workflows attached.
        api = settings.api.model_copy(update={"requests_per_5m": 1, "reserve": 0.0})
        return [
            AccountSettings(
                account=credentials.account.model_copy(update={"workflows": []}),
                entries=credentials.account.workflows,
                api=api,
                poll=settings.poll,
                metrics=settings.metrics,
                stored_as=names[credentials.account.label],
                credentials=credentials,
            )
            for credentials in read
        ]

    def start(self) -> None:
        """Begins the list passes of all accounts; those that a reload adds begin theirs then."""
        self._started = True
        for account in self.accounts:
            account.start()

    def pause(self) -> None:
        """Stops the list passes."""
        self._started = False
        for account in self.accounts:
            account.stop()

    async def reconcile(self) -> None:
        """Attaches and detaches workflows as their leases move between replicas. Never returns."""
        while True:
            await self.writer.turned.wait()
            self.writer.turned.clear()
            moved = False
            async with self._changing:
                for account in self.accounts:
                    try:
                        if await account.workflows.reconcile():
                            account.wake()
                            moved = True
                    except Exception as error:  # a fault of ours must not end this for good
                        account.workflows.log.not_attached(error)
            if moved:
                await self.writer.save()  # so that scrapes see what was attached

    @property
    def attachments(self) -> list[Attachment]:
        """The attached workflows of all accounts."""
        return [a for account in self.accounts for a in account.workflows.attached.values()]

    @property
    def attached(self) -> list[WatchedInstances]:
        """The instances of each attached workflow."""
        return [attachment.watched for attachment in self.attachments]

    def budget_uses(self) -> dict[str, BudgetUse]:
        """What this replica has used and needs of each credential's budget."""
        uses = dict[str, BudgetUse]()
        for queue in self.queues.values():
            uses |= dict.fromkeys(queue.budget.names, queue.budget.use(self.needed(queue)))
        return uses

    def needed(self, queue: PollQueue) -> float:
        """Requests in 5 minutes that would make the polls that wait in a queue, and keep those of
        its accounts and their list passes on time."""
        return queue.needed + sum(a.needed for a in self.accounts if a.workflows.queue is queue)

    def allot(self, allotments: Mapping[str, Allotment]) -> None:
        """Takes what the turn granted for which `budget_uses` was asked."""
        for queue in self.queues.values():
            # A reload may have added names since.
            if granted := [allotments[name] for name in queue.budget.names if name in allotments]:
                queue.budget.allot(least(granted))

    def detach_unheld(self) -> None:
        """Detaches what this replica doesn't hold, or is to give up."""
        for account in self.accounts:
            account.workflows.detach_unheld()

    def unpolled(self) -> list[str]:
        """Workflows whose first round isn't over, and accounts whose first list pass isn't. A pass
        begins when everything that the state holds of its account is restored."""
        if not self.accounts:
            return ["state: not open yet"]
        return [
            f"{account.workflows.label}/{name}: the first round isn't over"
            for account in self.accounts
            for name, attached in account.workflows.attached.items()
            if not attached.poller.tried
        ] + [
            f"{account.workflows.label}: the first list pass isn't over"
            for account in self.accounts
            if not account.pass_done
        ]

    async def leave(self) -> None:
        """Hands everything over to other replicas."""
        async with self._changing:
            for account in self.accounts:
                account.workflows.detach([*account.workflows.attached])
        for queue in self.queues.values():
            queue.budget.stop()
        await self.writer.leave()

    async def stop(self) -> None:
        """Drops the polls that wait, and gives those under way a few seconds to finish."""
        for watched in self.attached:
            watched.detached = True  # so that no round under way begins further polls
        await asyncio.gather(*(queue.stop(_GRACE) for queue in self.queues.values()))
        for attachment in self.attachments:
            await attachment.poller.stop()

    async def close(self) -> None:
        """Closes the connections."""
        await asyncio.gather(*(http.aclose() for http in self._http.values()))


def _stored_names(accounts: Iterable[Account]) -> dict[str, str]:
    """The name of each account in the state, by label. It is the account's id, if that is given, so
    that the label may change. Of several accounts with one id, all but the first are named by id
    and label."""
    names: dict[str, str] = {}
    for account in accounts:
        name = account.account_id or account.label
        taken = name in names.values()
        names[account.label] = f"{name}/{account.label}" if taken else name
    return names


def _ignored(store: Store, account_log: AccountLog, endpoint: str, places: list[str]) -> None:
    store.ignored(sum(_LACKING.fullmatch(place) is None for place in places))
    account_log.ignored(endpoint, places)
