"""Who is let in, and how often."""

import httpx
import pytest

from simulator import ManualClock, Simulator, Workflow
from tests.waiting import DEADLINE

from .conftest import ACCOUNT, TOKEN


async def get(simulator: Simulator, **headers: str) -> httpx.Response:
    """Ask for the account's workflows with these headers; underscores stand for hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with httpx.AsyncClient(verify=False, timeout=DEADLINE) as client:
        return await client.get(f"{simulator.url}/accounts/{ACCOUNT}/workflows", headers=named)


@pytest.fixture(autouse=True)
def workflow(orders: Workflow) -> Workflow:
    return orders


class TestCredentials:
    async def test_a_token_or_an_email_with_its_key_opens_the_api(
        self, simulator: Simulator
    ) -> None:
        simulator.access.key("user@example.com", "the-key")
        assert (await get(simulator, Authorization=f"Bearer {TOKEN}")).status_code == 200
        pair = {"X_Auth_Email": "user@example.com", "X_Auth_Key": "the-key"}
        assert (await get(simulator, **pair)).status_code == 200

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": TOKEN},
            {"X_Auth_Email": "user@example.com", "X_Auth_Key": "wrong"},
        ],
    )
    async def test_missing_or_wrong_ones_are_refused(
        self, simulator: Simulator, headers: dict[str, str]
    ) -> None:
        response = await get(simulator, **headers)
        assert response.status_code == 401
        assert response.json()["errors"] == [{"code": 10000, "message": "Authentication error"}]

    @pytest.mark.parametrize("permissions", [["DNS Read"], []])
    async def test_a_token_without_the_permission_is_forbidden(
        self, simulator: Simulator, permissions: list[str]
    ) -> None:
        simulator.access.token("dns", permissions=permissions)
        response = await get(simulator, Authorization="Bearer dns")
        assert response.status_code == 403
        assert response.json()["errors"] == [{"code": 10000, "message": "Authentication error"}]

    async def test_a_token_for_another_account_is_forbidden(self, simulator: Simulator) -> None:
        simulator.access.token("theirs", accounts=["another"])
        assert (await get(simulator, Authorization="Bearer theirs")).status_code == 403

    async def test_an_account_that_doesnt_exist_is_forbidden(self, simulator: Simulator) -> None:
        async with httpx.AsyncClient(
            headers={"Authorization": f"Bearer {TOKEN}"}, verify=False, timeout=DEADLINE
        ) as client:
            response = await client.get(f"{simulator.url}/accounts/nobody/workflows")
        assert response.status_code == 403

    async def test_a_revoked_token_is_refused(self, simulator: Simulator) -> None:
        simulator.access.revoke(TOKEN)
        assert (await get(simulator, Authorization=f"Bearer {TOKEN}")).status_code == 401


class TestTheRateLimit:
    @pytest.fixture(autouse=True)
    def quota(self, simulator: Simulator) -> None:
        simulator.limit.quota = 4

    async def test_is_in_each_response(self, clock: ManualClock, client: httpx.AsyncClient) -> None:
        await client.get("")
        clock.advance(100)
        headers = (await client.get("")).headers
        assert headers["Ratelimit"] == '"default";r=2;t=200'
        assert headers["Ratelimit-Policy"] == '"burst";q=4;w=300'
        assert "Retry-After" not in headers

    async def test_slides(self, clock: ManualClock, client: httpx.AsyncClient) -> None:
        seen = []
        for _ in range(12):
            seen.append((await client.get("")).status_code)
            clock.advance(75)
        assert seen == [200] * 12

    async def test_locks_its_user_out_once_overrun(
        self, simulator: Simulator, clock: ManualClock, client: httpx.AsyncClient
    ) -> None:
        for _ in range(4):
            assert (await client.get("")).status_code == 200
        refused = await client.get("")
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "300")
        assert refused.json()["success"] is False
        clock.advance(299)
        refused = await client.get("")
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        clock.advance(1)
        assert (await client.get("")).status_code == 200
        assert simulator.limit.refused == 2

    async def test_is_shared_by_all_clients_of_a_user_and_no_other(
        self, simulator: Simulator, client: httpx.AsyncClient
    ) -> None:
        simulator.access.token("second")
        simulator.access.token("stranger", user="stranger@example.com")
        assert simulator.limit.spend(3) == 3
        assert (await get(simulator, Authorization="Bearer second")).status_code == 200
        assert (await client.get("")).status_code == 429
        assert simulator.limit.spend(1) == 0
        assert (await get(simulator, Authorization="Bearer stranger")).status_code == 200

    async def test_is_off_unless_there_is_a_quota(
        self, simulator: Simulator, client: httpx.AsyncClient
    ) -> None:
        simulator.limit.quota = None
        assert "Ratelimit" not in (await client.get("")).headers
        assert simulator.limit.spend(10_000) == 10_000
