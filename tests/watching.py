"""The whole exporter in this process, against the simulator, clock in hand."""

import shutil
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from exporter.app import App
from exporter.clock import Clock
from exporter.config.settings import Settings
from exporter.metrics.gzip_parts import unpack
from exporter.state.backend import DatabaseServer, Location
from simulator import HOSTED, ManualClock, Simulator, Style, Workflow, World, serve
from simulator.api import PREFIX
from tests.e2e.scrape import samples
from tests.needs import no_authorities
from tests.postgres import taken_over


@dataclass
class Watching:
    """An exporter that watches one workflow, `orders`, of the account `acc`, round by round."""

    simulator: Simulator
    clock: ManualClock
    url: str
    transport: httpx.AsyncBaseTransport | None
    """Takes requests to the simulator; None: a socket."""
    state: Location
    settings: dict[str, Any]
    running: AsyncExitStack
    app: App = field(init=False)
    ahead: float = 0.0
    """Seconds that the exporter's wall clock is ahead of the true time."""

    @property
    def orders(self) -> Workflow:
        return self.simulator.world.account("acc").workflow("orders")

    @property
    def requests(self) -> dict[str, int]:
        """Requests so far, by kind."""
        return dict(self.simulator.requests.by_kind)

    async def cycle(self, *, after: float = 0) -> dict[str, int]:
        """A list pass and a round, `after` seconds later; the requests, by kind."""
        self.clock.advance(after)
        self.simulator.requests.clear()
        for account in self.app.accounts:
            await account.list_passes()
        for poller in self.app.pollers:
            await poller.round(whole=True)
        await self.saved()
        return self.requests

    async def round(self, *, after: float = 0) -> dict[str, int]:
        """A round over everything, `after` seconds later; the requests, by kind."""
        self.clock.advance(after)
        self.simulator.requests.clear()
        for poller in self.app.pollers:
            await poller.round(whole=True)
        await self.saved()
        return self.requests

    async def saved(self) -> None:
        """The state is committed, and shown."""
        await self.app.writer.save()

    def values(self) -> dict[str, float]:
        """All samples of workflows and instances, by their text without the value."""
        body, _ = self.app.exposition.render()
        lines = body.decode().splitlines()
        found = [line.rsplit(" ", 1) for line in lines if line.startswith("cloudflare_workflow_")]
        return {series: float(value) for series, value in found}

    def samples(self, name: str) -> dict[tuple[tuple[str, str], ...], float]:
        """Samples of a name by their sorted labels, but account and workflow."""
        parts, _ = self.app.exposition.scrape(names=[name])
        return {
            tuple(sorted((k, v) for k, v in labels if k not in ("account", "workflow"))): value
            for (found, labels), value in samples(unpack(parts).decode(), name).items()
            if found == name
        }

    def value(self, name: str, **labels: str) -> float | None:
        """The one sample with just these labels (and account and workflow); None: there is none."""
        return self.samples(name).get(tuple(sorted(labels.items())))

    def watched(self) -> float:
        """Instances that are watched, with series or without."""
        return sum(self.samples("cloudflare_workflow_watched_instances").values())

    def shown(self) -> set[str]:
        """Instances that have series."""
        return {
            dict(labels)["instance_id"]
            for labels in self.samples("cloudflare_workflow_instance_info")
        }

    def status(self, instance_id: str) -> str | None:
        """What `cloudflare_workflow_instance_status` says; None without series."""
        for labels, value in self.samples("cloudflare_workflow_instance_status").items():
            if value == 1 and ("instance_id", instance_id) in labels:
                return dict(labels)["status"]
        return None

    async def start(self) -> None:
        self.app = App(
            self.whole_settings(),
            clock=Clock(wall=lambda: self.clock() + self.ahead, monotonic=self.clock),
            transport=self.transport,
            state=self.state,
        )
        await self.running.enter_async_context(self.app.opened())
        await self.saved()

    async def reload(self, **settings: Any) -> None:
        """Continues with these settings in place of those that there were."""
        self.settings = {**self.settings, **settings}
        await self.app.watched.apply(self.whole_settings())

    def whole_settings(self) -> Settings:
        """The settings, for one account unless they name others."""
        sections = dict(self.settings)
        # Instances are made a moment before they are discovered: they have series at once.
        sections["workflows"] = [
            {**entry, "discover": {"min_age": "0s", **entry["discover"]}}
            if entry.get("discover") is not None
            else entry
            for entry in sections["workflows"]
        ]
        account = {
            "name": sections.pop("account", "acc"),
            "account_id": "acc",
            "api_token": sections.pop("token", "secret"),
            "workflows": sections.pop("workflows"),
            "events": sections.pop("events", None),
        }
        accounts = [account, *sections.pop("more_accounts", [])]
        # More than enough: with the clock in hand, nobody waits for the budget.
        url = self.url + "/accounts/{account_id}"
        api = {"url": url, "timeout": "30s", "requests_per_5m": 100_000, **sections.pop("api", {})}
        if isinstance(self.state, DatabaseServer):
            sections["state"] = {"url": self.state.url.get_secret_value()}
        return Settings(accounts=accounts, api=api, **sections)

    async def restart(self, *, killed: bool = False, **settings: Any) -> None:
        """The next exporter on the same state: after this one has stopped or, `killed`, on what
        is on the disk at this moment. It takes this one's settings but those that are given."""
        assert self.state is not None, "watching(state=…) keeps one"
        state = self.state
        if killed and isinstance(state, Path):
            state = state.with_name(f"{state.stem}+.db")
            for suffix in ("", "-wal"):
                if Path(f"{self.state}{suffix}").exists():
                    shutil.copy(f"{self.state}{suffix}", f"{state}{suffix}")
        elif killed and isinstance(state, DatabaseServer):
            state = taken_over(state)
        await self.running.aclose()
        self.state, self.settings = state, {**self.settings, **settings}
        await self.start()


@asynccontextmanager
async def watching(
    ids: Iterable[str] = (),
    *,
    workflows: list[dict[str, Any]] | None = None,
    style: Style = HOSTED,
    state: Location = None,
    socket: bool = False,
    **settings: Any,
) -> AsyncIterator[Watching]:
    """Watches instances of `orders`; the workflow is there, instances are the test's to make.

    Args:
        ids: What is configured.
        workflows: In place of it, `workflows` of the configuration.
        style: How the upstream responds.
        state: The state file, or the database.
        socket: Whether requests go through a socket, as faults of connections need it; it takes
            most of the time.
        settings: Further sections of the configuration; keys of `api` go over the harness' own.
    """
    clock = ManualClock()
    simulator = Simulator(World(clock, style=style))
    simulator.access.token("secret")
    simulator.world.account("acc").workflow("orders")
    settings["workflows"] = workflows or [{"name": "orders", "instances": list(ids)}]
    with no_authorities():
        async with AsyncExitStack() as served, AsyncExitStack() as running:
            url = "https://simulator" + PREFIX
            transport = None if socket else httpx.ASGITransport(simulator)
            if socket:
                url = (await served.enter_async_context(serve(simulator))).url
            w = Watching(simulator, clock, url, transport, state, settings, running)
            await w.start()
            yield w
