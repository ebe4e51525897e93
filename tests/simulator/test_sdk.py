"""Cloudflare's official SDK reads the simulator's responses, and finds what its types say."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from cloudflare import (
    AsyncCloudflare,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    RateLimitError,
)
from cloudflare.types.accounts import Account
from cloudflare.types.workflows import (
    InstanceListResponse,
    VersionListResponse,
    WorkflowGetResponse,
    WorkflowListResponse,
)

from simulator import (
    Attempt,
    Config,
    Error,
    Instance,
    ManualClock,
    Script,
    Simulator,
    Sleep,
    Step,
    Wait,
    Workflow,
    error,
    parallel,
    retried,
    steps,
)
from tests.waiting import DEADLINE

from .conftest import ACCOUNT, TOKEN
from .sdk import check, check_instance

LIFE = Script(
    (
        *steps("fetch"),
        retried("charge", 2, error=Error("TypeError", "no")),
        Sleep("nap", 10),
        parallel(*steps("par", "par")),
        Step("secret", config=Config(3, "[dynamic]", None, 5000, sensitive="output")),
        Wait("approval", timeout=20, caught=True),
    ),
    queued=2,
    throws=Error("RangeError", "late"),
    rollback=(Step("fetch", (Attempt(3),)),),
)


@pytest.fixture
async def sdk(simulator: Simulator) -> AsyncIterator[AsyncCloudflare]:
    async with AsyncCloudflare(
        api_token=TOKEN,
        base_url=simulator.url,
        max_retries=0,
        http_client=httpx.AsyncClient(verify=False, timeout=DEADLINE),
    ) as client:
        yield client


async def responses(client: httpx.AsyncClient, instance: Instance) -> list[dict[str, Any]]:
    path = f"/orders/instances/{instance.id}"
    got = [await client.get(path, params={"simple": simple}) for simple in ("false", "true")]
    return [response.json()["result"] for response in got]


class TestTheTypes:
    async def test_hold_at_every_second_of_a_life(
        self, orders: Workflow, clock: ManualClock, client: httpx.AsyncClient
    ) -> None:
        instance = orders.create("a", LIFE, schedule={"cron": "* * * * *", "scheduledTime": 1.0})
        seen = []
        for _ in range(50):
            full, simple = await responses(client, instance)
            seen += [check_instance(full).status, check_instance(simple).status]
            rows = (await client.get("/orders/instances")).json()["result"]
            assert [check(InstanceListResponse, row).status for row in rows] == [seen[-1]]
            clock.advance(1)
        assert list(dict.fromkeys(seen)) == [
            "queued",
            "running",
            "waiting",
            "rollingBack",
            "errored",
        ]

    @pytest.mark.parametrize("verb", ["pause", "terminate", "restart", "send_event"])
    async def test_hold_after_each_intervention(
        self, orders: Workflow, clock: ManualClock, client: httpx.AsyncClient, verb: str
    ) -> None:
        instance = orders.create("a", LIFE)
        for _ in range(30):
            clock.advance(1.7)
            getattr(instance, verb)()
            for response in await responses(client, instance):
                check_instance(response)

    async def test_hold_for_workflows_and_versions(
        self, orders: Workflow, client: httpx.AsyncClient
    ) -> None:
        orders.create("a")
        orders.release(step_limit=25_000, concurrency=5)
        orders.release(step_limit=None, success_retention=None)
        check(WorkflowGetResponse, (await client.get("/orders")).json()["result"])
        for row in (await client.get("")).json()["result"]:
            check(WorkflowListResponse, row)
        for row in (await client.get("/orders/versions")).json()["result"]:
            check(VersionListResponse, row)

    async def test_hold_for_accounts(self, simulator: Simulator, client: httpx.AsyncClient) -> None:
        simulator.world.account(ACCOUNT)
        (row,) = (await client.get(f"{simulator.url}/accounts")).json()["result"]
        assert check(Account, row).id == ACCOUNT


@pytest.mark.usefixtures("orders")
class TestTheClient:
    async def test_gets_an_instance(
        self, sdk: AsyncCloudflare, orders: Workflow, clock: ManualClock
    ) -> None:
        orders.create("a", LIFE)
        clock.advance(10)
        got = await sdk.workflows.instances.get(
            "a", account_id=ACCOUNT, workflow_name="orders", simple="false", order="desc"
        )
        assert (got.status, got.steps[0].type) == ("waiting", "sleep")
        simple = await sdk.workflows.instances.get(
            "a", account_id=ACCOUNT, workflow_name="orders", simple="true"
        )
        assert simple.step_count == len(got.steps) == 3

    async def test_lists_by_cursor_and_by_page(
        self, sdk: AsyncCloudflare, orders: Workflow, clock: ManualClock
    ) -> None:
        for number in range(7):
            orders.create(f"i-{number}")
            clock.advance(1)
        expected = [f"i-{n}" for n in range(6, -1, -1)]
        listing = sdk.workflows.instances.list("orders", account_id=ACCOUNT, per_page=3)
        assert [row.id async for row in listing] == expected

        by_cursor: list[str] = []
        more: dict[str, Any] | None = {}
        while more is not None:
            page = await sdk.workflows.instances.list(
                "orders", account_id=ACCOUNT, per_page=3, **more
            )
            by_cursor += [row.id for row in page.result]
            assert page.result_info is not None
            # The SDK's model of result_info has no cursor; it keeps what it doesn't know.
            cursor = (page.result_info.model_extra or {}).get("cursor")
            more = {"cursor": cursor} if cursor else None
        assert by_cursor == expected

    async def test_lists_workflows_and_versions(self, sdk: AsyncCloudflare) -> None:
        assert [w.name async for w in sdk.workflows.list(account_id=ACCOUNT)] == ["orders"]
        versions = sdk.workflows.versions.list("orders", account_id=ACCOUNT)
        assert [v.limits.steps async for v in versions if v.limits] == [10_000]

    async def test_lists_the_accounts_that_a_token_opens(
        self, sdk: AsyncCloudflare, simulator: Simulator
    ) -> None:
        for number in range(25):
            simulator.world.account(f"a-{number}")
        assert len([account async for account in sdk.accounts.list()]) == 26
        simulator.access.token(TOKEN, accounts=[ACCOUNT])
        assert [account.id async for account in sdk.accounts.list()] == [ACCOUNT]
        simulator.access.token(TOKEN, accounts=[ACCOUNT], account_owned=True)
        with pytest.raises(BadRequestError, match="does not support account owned tokens"):
            await sdk.accounts.list()

    async def test_raises_its_own_errors(self, sdk: AsyncCloudflare, simulator: Simulator) -> None:
        with pytest.raises(NotFoundError):
            await sdk.workflows.get("nope", account_id=ACCOUNT)
        simulator.faults.add(error(429, 10429, "Rate limited"), times=1)
        with pytest.raises(RateLimitError):
            await sdk.workflows.get("orders", account_id=ACCOUNT)
        simulator.access.revoke(TOKEN)
        with pytest.raises(AuthenticationError):
            await sdk.workflows.get("orders", account_id=ACCOUNT)
