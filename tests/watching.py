"""The whole exporter in this process, against the simulator on a real socket, clock in hand."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from exporter.app import App
from exporter.clock import Clock
from exporter.settings import Settings
from upstreams.simulator import HOSTED, ManualClock, Simulator, Style, Workflow, World, serve


@dataclass
class Watching:
    """An exporter that watches one workflow, `orders`, of the account `acc`, round by round."""

    simulator: Simulator
    clock: ManualClock
    app: App

    @property
    def orders(self) -> Workflow:
        return self.simulator.world.account("acc").workflow("orders")

    @property
    def calls(self) -> dict[str, int]:
        """Calls at the socket so far, by kind."""
        return dict(self.simulator.calls.by_kind)

    async def cycle(self, *, after: float = 0) -> dict[str, int]:
        """A sweep over the lists and a round, `after` seconds later; the calls, by kind."""
        self.clock.advance(after)
        self.simulator.calls.clear()
        for account in self.app.accounts:
            await account.cycle()
        for poller in self.app.pollers:
            await poller.round(whole=True)
        return self.calls

    async def round(self, *, after: float = 0) -> dict[str, int]:
        """A round over everything, `after` seconds later; the calls it cost, by kind."""
        self.clock.advance(after)
        self.simulator.calls.clear()
        for poller in self.app.pollers:
            await poller.round(whole=True)
        return self.calls

    def samples(self, name: str) -> dict[tuple[tuple[str, str], ...], float]:
        """Samples of a name by their sorted labels, but account and workflow."""
        body, _ = self.app.exposition.render()
        return {
            tuple(
                sorted((k, v) for k, v in s.labels.items() if k not in ("account", "workflow"))
            ): s.value
            for family in text_string_to_metric_families(body.decode())
            for s in family.samples
            if s.name == name
        }

    def value(self, name: str, **labels: str) -> float | None:
        """The one sample with just these labels (and account and workflow); None: there is none."""
        return self.samples(name).get(tuple(sorted(labels.items())))

    def status(self, instance_id: str) -> str | None:
        """What `cloudflare_workflow_instance_status` says; None without series."""
        for labels, value in self.samples("cloudflare_workflow_instance_status").items():
            if value == 1 and ("instance_id", instance_id) in labels:
                return dict(labels)["status"]
        return None


@asynccontextmanager
async def watching(
    ids: Iterable[str] = (),
    *,
    workflows: list[dict[str, Any]] | None = None,
    style: Style = HOSTED,
    **settings: Any,
) -> AsyncIterator[Watching]:
    """Watches instances of `orders`; the workflow is there, instances are the test's to make.

    Args:
        ids: What is configured.
        workflows: In place of it, `workflows` of the configuration.
        style: How the upstream answers.
        settings: Further sections of the configuration.
    """
    clock = ManualClock()
    simulator = Simulator(World(clock, style=style))
    simulator.access.token("secret")
    simulator.world.account("acc").workflow("orders")
    async with serve(simulator) as served:
        app = App(
            Settings(
                accounts=[
                    {
                        "name": "acc",
                        "account_id": "acc",
                        "api_token": "secret",
                        "workflows": workflows or [{"name": "orders", "instances": list(ids)}],
                    }
                ],
                # More than enough: with the clock in hand, nobody waits for the budget.
                api={
                    "url": served.url + "/accounts/{account_id}",
                    "timeout": "30s",
                    "requests_per_5m": 100_000,
                },
                **settings,
            ),
            clock=Clock(wall=clock, monotonic=clock),
        )
        async with app.opened():
            yield Watching(simulator, clock, app)
