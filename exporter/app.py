"""Puts the parts of the exporter together; this is the only place that does."""

import asyncio
import contextlib
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from math import inf

import httpx
import structlog

from exporter import __version__
from exporter.clock import Clock
from exporter.config.errors import ConfigError, collected
from exporter.config.reload import Reloader
from exporter.config.settings import Settings
from exporter.health import Health
from exporter.metrics import catalogue
from exporter.metrics.catalogue import Family
from exporter.metrics.exposition import Exposition
from exporter.metrics.series import LabelValues
from exporter.metrics.store import Store
from exporter.state.backend import DatabaseServer, Location, Replica
from exporter.state.leases import Leases, workflows_of
from exporter.state.writer import StateWriter
from exporter.watch.poller import Poller
from exporter.watch.scheduler import Scheduler
from exporter.watch.watched_accounts import WatchedAccounts
from exporter.web.endpoints import endpoints
from exporter.web.page.view import WatchView
from exporter.web.server import Server, address_of, page_url
from exporter.web.web_config_reload import WebConfigReloader

log = structlog.get_logger(__name__)


class App:
    """The exporter: watches what the settings name, and shows it.

    Args:
        settings: All settings.
        transport: In place of sockets to Cloudflare.
        clock: The time.
        state: Where the state is, which is opened when the exporter runs; None: in memory.

    Raises:
        ConfigError: a file that holds a secret, a proxy, certificates or the web configuration
            can't be used.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Clock | None = None,
        state: Location = None,
    ) -> None:
        self._settings = settings
        self._clock = clock or Clock()
        self._state = state
        self.store = Store(settings.metrics, lambda: self._clock.now().unix)
        self.exposition = Exposition(self.store)
        self.exposition.gauges = self._gauges
        name = socket.gethostname() if settings.replica.name == "auto" else settings.replica.name
        replica = Replica(f"{name}-{secrets.token_hex(4)}", name, "")
        lease = settings.replica.lease if isinstance(state, DatabaseServer) else inf
        self.leases = Leases(replica, lease=lease, clock=self._clock)
        self.exposition.counts_shown = lambda: self.leases.proven
        self.writer = StateWriter(
            store=self.store, exposition=self.exposition, leases=self.leases, clock=self._clock
        )
        self._scheduler = Scheduler(self._clock)
        self.watched = WatchedAccounts(
            store=self.store,
            writer=self.writer,
            scheduler=self._scheduler,
            transport=transport,
            clock=self._clock,
        )
        self.writer.watching = self.watched
        problems: list[str] = []
        with collected(problems):
            self.watched.check(settings)
        with collected(problems):
            self._web_config = WebConfigReloader(settings.web.config_file)
        if problems:
            raise ConfigError(*problems)
        self.accounts = self.watched.accounts
        """Empty until settings are applied."""
        self.health = Health(self.watched, self.writer, self._clock)
        self.view = WatchView(
            self.accounts, clock=self._clock, state_problem=lambda: self.writer.problem
        )

    @property
    def pollers(self) -> list[Poller]:
        """The pollers of all attached workflows."""
        return [attachment.poller for attachment in self.watched.attachments]

    def _gauges(self) -> Iterator[tuple[Family, LabelValues, float | None]]:
        """The gauges whose values are those of this moment."""
        yield catalogue.POLL_LAG, (), max((a.lag for a in self.accounts), default=0.0)
        for account in self.accounts:
            budget, labels = account.workflows.queue.budget, (account.workflows.label,)
            yield catalogue.API_LIMIT, labels, budget.quota
            yield catalogue.API_REMAINING, labels, budget.remaining
            until = self._clock.now().unix + budget.blocked if budget.blocked else 0.0
            yield catalogue.API_BLOCKED_UNTIL, labels, until
            if account.events is not None:
                yield catalogue.EVENT_BACKLOG, labels, account.events.backlog
                coverage = account.events.coverage.ratio(self._clock.monotonic())
                yield catalogue.EVENT_COVERAGE, labels, coverage
        if self.leases.shared:
            yield catalogue.REPLICAS, (), len(self.leases.seen.replicas)
            yield catalogue.WORKFLOWS_HELD, (), workflows_of(self.leases.held)
            yield catalogue.WORKFLOWS_UNHELD, (), self.leases.unheld

    async def reload_failed(self) -> None:
        """Shows that a reload has failed."""
        self.store.configured(successful=False)
        await self.writer.save()

    async def run(
        self, listener: socket.socket, stop: asyncio.Event, reloader: Reloader | None = None
    ) -> None:
        """Watches and serves until `stop` is set. Without a reloader, settings never change.

        Scrapes are served from the start, and show what is restored from the state as that
        proceeds.

        Raises:
            InUse: another exporter uses the state file.
            Unreachable: the database can't be used.
        """
        server = Server(
            endpoints(
                self.exposition,
                self.view,
                unhealthy=self.health.unhealthy,
                unready=self.health.unready,
                reloader=reloader,
            ),
            self._web_config,
        )
        tls = self._web_config.current().context is not None
        self.leases.replica = self.leases.replica._replace(url=page_url(listener, tls=tls))
        async with contextlib.AsyncExitStack() as running:
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            serving.add_done_callback(lambda _: stop.set())
            running.push_async_callback(_stop, server, serving)
            await running.enter_async_context(self.opened())
            self._scheduler.start()
            self.watched.start()
            watches = [self.health.watch(), self._scheduler.watch_clock(), self.watched.reconcile()]
            if reloader is not None:
                watches.append(reloader.run())
            others = [asyncio.create_task(watch) for watch in watches]
            log.info(
                "watching",
                version=__version__,
                accounts=len(self.accounts),
                address=address_of(listener),
            )
            await stop.wait()
            log.info("stopping")
            self._scheduler.stop()
            self.watched.pause()
            for task in others:
                task.cancel()
            if self.leases.shared:
                await self.watched.leave()
            await _stop(server, serving)

    async def once(self) -> bool:
        """Makes one list pass and one round over everything. Returns whether no poll failed."""
        async with self.opened():
            await asyncio.gather(*(account.list_passes() for account in self.accounts))
            await asyncio.gather(*(poller.round(whole=True) for poller in self.pollers))
            failing = any(i.failure for poller in self.pollers for i in poller.instances.values())
            readable = all(account.readable for account in self.accounts)
            return readable and not failing and all(poller.up for poller in self.pollers)

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator["App"]:
        """Within this context the state is open, and everything that the settings name is attached.
        On the way out, also after an error, requests under way are ended, the state is saved, and
        the connections are closed.

        Raises:
            InUse: another exporter uses the state file.
            Unreachable: the database can't be used.
        """
        try:
            await self.writer.open(self._state)
            saving = asyncio.create_task(self.writer.run())
            try:
                await self.watched.apply(self._settings)
                yield self
            finally:
                await self.watched.stop()
                await self.writer.close()
                await saving
        finally:
            await self.watched.close()


async def _stop(server: Server, serving: asyncio.Task[None]) -> None:
    server.should_exit = True
    await serving
