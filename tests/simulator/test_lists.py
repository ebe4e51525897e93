"""Lists of workflows, instances and versions, page by page."""

from typing import Any

import httpx
import pytest

from simulator import (
    Error,
    Instance,
    ManualClock,
    Script,
    Simulator,
    Sleep,
    Workflow,
    World,
    steps,
)

LIVE = Script((Sleep("nap", 1000),))


def crowd(workflow: Workflow, count: int, script: Script = LIVE) -> list[Instance]:
    """Instances created a second apart, up to now."""
    now = workflow.world.clock()
    return [workflow.create(f"i-{n}", script, at=now - count + n + 1) for n in range(count)]


async def page(client: httpx.AsyncClient, **query: str) -> tuple[list[str], dict[str, Any]]:
    """The ids on a page and its result_info."""
    response = await client.get("/orders/instances", params=query)
    assert response.status_code == 200, response.text
    body = response.json()
    return [row["id"] for row in body["result"]], body["result_info"]


async def refusal(client: httpx.AsyncClient, **query: str) -> str:
    """Why a list was refused."""
    response = await client.get("/orders/instances", params=query)
    assert response.status_code == 400
    message: str = response.json()["errors"][0]["message"]
    return message


class TestAPageOfInstances:
    async def test_has_the_newest_first(self, orders: Workflow, client: httpx.AsyncClient) -> None:
        crowd(orders, 30)
        ids, info = await page(client)
        assert ids == [f"i-{n}" for n in range(29, 4, -1)]
        assert (info["count"], info["per_page"], info["total_count"]) == (25, 25, 30)
        ids, info = await page(client, direction="asc", per_page="2")
        assert (ids, info["total_pages"]) == (["i-0", "i-1"], 15)

    async def test_continues_after_a_cursor(
        self, orders: Workflow, client: httpx.AsyncClient
    ) -> None:
        crowd(orders, 5)
        first, info = await page(client, per_page="2")
        second, info = await page(client, per_page="2", cursor=info["cursor"])
        third, info = await page(client, per_page="2", cursor=info["cursor"])
        assert (first, second, third) == (["i-4", "i-3"], ["i-2", "i-1"], ["i-0"])
        assert "cursor" not in info
        assert "page" not in info

    async def test_can_be_had_by_number(self, orders: Workflow, client: httpx.AsyncClient) -> None:
        crowd(orders, 5)
        numbered = [await page(client, per_page="2", page=str(n)) for n in (1, 2, 3, 4)]
        assert [ids for ids, _ in numbered] == [["i-4", "i-3"], ["i-2", "i-1"], ["i-0"], []]
        ids, _ = await page(client, per_page="2", page="3", direction="asc")
        assert ids == ["i-4"]

    async def test_is_steady_while_instances_come_and_go(
        self, orders: Workflow, clock: ManualClock, client: httpx.AsyncClient
    ) -> None:
        instances = crowd(orders, 6)
        _, info = await page(client, per_page="2")
        orders.create("newer")
        instances[3].delete()
        clock.advance(1)
        ids, _ = await page(client, per_page="2", cursor=info["cursor"])
        assert ids == ["i-2", "i-1"]

    async def test_may_hold_one_status_only(
        self, orders: Workflow, clock: ManualClock, client: httpx.AsyncClient
    ) -> None:
        crowd(orders, 4)
        orders.create("short", Script(steps("a", duration=5)))
        assert (await page(client, status="running"))[0] == ["short"]
        clock.advance(5)
        assert (await page(client, status="running"))[0] == []
        assert (await page(client, status="complete"))[0] == ["short"]
        ids, info = await page(client, status="waiting", per_page="3")
        assert (ids, info["total_count"]) == (["i-3", "i-2", "i-1"], 4)
        ids, info = await page(client, status="waiting", per_page="3", cursor=info["cursor"])
        assert ids == ["i-0"]

    async def test_may_be_limited_by_the_date_of_creation(
        self, orders: Workflow, clock: ManualClock, client: httpx.AsyncClient
    ) -> None:
        clock.now = 1_800_000_000.0  # 2027-01-15T08:00:00Z
        crowd(orders, 5)
        ids, info = await page(
            client, date_start="2027-01-15T07:59:57Z", date_end="2027-01-15T07:59:59.000Z"
        )
        assert (ids, info["total_count"]) == (["i-3", "i-2"], 2)

    async def test_has_rows_with_the_times_of_the_run(
        self, orders: Workflow, clock: ManualClock, client: httpx.AsyncClient
    ) -> None:
        clock.now = 1_800_000_000.0
        orders.create("a", Script(steps("a"), queued=2), trigger="cron")
        clock.advance(10)
        row = (await client.get("/orders/instances")).json()["result"][0]
        assert row == {
            "id": "a",
            "status": "complete",
            "created_on": "2027-01-15T07:59:59.999Z",
            "started_on": "2027-01-15T08:00:02.000Z",
            "ended_on": "2027-01-15T08:00:03.000Z",
            "modified_on": "2027-01-15T08:00:03.000Z",
            "version_id": orders.versions[0].id,
            "workflow_id": orders.id,
            "trigger_source": "cron",
        }

    async def test_costs_only_its_own_rows(
        self, orders: Workflow, client: httpx.AsyncClient
    ) -> None:
        """Of 5,000 instances, the list writes the 100 of the page."""
        written: list[str] = []
        for instance in crowd(orders, 5_000):
            instance.patch_row = lambda row: written.append(row["id"])
        _, info = await page(client, per_page="100")
        ids, _ = await page(client, per_page="100", cursor=info["cursor"])
        assert written[100:] == ids
        assert len(written) == 200


