"""A simulated account on a socket, and a client that may read it."""

from collections.abc import AsyncIterator

import httpx
import pytest

from simulator import ManualClock, Simulator, Workflow, serve
from tests.waiting import DEADLINE

ACCOUNT = "023e105f4ecef8ad9ca31a8372d0c353"
TOKEN = "the-token"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def simulator(clock: ManualClock) -> AsyncIterator[Simulator]:
    simulator = Simulator(clock=clock)
    simulator.access.token(TOKEN)
    async with serve(simulator) as served:
        yield served


@pytest.fixture
def orders(simulator: Simulator) -> Workflow:
    return simulator.world.account(ACCOUNT).workflow("orders")


@pytest.fixture
async def client(simulator: Simulator) -> AsyncIterator[httpx.AsyncClient]:
    """Paths are relative to the account's workflows."""
    async with httpx.AsyncClient(
        base_url=f"{simulator.url}/accounts/{ACCOUNT}/workflows",
        headers={"Authorization": f"Bearer {TOKEN}"},
        verify=False,  # there is no TLS, and loading the CA certificates takes a while
        timeout=DEADLINE,
    ) as client:
        yield client
