"""The one place where the parts are put together."""

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from functools import partial
from math import inf
from pathlib import Path

import httpx
import structlog

from exporter import __version__, access, plan
from exporter import settings as settings_
from exporter.clock import Clock
from exporter.cloudflare.budget import WINDOW, Budget
from exporter.cloudflare.credentials import Credential
from exporter.health import Health
from exporter.metrics import catalogue
from exporter.metrics.catalogue import Family
from exporter.metrics.exposition import Exposition
from exporter.metrics.series import Labels, Series
from exporter.metrics.store import Store
from exporter.mistakes import ConfigError
from exporter.settings import Settings
from exporter.state.database import Database, Unusable
from exporter.state.keeper import Keeper
from exporter.watch.account import Account
from exporter.watch.discovery import Discovery
from exporter.watch.looks import Looks
from exporter.watch.overview import Overview
from exporter.watch.poller import Poller
from exporter.watch.scheduler import Scheduler
from exporter.watch.selector import Selector
from exporter.watch.shard import Shard, Share
from exporter.watch.sink import WorkflowKey
from exporter.web.endpoints import endpoints
from exporter.web.protection import Protecting
from exporter.web.server import Server, address_of

log = structlog.get_logger(__name__)

_GRACE = 3.0
"""Seconds that calls under way get to finish when the exporter stops. With the 2 s that scrapes
under way get before, stopping takes 5 s at most."""
_CALLS_AT_ONCE = 10
# Seconds.
_LATE, _WARN_EVERY = 60.0, 600.0