class TestAListIsRefused:
    @pytest.mark.parametrize(
        ("query", "why"),
        [
            ({"per_page": "101"}, "per_page: Too big: expected number to be <=100"),
            ({"per_page": "0"}, "per_page: Too small: expected number to be >=1"),
            ({"page": "abc"}, 'page: Expected query param to be number but received "abc"'),
            ({"direction": "up"}, 'direction: Invalid option: expected one of "asc"|"desc"'),
            ({"date_start": "yesterday"}, "date_start: Invalid ISO datetime"),
            ({"date_end": "2027-01-15T08:00:00+01:00"}, "date_end: Invalid ISO datetime"),
            ({"date_end": "2027-13-15T08:00:00Z"}, "date_end: Invalid ISO datetime"),
            ({"cursor": "abc"}, "cursor: Invalid cursor"),
            ({"cursor": "bm90IGpzb24="}, "cursor: Invalid cursor"),
        ],
    )
    async def test_for_a_wrong_parameter(
        self, orders: Workflow, client: httpx.AsyncClient, query: dict[str, str], why: str
    ) -> None:
        crowd(orders, 1)
        assert await refusal(client, **query) == why

    async def test_for_a_status_that_isnt_known(
        self, orders: Workflow, client: httpx.AsyncClient
    ) -> None:
        crowd(orders, 1)
        assert "status: Invalid option" in await refusal(client, status="hibernating")

    async def test_for_a_cursor_with_a_page_or_of_another_list(
        self, orders: Workflow, client: httpx.AsyncClient
    ) -> None:
        crowd(orders, 5)
        _, info = await page(client, per_page="2")
        assert "mutually exclusive" in await refusal(client, cursor=info["cursor"], page="2")
        assert "Invalid" in await refusal(client, cursor=info["cursor"], direction="asc")
        assert "Invalid" in await refusal(client, cursor=info["cursor"], status="errored")

    async def test_for_a_cursor_that_has_expired(
        self,
        simulator: Simulator,
        orders: Workflow,
        clock: ManualClock,
        client: httpx.AsyncClient,
    ) -> None:
        simulator.world.cursor_lifetime = 60
        crowd(orders, 5)
        _, info = await page(client, per_page="2")
        clock.advance(61)
        assert await refusal(client, cursor=info["cursor"]) == "cursor: Expired cursor"

    async def test_for_pages_larger_than_this_world_gives(
        self, simulator: Simulator, orders: Workflow, client: httpx.AsyncClient
    ) -> None:
        simulator.world.per_page_limit = 10
        crowd(orders, 11)
        assert "<=10" in await refusal(client, per_page="25")
        assert len((await page(client))[0]) == 10


