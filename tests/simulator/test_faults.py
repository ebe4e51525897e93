"""What goes wrong on the wire, as a client sees it."""

import asyncio

import httpx
import pytest

from simulator import (
    Drip,
    Drop,
    EndlessHeaders,
    Hang,
    Inflate,
    Late,
    Respond,
    Rewrite,
    Script,
    Simulator,
    Stream,
    Truncate,
    Workflow,
    error,
    garbage,
    html,
    redirect,
    steps,
)
from simulator.request_log import RequestLog
from simulator.response import Response
from tests.waiting import DEADLINE, until

PATH = "/orders/instances/a"


@pytest.fixture(autouse=True)
def instance(orders: Workflow) -> None:
    orders.create("a")


class TestAnswersThatAreWrong:
    async def test_an_error_comes_in_the_envelope(
        self, simulator: Simulator, client: httpx.AsyncClient
    ) -> None:
        simulator.faults.add(error(500, 10001, "Internal error"))
        response = await client.get(PATH)
        assert response.status_code == 500
        assert response.json() == {
            "success": False,
            "errors": [{"code": 10001, "message": "Internal error"}],
            "messages": [],
            "result": None,
        }

    async def test_a_failure_can_come_with_status_200(
        self, simulator: Simulator, client: httpx.AsyncClient
    ) -> None:
        simulator.faults.add(error(200))
        response = await client.get(PATH)
        assert (response.status_code, response.json()["success"]) == (200, False)

    @pytest.mark.parametrize("retry_after", ["7", None])
    async def test_a_429_may_say_when_to_retry(
        self, simulator: Simulator, client: httpx.AsyncClient, retry_after: str | None
    ) -> None:
        headers = {} if retry_after is None else {"retry_after": retry_after}
        simulator.faults.add(error(429, 10429, "Rate limited", **headers))
        response = await client.get(PATH)
        assert (response.status_code, response.headers.get("Retry-After")) == (429, retry_after)

    async def test_a_proxy_answers_with_its_page(
        self, simulator: Simulator, client: httpx.AsyncClient
    ) -> None:
        simulator.faults.add(html(502))
        response = await client.get(PATH)
        assert response.status_code == 502
        assert response.headers["content-type"] == "text/html"
        assert response.text.startswith("<!DOCTYPE html>")

    async def test_a_redirect_names_its_location(
        self, simulator: Simulator, client: httpx.AsyncClient
    ) -> None:
        simulator.faults.add(redirect("https://elsewhere.example/", 307))
        response = await client.get(PATH)
        assert response.status_code == 307
        assert response.headers["location"] == "https://elsewhere.example/"

    @pytest.mark.parametrize("action", [garbage(), Truncate(0.5), Truncate(0)])
    async def test_a_whole_answer_isnt_json(
        self, simulator: Simulator, client: httpx.AsyncClient, action: Respond | Truncate
    ) -> None:
        simulator.faults.add(action)
        response = await client.get(PATH)
        assert response.status_code == 200
        with pytest.raises(ValueError, match="line 1"):
            response.json()

    async def test_a_function_may_rewrite_the_answer(
        self, simulator: Simulator, client: httpx.AsyncClient
    ) -> None:
        simulator.faults.add(
            Rewrite(lambda reply: Response(reply.status, b"[" + reply.body + b"]"))
        )
        assert (await client.get(PATH)).json()[0]["result"]["status"] == "complete"


class TestConnectionsThatEnd:
    @pytest.mark.parametrize(
        ("action", "failure"),
        [
            (Drop(), httpx.RemoteProtocolError),
            (Drop(reset=True), httpx.ReadError),
            (Drop(0.5), httpx.RemoteProtocolError),
            (Drop(0.5, reset=True), httpx.ReadError),
        ],
    )
    async def test_the_client_is_cut_off(
        self,
        simulator: Simulator,
        client: httpx.AsyncClient,
        action: Drop,
        failure: type[Exception],
    ) -> None:
        simulator.faults.add(action, times=1)
        with pytest.raises(failure):
            await client.get(PATH)
        assert (await client.get(PATH)).status_code == 200

    async def test_without_a_socket_a_drop_raises(self, simulator: Simulator) -> None:
        simulator.faults.add(Drop())
        transport = httpx.ASGITransport(simulator)
        async with httpx.AsyncClient(transport=transport, base_url="http://simulator") as client:
            with pytest.raises(ConnectionResetError):
                await client.get("/client/v4/accounts/x/workflows")


class TestAnswersWithoutMeasure:
    async def test_outputs_may_be_of_any_size(
        self, simulator: Simulator, client: httpx.AsyncClient, orders: Workflow
    ) -> None:
        orders.create("b", Script(steps("s", "t", duration=0)))
        real = (await client.get("/orders/instances/b")).json()
        simulator.faults.add(Inflate(b'{"a":1}', 20_000))
        answer = (await client.get("/orders/instances/b")).json()
        for step in answer["result"]["steps"]:
            assert step["output"] == [{"a": 1}] * 20_000 + [None]
            step["output"] = "ok"
        assert answer == real

    async def test_a_body_may_be_made_as_it_is_sent(
        self, simulator: Simulator, client: httpx.AsyncClient
    ) -> None:
        simulator.faults.add(Stream(lambda: (b"%d," % n for n in range(3)), {"x-a": "b"}, 203))
        response = await client.get(PATH)
        assert (response.status_code, response.headers["x-a"], response.text) == (
            203,
            "b",
            "0,1,2,",
        )

    async def test_headers_may_never_end(
        self, simulator: Simulator, client: httpx.AsyncClient
    ) -> None:
        simulator.faults.add(EndlessHeaders())
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(PATH)