class App:
    """The exporter: watches what the settings name, and shows it.

    Args:
        settings: All of them.
        transport: In place of sockets to Cloudflare.
        clock: The time.
        state: The file to keep the state in; None keeps nothing.
        hostname: In place of this machine's, which may name the shard.

    Raises:
        ConfigError: a file that holds a secret, a proxy, certificates or the web configuration
            can't be used, or the host name names no shard.
        InUse: another exporter uses the state file.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Clock | None = None,
        state: Path | None = None,
        hostname: str | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock or Clock()
        host = hostname or socket.gethostname()
        try:
            self.shard = Shard.of(settings.shard, hostname=host)
        except ValueError as error:
            raise ConfigError([f"shard.index: {error}"]) from None
        self._http = access.connections(settings, transport)
        self._protecting = Protecting(settings.web.config_file)
        self._store = Store(settings.metrics, self._clock.wall)
        self._store.configured(successful=True, at=self._clock.wall())
        self.exposition = Exposition(self._store, created=settings.metrics.created)
        self.keeper = self._opened_state(state) if state is not None else None
        """Keeps the state; None: nothing is kept."""
        self._looks: dict[object, Looks] = {}
        self._warned_at = -inf
        self.accounts = [
            self._account(account, credential)
            for account, credential in zip(
                settings.accounts, access.credentials(settings.accounts), strict=True
            )
        ]
        self.health = Health(settings, self.accounts, self.keeper, self._clock)
        self._store.now = self._gauges
        self.overview = Overview(
            self.accounts,
            {account.label: account.account_id or "" for account in settings.accounts},
            poll=settings.poll,
            clock=self._clock,
        )

    @property
    def series(self) -> Series:
        """What is counted, and the gauges of workflows."""
        return self._store.series

    @property
    def pollers(self) -> list[Poller]:
        """Those of all workflows that are watched now."""
        return [poller for account in self.accounts for poller in account.pollers.values()]

    def _account(self, settings: settings_.Account, credential: Credential) -> Account:
        poll, metrics, clock = self._settings.poll, self._settings.metrics, self._clock
        looks = self._looks_of(credential)
        client = access.client(
            self._settings,
            settings,
            http=self._http,
            credential=credential,
            budget=looks.budget,
            on_call=partial(self._store.called, settings.label),
        )
        keeper = self.keeper

        def first_watched(key: WorkflowKey) -> float:
            return keeper.first_watched(key) if keeper else clock.wall()

        def sharded_since(key: WorkflowKey) -> float:
            return keeper.sharded_since(key, self.shard.count) if keeper else clock.wall()

        def poller(key: WorkflowKey, workflow: settings_.Workflow) -> Poller:
            poller = Poller(
                key,
                workflow.instances,
                share=Share(self.shard, settings.identity, key.workflow, sharded_since(key)),
                upstream=client,
                sink=self._store,
                poll=poll,
                since=first_watched(key) if metrics.backfill is False else -inf,
                looks=looks,
                clock=clock,
            )
            if keeper:
                keeper.adopt(poller, discovers=workflow.discover is not None)
            return poller

        def discovery(poller: Poller, selector: Selector) -> Discovery:
            return Discovery(
                poller,
                selector,
                lister=client,
                sink=self._store,
                poll=poll,
                since=-inf if metrics.backfill else first_watched(poller.key),
                clock=clock,
            )

        return Account(
            settings.label,
            settings.workflows,
            upstream=client,
            looks=looks,
            sink=self._store,
            poll=poll,
            clock=clock,
            make_poller=poller,
            make_discovery=discovery,
        )

    def _opened_state(self, path: Path) -> Keeper | None:
        try:
            database = Database(path)
        except Unusable as error:
            self._store.state_write_failed()
            log.error(
                "the state file can't be used; counting from zero, and nothing is kept",
                path=str(path),
                error=str(error),
                advice="put it right, or name another file with state.path, and restart",
            )
            return None
        ids = Counter(account.account_id for account in self._settings.accounts)
        return Keeper(
            database,
            store=self._store,
            exposition=self.exposition,
            accounts={
                account.label: account.account_id
                if account.account_id and ids[account.account_id] == 1
                else account.label
                for account in self._settings.accounts
            },
            clock=self._clock,
        )

    def _looks_of(self, credential: Credential) -> Looks:
        """One queue and one budget a credential, however many accounts it serves."""
        api = self._settings.api
        if credential.identity not in self._looks:
            budget = Budget(
                self._settings.calls_per_5m,
                reserve=api.reserve,
                shards=self.shard.count,
                clock=self._clock,
            )
            self._looks[credential.identity] = Looks(
                budget, at_once=_CALLS_AT_ONCE, clock=self._clock
            )
        return self._looks[credential.identity]

    def warn_if_late(self) -> None:
        """Says, at most every 10 minutes, that the budget is too small, and what would help."""
        interval, now = self._settings.poll.interval, self._clock.monotonic()
        lag = self._lag()
        if lag < max(_LATE, 4 * interval) or now - self._warned_at < _WARN_EVERY:
            return
        self._warned_at = now
        needed = sum(
            plan.configured_calls(settings, self.shard, interval)
            + account.pages * WINDOW / interval
            for settings, account in zip(self._settings.accounts, self.accounts, strict=True)
        )
        allowed = sum(looks.budget.allowed for looks in self._looks.values())
        log.warning(
            "the budget is too small for the plan; looks are made later than planned",
            lag=f"{lag:.0f}s",
            calls_needed_in_5m=round(needed),
            calls_allowed_in_5m=round(allowed),
            advice="raise poll.interval, list or discover fewer instances, or raise "
            "api.requests_per_5m as far as nothing else uses the token's user",
        )

    def _lag(self) -> float:
        lags = [poller.lag() for poller in self.pollers]
        lags += [looks.lag for looks in self._looks.values()]
        lags += [account.lag for account in self.accounts if account.discoveries]
        return max(lags, default=0.0)

    def _gauges(self) -> Iterator[tuple[Family, Labels, float | None]]:
        """The gauges of the moment."""
        yield catalogue.POLL_LAG, (), self._lag()
        for account in self.accounts:
            budget, labels = account.budget, (account.label,)
            yield catalogue.API_LIMIT, labels, budget.quota
            yield catalogue.API_REMAINING, labels, budget.remaining
            until = self._clock.wall() + budget.blocked if budget.blocked else 0.0
            yield catalogue.API_BLOCKED_UNTIL, labels, until

    async def run(self, listener: socket.socket, stop: asyncio.Event) -> None:
        """Watches and serves until `stop` is set."""
        app = endpoints(
            self.exposition,
            self.overview,
            unhealthy=self.health.unhealthy,
            unready=self.health.unready,
        )
        server = Server(app, self._protecting)
        scheduler = Scheduler(self._settings.poll.interval, self._clock)
        for account in self.accounts:
            account.on_found, account.on_lost = scheduler.add, scheduler.remove
            for poller in account.pollers.values():
                scheduler.add(poller)
        async with self.opened():
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            scheduler.add_chore(self.warn_if_late, every=_LATE)
            scheduler.start()
            tasks = [asyncio.create_task(account.run()) for account in self.accounts]
            tasks.append(asyncio.create_task(self.health.watch()))
            log.info(
                "watching",
                version=__version__,
                accounts=len(self._settings.accounts),
                workflows=len(self.pollers),
                shard=f"{self.shard.index} of {self.shard.count}",
                address=address_of(listener),
            )
            stopped = asyncio.create_task(stop.wait())
            await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            log.info("stopping")
            # A shutdown now would cancel the rounds under way; they end with their calls.
            scheduler.pause()
            for task in tasks:
                task.cancel()
            server.should_exit = True
            await serving
        scheduler.stop()

    async def once(self) -> bool:
        """Makes one sweep and one round over everything; whether all went well."""
        async with self.opened():
            await asyncio.gather(*(account.cycle() for account in self.accounts))
            await asyncio.gather(*(poller.round(whole=True) for poller in self.pollers))
        return all(poller.up for poller in self.pollers)

    def progress(self) -> tuple[int, int, float]:
        """Of `once`: instances that were looked at, those that are known, and looks a second."""
        instances = [i for poller in self.pollers for i in poller.instances.values()]
        waiting = sum(i.busy or (i.configured and not i.tried) for i in instances)
        rate = sum(looks.budget.rate for looks in self._looks.values())
        return len(instances) - waiting, len(instances), rate

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Ends the calls under way, then the connections, and saves the state, on the way out."""
        saving = asyncio.create_task(self.keeper.run()) if self.keeper else None
        async with self._http:
            yield
            await asyncio.gather(*(looks.stop(_GRACE) for looks in self._looks.values()))
            await asyncio.gather(*(poller.stop() for poller in self.pollers))
        if self.keeper is not None and saving is not None:
            await self.keeper.close()
            await saving
