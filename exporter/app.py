"""The one place where the parts are put together."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from math import inf
from pathlib import Path

import httpx
import structlog

from exporter import __version__, config_check
from exporter.clock import Clock
from exporter.cloudflare.budget import WINDOW
from exporter.cloudflare.connections import http_client
from exporter.cloudflare.credentials import Credential, read_credentials
from exporter.config.errors import ConfigError, collected
from exporter.config.reload import Reloader
from exporter.config.settings import Settings
from exporter.health import Health
from exporter.metrics import catalogue
from exporter.metrics.catalogue import Family
from exporter.metrics.exposition import Exposition
from exporter.metrics.series import LabelValues, Series
from exporter.metrics.store import Store
from exporter.state.sqlite import Database, Unusable
from exporter.state.writer import StateWriter, log_reset
from exporter.watch.account import Account
from exporter.watch.poll_queue import PollQueue
from exporter.watch.poller import Poller
from exporter.watch.scheduler import Scheduler
from exporter.watch.shard import Shard
from exporter.web.endpoints import endpoints
from exporter.web.page.view import WatchView
from exporter.web.server import Server, address_of
from exporter.web.web_config_reload import WebConfigReloader
from exporter.wiring import Wiring, kept_as

log = structlog.get_logger(__name__)

_GRACE = 3.0
"""Seconds that calls under way get to finish when the exporter stops. With the 2 s that scrapes
under way get before, stopping takes 5 s at most."""
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
        self._transport = transport
        self._http: dict[tuple[float, str], httpx.AsyncClient] = {}
        problems: list[str] = []
        try:
            self.shard = Shard.of(settings.shard, hostname=host)
        except ValueError as error:
            problems.append(f"shard.index: {error}")
        with collected(problems):
            http = self._connections(settings)
        with collected(problems):
            credentials = read_credentials(settings.accounts)
        with collected(problems):
            self._web_config = WebConfigReloader(settings.web.config_file)
        if problems:
            raise ConfigError(problems)
        self._store = Store(settings.metrics, self._clock.wall)
        self.exposition = Exposition(self._store, created=settings.metrics.created)
        self.writer = self._opened_state(state) if state is not None else None
        """Keeps the state; None: nothing is kept."""
        self._queue: dict[object, PollQueue] = {}
        self._warned_at = -inf
        self._scheduler = Scheduler(settings.poll.interval, self._clock)
        self._wiring = Wiring(self._store, self.writer, self._scheduler, self.shard, self._clock)
        self.accounts: list[Account] = []
        self._passes: dict[Account, asyncio.Task[None]] = {}
        self._running = False
        self.health = Health(settings, self.accounts, self.writer, self._clock)
        self._store.now = self._gauges
        self.overview = WatchView(self.accounts, {}, poll=settings.poll, clock=self._clock)
        self._configure(settings, credentials, http, [None] * len(credentials), [])

    @property
    def series(self) -> Series:
        """What is counted, and the gauges of workflows."""
        return self._store.series

    @property
    def pollers(self) -> list[Poller]:
        """Those of all workflows that are watched now."""
        return [poller for account in self.accounts for poller in account.pollers.values()]

    def _opened_state(self, path: Path) -> StateWriter | None:
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
        return StateWriter(
            database,
            store=self._store,
            exposition=self.exposition,
            accounts=kept_as(self._settings.accounts),
            clock=self._clock,
        )

    async def configure(self, settings: Settings) -> None:
        """Goes on as another configuration says, as a whole.

        What stays keeps all that is known and its series; what is named no longer goes, and what
        was counted of it stays in the state, as for a restart.

        Args:
            settings: With the same `shard`, `state` and `web` as before.

        Raises:
            ConfigError: a file that holds a secret, a proxy or certificates can't be used; all
                stays as it was.
        """
        problems: list[str] = []
        with collected(problems):
            credentials = read_credentials(settings.accounts)
        with collected(problems):
            http = self._connections(settings)
        if problems:
            raise ConfigError(problems)
        kept, before = kept_as(settings.accounts), kept_as(self._settings.accounts)
        known = {
            (old.label, old.account_id, before[old.label]): account
            for old, account in zip(self._settings.accounts, self.accounts, strict=True)
        }
        stay = [
            known.pop((new.label, new.account_id, kept[new.label]), None)
            for new in settings.accounts
        ]
        leaving = [poller for account in known.values() for poller in account.pollers.values()]
        for new, account in zip(settings.accounts, stay, strict=True):
            leaving += account.leaving(new.workflows) if account else []
        for poller in leaving:
            poller.detach()
        if self.writer:
            # All that was counted of those that leave is on the disk before they do.
            await self.writer.save()
        async with self.writer.still() if self.writer else contextlib.nullcontext():
            # From here to the end nothing waits: nobody sees half of it.
            unused = self._configure(settings, credentials, http, stay, list(known.values()))
        if self.writer:
            await self.writer.save()
        await asyncio.gather(*(looks.stop(_GRACE) for looks in unused))

    def _configure(
        self,
        settings: Settings,
        credentials: list[Credential],
        http: httpx.AsyncClient,
        stay: list[Account | None],
        gone: list[Account],
    ) -> list[PollQueue]:
        """Puts settings to use; the looks of credentials that nobody uses any more."""
        metrics_before, self._settings = self._settings.metrics, settings
        for account in gone:
            account.detach()
            self._store.account_lost(account.label)
            if task := self._passes.pop(account, None):
                task.cancel()
        if self.writer:
            self.writer.configure(kept_as(settings.accounts))
        if settings.metrics != metrics_before:
            self.exposition.created = settings.metrics.created
            for family in self._store.configure(settings.metrics):
                log_reset(family)
        former = self._queue
        self._queue = self._wiring.looks(settings, credentials, stay, former)
        self.accounts[:] = [
            self._wiring.account(
                settings,
                account,
                credential,
                http=http,
                looks=self._queue[credential.budget_key],
                known=known,
            )
            for account, credential, known in zip(settings.accounts, credentials, stay, strict=True)
        ]
        if settings.metrics != metrics_before:
            for poller in self.pollers:
                poller.state.show_all()
        self.health.configure(settings)
        self.overview.configure(
            {account.label: account.account_id or "" for account in settings.accounts},
            poll=settings.poll,
        )
        self._scheduler.configure(settings.poll.interval)
        self._store.configured(successful=True, at=self._clock.wall())
        if self._running:
            self._start_passes()
        return [looks for looks in former.values() if looks not in self._queue.values()]

    def _connections(self, settings: Settings) -> httpx.AsyncClient:
        """The connections that all accounts share; those of former settings are closed at the end,
        since calls may be under way."""
        key = settings.api.timeout, settings.api.url
        if key not in self._http:
            self._http[key] = http_client(settings.api, self._transport)
        return self._http[key]

    def _start_passes(self) -> None:
        for account in self.accounts:
            if account not in self._passes:
                self._passes[account] = asyncio.create_task(account.run())

    def warn_if_late(self) -> None:
        """Says, at most every 10 minutes, that the budget is too small, and what would help."""
        interval, now = self._settings.poll.interval, self._clock.monotonic()
        lag = self._lag()
        if lag < max(_LATE, 4 * interval) or now - self._warned_at < _WARN_EVERY:
            return
        self._warned_at = now
        needed = sum(
            config_check.configured_requests(settings, self.shard, interval)
            + account.pages * WINDOW / interval
            for settings, account in zip(self._settings.accounts, self.accounts, strict=True)
        )
        allowed = sum(looks.budget.allowed for looks in self._queue.values())
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
        lags += [looks.lag for looks in self._queue.values()]
        lags += [account.lag for account in self.accounts if account.discoveries]
        return max(lags, default=0.0)

    def _gauges(self) -> Iterator[tuple[Family, LabelValues, float | None]]:
        """The gauges of the moment."""
        yield catalogue.POLL_LAG, (), self._lag()
        for account in self.accounts:
            budget, labels = account.budget, (account.label,)
            yield catalogue.API_LIMIT, labels, budget.quota
            yield catalogue.API_REMAINING, labels, budget.remaining
            until = self._clock.wall() + budget.blocked if budget.blocked else 0.0
            yield catalogue.API_BLOCKED_UNTIL, labels, until

    async def refused(self) -> None:
        """Shows that a configuration could not be used."""
        self._store.configured(successful=False)
        if self.writer:
            await self.writer.save()

    async def run(
        self, listener: socket.socket, stop: asyncio.Event, reloader: Reloader | None = None
    ) -> None:
        """Watches and serves until `stop` is set; without a reloader, as it was configured."""
        app = endpoints(
            self.exposition,
            self.overview,
            unhealthy=self.health.unhealthy,
            unready=self.health.unready,
            reloader=reloader,
        )
        server = Server(app, self._web_config)
        async with self.opened():
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            self._scheduler.add_chore(self.warn_if_late, every=_LATE)
            self._scheduler.start()
            self._running = True
            self._start_passes()
            others = [asyncio.create_task(self.health.watch())]
            if reloader is not None:
                others.append(asyncio.create_task(reloader.run()))
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
            self._scheduler.pause()
            self._running = False
            for task in (*others, *self._passes.values()):
                task.cancel()
            server.should_exit = True
            await serving
        self._scheduler.stop()

    async def once(self) -> bool:
        """Makes one sweep and one round over everything; whether all went well."""
        async with self.opened():
            await asyncio.gather(*(account.cycle() for account in self.accounts))
            await asyncio.gather(*(poller.round(whole=True) for poller in self.pollers))
        return all(account.readable for account in self.accounts) and all(
            poller.up for poller in self.pollers
        )

    def progress(self) -> tuple[int, int, float]:
        """Of `once`: instances that were looked at, those that are known, and looks a second."""
        instances = [i for poller in self.pollers for i in poller.instances.values()]
        waiting = sum(i.busy or (i.configured and not i.tried) for i in instances)
        rate = sum(looks.budget.rate for looks in self._queue.values())
        return len(instances) - waiting, len(instances), rate

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Ends the calls under way, then the connections, and saves the state, on the way out."""
        saving = asyncio.create_task(self.writer.run()) if self.writer else None
        try:
            yield
            await asyncio.gather(*(looks.stop(_GRACE) for looks in self._queue.values()))
            await asyncio.gather(*(poller.stop() for poller in self.pollers))
        finally:
            await asyncio.gather(*(http.aclose() for http in self._http.values()))
        if self.writer is not None and saving is not None:
            await self.writer.close()
            await saving