class TestAnswersThatAreSlow:
    async def test_a_call_that_hangs_is_answered_when_released(
        self, simulator: Simulator, client: httpx.AsyncClient
    ) -> None:
        simulator.faults.add(Hang(), times=1)
        call = asyncio.create_task(client.get(PATH))
        await until(lambda: simulator.requests.in_flight)
        assert (await client.get("/orders")).status_code == 200
        assert not call.done()
        simulator.faults.release()
        assert (await call).status_code == 200

    async def test_a_client_may_give_up_on_a_call_that_hangs(
        self, simulator: Simulator, client: httpx.AsyncClient
    ) -> None:
        simulator.faults.add(Hang(), times=1)
        with pytest.raises(httpx.ReadTimeout):
            await client.get(PATH, timeout=httpx.Timeout(DEADLINE, read=0.05))
        await until(lambda: not simulator.requests.in_flight)
        assert simulator.requests.by_status["detail", 0] == 1

    @pytest.mark.parametrize("action", [Late(0.01), Drip(size=100, every=0.001)])
    async def test_a_late_or_dripping_answer_is_whole(
        self, simulator: Simulator, client: httpx.AsyncClient, action: Late | Drip
    ) -> None:
        simulator.faults.add(action)
        assert (await client.get(PATH)).json()["success"] is True


class TestWhichCallsMeetAFault:
    async def statuses(self, client: httpx.AsyncClient, calls: int = 6) -> list[int]:
        return [(await client.get(PATH)).status_code for _ in range(calls)]

    async def test_the_next_ones(self, simulator: Simulator, client: httpx.AsyncClient) -> None:
        simulator.faults.add(error(500), skip=1, times=2)
        assert await self.statuses(client) == [200, 500, 500, 200, 200, 200]

    async def test_every_third(self, simulator: Simulator, client: httpx.AsyncClient) -> None:
        simulator.faults.add(error(500), every=3)
        assert await self.statuses(client) == [500, 200, 200, 500, 200, 200]

    async def test_some_by_chance_the_same_for_the_same_seed(
        self, simulator: Simulator, client: httpx.AsyncClient
    ) -> None:
        simulator.faults.add(error(500), probability=0.5)
        simulator.faults.chance.seed(1)
        first = await self.statuses(client, 20)
        simulator.faults.chance.seed(1)
        assert await self.statuses(client, 20) == first
        assert set(first) == {200, 500}

    @pytest.mark.parametrize(
        ("conditions", "met"),
        [
            ({"instance": "a"}, True),
            ({"instance": "b"}, False),
            ({"kind": "detail", "workflow": "orders"}, True),
            ({"kind": "simple"}, False),
            ({"path": r"/instances/\w$"}, True),
            ({"path": "billing"}, False),
            ({"account": "another"}, False),
        ],
    )
    async def test_those_that_match_every_condition(
        self,
        simulator: Simulator,
        client: httpx.AsyncClient,
        conditions: dict[str, str],
        met: bool,
    ) -> None:
        simulator.faults.add(error(500), **conditions)
        assert await self.statuses(client, 1) == [500 if met else 200]

    async def test_none_once_the_rules_are_taken_away(
        self, simulator: Simulator, client: httpx.AsyncClient
    ) -> None:
        fault = simulator.faults.add(error(500))
        assert await self.statuses(client, 1) == [500]
        simulator.faults.remove(fault)
        simulator.faults.add(html())
        simulator.faults.clear()
        assert await self.statuses(client, 1) == [200]


class TestTheRecordOfCalls:
    async def test_has_each_request_and_what_became_of_it(
        self, simulator: Simulator, client: httpx.AsyncClient
    ) -> None:
        simulator.faults.add(error(500), kind="simple")
        await client.get(PATH)
        await client.get(PATH, params={"simple": "true"})
        await client.get("/orders/instances", params={"per_page": "10"})
        detail, simple, rows = simulator.requests.of(workflow="orders")
        assert (detail.kind, detail.instance, detail.status, detail.fault) == (
            "detail",
            "a",
            200,
            "",
        )
        assert (simple.kind, simple.status, simple.fault) == ("simple", 500, "respond")
        assert (rows.kind, rows.query, rows.user) == ("list", "per_page=10", "user@example.com")
        assert simulator.requests.of(kind="simple", instance="a") == [simple]

    async def test_counts_exactly_and_remembers_the_latest(
        self, simulator: Simulator, client: httpx.AsyncClient
    ) -> None:
        simulator.requests = RequestLog(3)
        for _ in range(5):
            await client.get(PATH)
        assert simulator.requests.total == 5 == simulator.requests.by_kind["detail"]
        assert simulator.requests.by_status["detail", 200] == 5
        assert len(simulator.requests.latest) == 3
        simulator.requests.clear()
        assert (simulator.requests.total, simulator.requests.latest) == (0, [])

    async def test_has_how_many_were_open_at_once(
        self, simulator: Simulator, client: httpx.AsyncClient
    ) -> None:
        simulator.faults.add(Hang(), kind="detail")
        calls = [asyncio.create_task(client.get(path)) for path in (PATH, PATH, PATH + "b")]
        await until(lambda: simulator.requests.in_flight.total() == 3)
        simulator.faults.clear()
        await asyncio.gather(*calls)
        assert (simulator.requests.most_in_flight, simulator.requests.most_in_flight_of_one) == (
            3,
            2,
        )
