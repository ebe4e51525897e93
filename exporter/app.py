"""The one place where the parts are put together."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from functools import partial
from math import inf

import httpx
import structlog

from exporter import __version__
from exporter.clock import Clock
from exporter.cloudflare.client import Client, http_client
from exporter.cloudflare.credentials import Credential
from exporter.coherence import is_loopback
from exporter.metrics.exposition import Exposition
from exporter.metrics.store import Store
from exporter.mistakes import ConfigError
from exporter.settings import Account, Settings
from exporter.watch.poller import Poller
from exporter.watch.scheduler import schedule
from exporter.watch.sink import WorkflowKey
from exporter.web.endpoints import endpoints
from exporter.web.server import Server

log = structlog.get_logger(__name__)

_GRACE = 3.0
"""Seconds that calls under way get to finish when the exporter stops. With the 2 s that scrapes
under way get before, stopping takes 5 s at most."""
_CALLS_AT_ONCE = 10


class App:
    """The exporter: watches what the settings name, and shows it.

    Args:
        settings: All of them.
        transport: In place of sockets to Cloudflare.
        clock: The time.

    Raises:
        ConfigError: a file that holds a secret, or a proxy, can't be used.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock or Clock()
        try:
            self._http = http_client(
                timeout=settings.api.timeout,
                # A proxy of the environment is no way to this machine itself.
                trust_env=not is_loopback(settings.api.url),
                transport=transport,
            )
        except ValueError as error:
            raise ConfigError([str(error)]) from None
        self._store = Store(settings.metrics)
        self._store.configured(successful=True, at=self._clock.wall())
        self.exposition = Exposition(self._store)
        credentials = _credentials(settings.accounts)
        slots = asyncio.Semaphore(_CALLS_AT_ONCE)
        self.pollers = [
            poller
            for account, credential in zip(settings.accounts, credentials, strict=True)
            for poller in self._pollers(account, credential, slots)
        ]
        self._store.lag = lambda: max((poller.lag() for poller in self.pollers), default=0.0)

    def _pollers(
        self, account: Account, credential: Credential, slots: asyncio.Semaphore
    ) -> list[Poller]:
        client = Client(
            self._http,
            self._settings.api.url.replace("{account_id}", account.account_id or ""),
            credential,
            timeout=self._settings.api.timeout,
            on_call=partial(self._store.called, account.label),
        )
        pollers = []
        for workflow in account.workflows:
            key = WorkflowKey(account.label, workflow.name)
            if workflow.discover is not None:
                log.warning(
                    "discover isn't there yet; only listed instances are watched", **key._asdict()
                )
            if not workflow.instances:
                continue
            self._store.watch(key)
            poller = Poller(
                key,
                workflow.instances,
                upstream=client,
                sink=self._store,
                poll=self._settings.poll,
                since=self._clock.wall() if self._settings.metrics.backfill is False else -inf,
                slots=slots,
                clock=self._clock,
            )
            pollers.append(poller)
        return pollers

    def unready(self) -> list[str]:
        """The workflows whose first round isn't over."""
        return [
            f"{poller.key.account}/{poller.key.workflow}: the first round isn't over"
            for poller in self.pollers
            if not poller.tried
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
        scheduler = schedule(self.pollers, interval=self._settings.poll.interval)
        async with self.opened():
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            scheduler.start()
            log.info(
                "watching",
                version=__version__,
                accounts=len(self._settings.accounts),
                workflows=len(self.pollers),
                address="{}:{}".format(*listener.getsockname()[:2]),
            )
            stopped = asyncio.create_task(stop.wait())
            await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            log.info("stopping")
            # A shutdown now would cancel the rounds under way; they end with their calls.
            scheduler.pause()
            server.should_exit = True
            await serving
        scheduler.shutdown(wait=False)

    async def once(self) -> bool:
        """Makes one round over everything; whether all went well."""
        async with self.opened():
            await asyncio.gather(*(poller.round(whole=True) for poller in self.pollers))
        return all(poller.up for poller in self.pollers)

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Ends the calls under way, then the connections, on the way out."""
        async with self._http:
            yield
            await asyncio.gather(*(poller.stop(_GRACE) for poller in self.pollers))


def _credentials(accounts: list[Account]) -> list[Credential]:
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
