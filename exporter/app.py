"""The one place where the parts are put together."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from functools import partial
from math import inf

import httpx
import structlog

from exporter import __version__, plan
from exporter import settings as settings_
from exporter.clock import Clock
from exporter.cloudflare.budget import WINDOW, Budget
from exporter.cloudflare.client import Client, http_client
from exporter.cloudflare.credentials import Credential
from exporter.coherence import is_loopback
from exporter.metrics import catalogue
from exporter.metrics.catalogue import Family
from exporter.metrics.exposition import Exposition
from exporter.metrics.series import Labels, Series
from exporter.metrics.store import Store
from exporter.mistakes import ConfigError
from exporter.settings import Settings
from exporter.watch.account import Account
from exporter.watch.discovery import Discovery
from exporter.watch.looks import Looks
from exporter.watch.poller import Poller
from exporter.watch.scheduler import Scheduler
from exporter.watch.selector import Selector
from exporter.watch.shard import Shard, Share
from exporter.watch.sink import WorkflowKey
from exporter.web.endpoints import endpoints
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
        hostname: In place of this machine's, which may name the shard.

    Raises:
        ConfigError: a file that holds a secret, a proxy or certificates can't be used, or the host
            name names no shard.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Clock | None = None,
        hostname: str | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock or Clock()
        host, now = hostname or socket.gethostname(), self._clock.wall()
        try:
            self.shard = Shard.of(settings.shard, hostname=host, started=now)
        except ValueError as error:
            raise ConfigError([f"shard.index: {error}"]) from None
        try:
            self._http = http_client(
                timeout=settings.api.timeout,
                # A proxy of the environment is no way to this machine itself.
                trust_env=not is_loopback(settings.api.url),
                transport=transport,
            )
        except ValueError as error:
            raise ConfigError([str(error)]) from None
        self._store = Store(settings.metrics, self._clock.wall)
        self._store.configured(successful=True, at=self._clock.wall())
        self.exposition = Exposition(self._store)
        self._looks: dict[object, Looks] = {}
        self._warned_at = -inf
        self.accounts = [
            self._account(account, credential)
            for account, credential in zip(
                settings.accounts, _credentials(settings.accounts), strict=True
            )
        ]
        self._store.now = self._gauges

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
        client = Client(
            self._http,
            self._settings.api.url.replace("{account_id}", settings.account_id or ""),
            credential,
            timeout=self._settings.api.timeout,
            budget=looks.budget,
            on_call=partial(self._store.called, settings.label),
        )
        now = clock.wall()

        def poller(key: WorkflowKey, ids: list[str]) -> Poller:
            since = now if metrics.backfill is False else -inf
            return Poller(
                key,
                ids,
                share=Share(self.shard, settings.identity, key.workflow),
                upstream=client,
                sink=self._store,
                poll=poll,
                since=since,
                looks=looks,
                clock=clock,
            )

        def discovery(poller: Poller, selector: Selector) -> Discovery:
            since = -inf if metrics.backfill else clock.wall()
            return Discovery(
                poller,
                selector,
                lister=client,
                sink=self._store,
                poll=poll,
                since=since,
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

    def unready(self) -> list[str]:
        """What wasn't tried yet: configured instances, and the first sweep over each account."""
        return [
            f"{poller.key.account}/{poller.key.workflow}: the first round isn't over"
            for poller in self.pollers
            if not poller.tried
        ] + [
            f"{account.label}: the first sweep over its workflows isn't over"
            for account in self.accounts
            if not account.swept
        ]

    def unhealthy(self) -> list[str]:
        """The workflows over which no round began for longer than it should be."""
        interval = self._settings.poll.interval
        patience, now = 3 * interval + self._settings.api.timeout, self._clock.monotonic()
        return [
            f"scheduler: no round over {poller.key.account}/{poller.key.workflow} for "
            f"{now - poller.round_started:.0f} s; one is due every {interval}"
            for poller in self.pollers
            if now - poller.round_started > patience
        ]

    async def run(self, listener: socket.socket, stop: asyncio.Event) -> None:
        """Watches and serves until `stop` is set."""
        app = endpoints(self.exposition, unhealthy=self.unhealthy, unready=self.unready)
        server = Server(app)
        scheduler = Scheduler(self._settings.poll.interval)
        for account in self.accounts:
            account.on_found, account.on_lost = scheduler.add, scheduler.remove
            for poller in account.pollers.values():
                scheduler.add(poller)
        async with self.opened():
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            scheduler.add_chore(self.warn_if_late, every=_LATE)
            scheduler.start()
            sweeping = [asyncio.create_task(account.run()) for account in self.accounts]
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
            for sweep in sweeping:
                sweep.cancel()
            server.should_exit = True
            await serving
        scheduler.stop()

    async def once(self) -> bool:
        """Makes one sweep and one round over everything; whether all went well."""
        async with self.opened():
            await asyncio.gather(*(account.cycle() for account in self.accounts))
            await asyncio.gather(*(poller.round(whole=True) for poller in self.pollers))
        return all(poller.up for poller in self.pollers)

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Ends the calls under way, then the connections, on the way out."""
        async with self._http:
            yield
            await asyncio.gather(*(looks.stop(_GRACE) for looks in self._looks.values()))
            await asyncio.gather(*(poller.stop() for poller in self.pollers))


def _credentials(accounts: list[settings_.Account]) -> list[Credential]:
    credentials, mistakes = [], []
    for index, account in enumerate(accounts):
        try:
            credentials.append(
                Credential(
                    token=account.api_token or account.api_token_file,
                    email=account.api_email,
                    key=account.api_key or account.api_key_file,
                )
            )
        except OSError as error:
            mistakes.append(f"accounts[{index}]: {error.filename}: {error.strerror}")
        except ValueError as error:
            mistakes.append(f"accounts[{index}]: {error}")
    if mistakes:
        raise ConfigError(mistakes)
    return credentials
