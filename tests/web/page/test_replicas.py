"""What the page of one replica shows of what the others hold."""

import contextlib
from collections.abc import AsyncIterator, Sequence

import httpx
import pytest
from pydantic import SecretStr

from exporter.app import App
from exporter.clock import Clock
from exporter.config.settings import Settings
from exporter.state.backend import DatabaseServer
from exporter.web.page.instance_table import TableQuery
from exporter.web.page.pages import Pages
from simulator import ManualClock, Simulator, World
from tests.postgres import PostgresServer
from tests.waiting import DEADLINE
from tests.web.page.test_pages import Skeleton

WORKFLOWS = ("billing", "orders")

pytestmark = pytest.mark.postgres


@contextlib.asynccontextmanager
async def replicas(postgres: PostgresServer, *urls: str) -> AsyncIterator[Sequence[App]]:
    """Replicas whose pages have these addresses, after some turns of each."""
    clock, database = ManualClock(), SecretStr(postgres.new_url())
    simulator = Simulator(World(clock))
    simulator.access.token("secret")
    workflows = [{"name": name, "instances": ["a"]} for name in WORKFLOWS]
    account = {"name": "acc", "account_id": "acc", "api_token": "secret", "workflows": workflows}
    async with contextlib.AsyncExitStack() as running:
        apps = []
        for number, url in enumerate(urls):
            settings = Settings.model_validate(
                {"accounts": [account], "replica": {"name": f"replica-{number}"}}
            )
            location = DatabaseServer(database, None, DEADLINE)
            app = App(
                settings,
                transport=httpx.ASGITransport(simulator),
                clock=Clock(wall=clock, monotonic=clock),
                state=location,
            )
            app.leases.replica = app.leases.replica._replace(url=url)
            # Without the loop that saves: when turns are taken, the test decides.
            await app.writer.open(location)
            running.push_async_callback(app.writer.close)
            await app.watched.apply(settings)
            apps.append(app)
        for app in 4 * apps:
            await app.writer.save()
            for watched in app.accounts:
                await watched.workflows.reconcile()
        yield apps


def page(app: App) -> Skeleton:
    return Skeleton(Pages(app.view).table(app.view.snapshot(), TableQuery()))


async def test_it_links_to_the_replica_that_holds_a_workflow(postgres: PostgresServer) -> None:
    addresses = ("https://one:9734/", "https://two:9734/")
    async with replicas(postgres, *addresses) as apps:
        for app, address, number in zip(apps, reversed(addresses), (1, 0), strict=True):
            (held,) = app.accounts[0].workflows.attached
            (other,) = {*WORKFLOWS} - {held}
            shown = page(app)
            text = " ".join(shown.text.split())
            assert f"elsewhere {other} held by replica-{number}" in text
            assert "1 not on this replica" in text
            assert "Configured limit600 the rest is left to other tools and replicas" in text
            assert address in shown.addresses


async def test_an_address_that_is_none_is_no_link(postgres: PostgresServer) -> None:
    async with replicas(postgres, "javascript:alert(1)", "") as apps:
        assert "held by replica-0" in " ".join(page(apps[1]).text.split())
        assert not [a for a in page(apps[1]).addresses if a.startswith("javascript")]
        assert "held by replica-1" in " ".join(page(apps[0]).text.split())


async def test_a_workflow_that_no_replica_holds(postgres: PostgresServer) -> None:
    async with replicas(postgres, "", "") as apps:
        await apps[0].writer.close()
        await apps[1].writer.leave()  # otherwise it takes at once what it sees that nobody holds
        assert "unheld" in page(apps[1]).text
        assert "no replica holds it" in page(apps[1]).text