@pytest.mark.usefixtures("orders")
class TestWorkflows:
    async def test_are_listed_and_searched_by_name(
        self, simulator: Simulator, client: httpx.AsyncClient
    ) -> None:
        (account,) = simulator.world.accounts.values()
        account.workflow("billing")

        async def names(query: str) -> list[str]:
            return [w["name"] for w in (await client.get(query)).json()["result"]]

        assert await names("") == ["billing", "orders"]
        assert await names("?per_page=1&page=2") == ["orders"]
        assert await names("?search=ill") == ["billing"]

    async def test_count_their_instances_by_status(
        self, orders: Workflow, clock: ManualClock, client: httpx.AsyncClient
    ) -> None:
        crowd(orders, 3)
        orders.create("bad", Script(steps("a"), throws=Error()))
        clock.advance(10)
        counts = (await client.get("/orders")).json()["result"]["instances"]
        assert {status: n for status, n in counts.items() if n} == {"waiting": 3, "errored": 1}
        assert counts["queued"] == 0

    async def test_may_count_with_a_delay(self, clock: ManualClock) -> None:
        world = World(clock, counts_age=30)
        workflow = world.account("a").workflow("w")
        assert workflow.counts(world.settle())["complete"] == 0
        workflow.create("a")
        clock.advance(29)
        assert workflow.counts(world.settle())["complete"] == 0
        clock.advance(1)
        assert workflow.counts(world.settle())["complete"] == 1

    async def test_list_their_versions_with_their_limits(
        self, orders: Workflow, client: httpx.AsyncClient
    ) -> None:
        orders.release(step_limit=25_000, concurrency=100, error_retention=1000)
        newest, oldest = (await client.get("/orders/versions")).json()["result"]
        assert (newest["limits"], newest["concurrency"]) == ({"steps": 25_000}, {"limit": 100})
        assert newest["default_retention"]["error_retention"] == 1000
        assert oldest["limits"] == {"steps": 10_000}

    @pytest.mark.parametrize("path", ["/nope", "/nope/instances", "/nope/versions"])
    async def test_that_dont_exist_arent_found(self, client: httpx.AsyncClient, path: str) -> None:
        response = await client.get(path)
        assert (response.status_code, response.json()["errors"][0]["code"]) == (404, 10501)

    async def test_have_no_other_endpoints(self, client: httpx.AsyncClient) -> None:
        assert (await client.get("/orders/nope")).status_code == 404
        assert (await client.delete("/orders")).status_code == 404


class TestArrivals:
    async def test_come_as_time_reaches_them(
        self, orders: Workflow, clock: ManualClock, client: httpx.AsyncClient
    ) -> None:
        begin = clock()
        orders.arrivals((begin + n, f"i-{n}", LIVE) for n in range(10_000_000))
        assert (await page(client))[0] == ["i-0"]
        clock.advance(3)
        assert (await page(client))[0] == ["i-3", "i-2", "i-1", "i-0"]

    def test_leave_nothing_behind_once_their_retention_has_passed(
        self, orders: Workflow, clock: ManualClock
    ) -> None:
        orders.release(success_retention=10_000)
        begin = clock()
        orders.arrivals((begin + n, f"i-{n}", Script(steps("a"))) for n in range(1_000))
        for _ in range(110):
            clock.advance(10)
            orders.world.settle()
            assert len(orders.instances) <= 22
        assert (orders.instances, orders.order) == ({}, [])
