"""The queue of lifecycle events, as the official SDK's types and Cloudflare's documentation say."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from cloudflare import AsyncCloudflare, PermissionDeniedError
from cloudflare.types.queues import MessageAckResponse, MessagePullResponse

# The SDK's own adapter distinguishes the types of consumers.
from cloudflare.types.queues import Queue as SdkQueue

from simulator import (
    QUEUES_EDIT,
    QUEUES_READ,
    Error,
    ManualClock,
    Queue,
    Script,
    Simulator,
    Sleep,
    Workflow,
    retried,
    steps,
)
from tests.waiting import DEADLINE

from .conftest import ACCOUNT
from .sdk import check

pytestmark = pytest.mark.usefixtures("queue")

QUEUE = "e5a9a1b1c0de4f0f8a1f5b6c7d8e9f00"


@pytest.fixture
def queue(simulator: Simulator, orders: Workflow) -> Queue:
    simulator.access.token("queues", permissions=[QUEUES_EDIT])
    return simulator.world.account(ACCOUNT).queue(QUEUE, orders.name)


@pytest.fixture
async def http(simulator: Simulator) -> AsyncIterator[httpx.AsyncClient]:
    """Paths are relative to the queue."""
    async with httpx.AsyncClient(
        base_url=f"{simulator.url}/accounts/{ACCOUNT}/queues/{QUEUE}",
        headers={"Authorization": "Bearer queues"},
        verify=False,
        timeout=DEADLINE,
    ) as client:
        yield client


def official_sdk(simulator: Simulator, token: str) -> AsyncCloudflare:
    http = httpx.AsyncClient(verify=False, timeout=DEADLINE)
    return AsyncCloudflare(api_token=token, base_url=simulator.url, max_retries=0, http_client=http)


async def pull(http: httpx.AsyncClient, size: int = 100, visibility: int = 30_000) -> Any:
    body = {"batch_size": size, "visibility_timeout_ms": visibility}
    return (await http.post("/messages/pull", json=body)).json()["result"]


async def ack(http: httpx.AsyncClient, *messages: Any, retries: Any = ()) -> Any:
    body = {"acks": [{"lease_id": m["lease_id"]} for m in messages], "retries": list(retries)}
    return (await http.post("/messages/ack", json=body)).json()["result"]


def kinds(pulled: Any) -> list[tuple[str, str]]:
    """Instance and kind of each event, by time."""
    events = [json.loads(base64.b64decode(m["body"])) for m in pulled["messages"]]
    events.sort(key=lambda e: (e["metadata"]["eventTimestamp"], e["payload"]["instanceId"]))
    return [(e["payload"]["instanceId"], e["type"].rpartition(".")[2]) for e in events]


class TestEvents:
    async def test_come_for_each_change_that_cloudflare_publishes(
        self, orders: Workflow, clock: ManualClock, http: httpx.AsyncClient
    ) -> None:
        failure = Error("TypeError", "no")
        charge = retried("charge", 1, error=failure, backoff=2)
        orders.create("a", Script((charge, Sleep("nap", 5)), queued=1))
        orders.create("b", Script(steps("fetch"), throws=failure))
        clock.advance(60)
        assert kinds(await pull(http)) == [
            ("a", "queued"),
            ("b", "started"),
            ("a", "started"),
            ("b", "errored"),
            ("a", "errored"),  # a step that is retried
            ("a", "completed"),
        ]

    async def test_come_for_pauses_restarts_and_terminations(
        self, orders: Workflow, clock: ManualClock, http: httpx.AsyncClient
    ) -> None:
        order = orders.create("a", Script((Sleep("nap", None),), queued=1))
        now = clock()
        order.pause(now + 10)
        order.resume(now + 20)
        order.restart(now + 30)
        order.terminate(now + 40)
        clock.advance(60)
        assert [kind for _, kind in kinds(await pull(http))] == [
            "queued", "started", "paused", "started", "queued", "started", "terminated",
        ]  # fmt: skip

    async def test_come_once_each_however_often_time_moves(
        self, queue: Queue, orders: Workflow, clock: ManualClock, http: httpx.AsyncClient
    ) -> None:
        orders.create("a", Script((retried("charge", 3, backoff=2), Sleep("nap", 5)), queued=1))
        found = []
        for _ in range(60):
            clock.advance(0.5)
            pulled = await pull(http)
            found += kinds(pulled)
            await ack(http, *pulled["messages"])
        assert [kind for _, kind in found] == [
            "queued", "started", "errored", "errored", "errored", "completed",
        ]  # fmt: skip
        assert queue.backlog == 0


class TestTheTypes:
    async def test_hold(
        self, queue: Queue, orders: Workflow, clock: ManualClock, http: httpx.AsyncClient
    ) -> None:
        orders.create("a", Script(steps("fetch")))
        clock.advance(60)
        pulled = await pull(http)
        check(MessagePullResponse, pulled)
        assert pulled["message_backlog_count"] == 2
        check(MessageAckResponse, await ack(http, *pulled["messages"]))
        for consumer in ("http_pull", None):
            queue.consumer = consumer
            check(SdkQueue, (await http.get("")).json()["result"])

    async def test_suit_the_sdk(
        self, simulator: Simulator, orders: Workflow, clock: ManualClock
    ) -> None:
        orders.create("a", Script(steps("fetch")))
        clock.advance(60)
        async with official_sdk(simulator, "queues") as sdk:
            messages = sdk.queues.messages
            pulled = await messages.pull(QUEUE, account_id=ACCOUNT, batch_size=1)
            assert pulled
            assert pulled.messages
            assert pulled.messages[0].lease_id
            lease = pulled.messages[0].lease_id
            done = await messages.ack(QUEUE, account_id=ACCOUNT, acks=[{"lease_id": lease}])
            assert done
            assert (done.ack_count, done.retry_count, done.warnings) == (1, 0, {})
            found = await sdk.queues.get(QUEUE, account_id=ACCOUNT)
            assert found
            assert found.consumers
            assert found.consumers[0].type == "http_pull"


class TestDelivery:
    async def test_a_message_is_invisible_until_its_lease_ends(
        self, queue: Queue, clock: ManualClock, http: httpx.AsyncClient
    ) -> None:
        queue.push({"n": 1}, round(clock() * 1000))
        first = await pull(http, visibility=10_000)
        assert [m["attempts"] for m in first["messages"]] == [1]
        clock.advance(9)
        assert (await pull(http))["messages"] == []
        clock.advance(2)
        again = await pull(http)
        assert [m["attempts"] for m in again["messages"]] == [2]
        late = await ack(http, *first["messages"])
        assert (late["ackCount"], len(late["warnings"])) == (0, 1)
        assert (await ack(http, *again["messages"]))["ackCount"] == 1
        assert (queue.backlog, queue.acknowledged) == (0, 1)

    async def test_a_message_is_dropped_when_it_came_back_too_often(
        self, queue: Queue, clock: ManualClock, http: httpx.AsyncClient
    ) -> None:
        queue.push({"n": 1}, round(clock() * 1000))
        for _ in range(4):
            assert len((await pull(http))["messages"]) == 1
            clock.advance(31)
        assert (await pull(http))["messages"] == []
        assert (queue.backlog, queue.dropped) == (0, 1)

    async def test_a_retried_message_comes_back_after_its_delay(
        self, queue: Queue, clock: ManualClock, http: httpx.AsyncClient
    ) -> None:
        queue.push({"n": 1}, round(clock() * 1000))
        (message,) = (await pull(http))["messages"]
        retries = [{"lease_id": message["lease_id"], "delay_seconds": 20}]
        assert (await ack(http, retries=retries))["retryCount"] == 1
        clock.advance(19)
        assert (await pull(http))["messages"] == []
        clock.advance(2)
        assert len((await pull(http))["messages"]) == 1

    async def test_messages_come_in_no_order_twice_late_or_never(
        self, queue: Queue, clock: ManualClock, http: httpx.AsyncClient
    ) -> None:
        queue.delay, queue.lost, queue.twice = (0, 10), 0.2, 0.2
        now = round(clock() * 1000)
        for n in range(300):
            queue.push({"n": n}, now + n)
        early = (await pull(http))["messages"]
        clock.advance(20)
        messages = [*early]
        while pulled := (await pull(http))["messages"]:
            messages += pulled
        numbers = [json.loads(base64.b64decode(m["body"]))["n"] for m in messages]
        assert len(early) < 100
        assert numbers != sorted(numbers)
        assert len(set(numbers)) < 300  # some are lost
        assert len(numbers) > len(set(numbers))  # and some come twice

    async def test_bodies_may_come_as_they_are(
        self, queue: Queue, clock: ManualClock, http: httpx.AsyncClient
    ) -> None:
        queue.plain = True
        queue.push({"n": 1}, round(clock() * 1000))
        queue.push("hello", round(clock() * 1000), content_type="text")
        bodies = {m["body"] for m in (await pull(http))["messages"]}
        assert bodies == {'{"n":1}', "hello"}


class TestRefusals:
    @pytest.mark.parametrize("consumer", ["worker", None])
    async def test_without_a_pull_consumer_nothing_is_pulled(
        self, queue: Queue, consumer: Any, http: httpx.AsyncClient
    ) -> None:
        queue.consumer = consumer
        response = await http.post("/messages/pull", json={})
        assert response.status_code == 405
        assert "http_pull" in response.json()["errors"][0]["message"]

    @pytest.mark.parametrize(("permission", "get"), [(QUEUES_READ, 200), ("", 403)])
    async def test_to_pull_takes_the_permission_to_edit(
        self, simulator: Simulator, http: httpx.AsyncClient, permission: str, get: int
    ) -> None:
        simulator.access.token("queues", permissions=[permission])
        assert (await http.get("")).status_code == get
        for act in ("pull", "ack"):
            assert (await http.post(f"/messages/{act}", json={})).status_code == 403

    async def test_an_unknown_queue_is_not_found(self, simulator: Simulator) -> None:
        async with official_sdk(simulator, "wrong") as sdk:
            with pytest.raises(Exception, match="401"):
                await sdk.queues.messages.pull("other", account_id=ACCOUNT)
        async with official_sdk(simulator, "queues") as sdk:
            with pytest.raises(Exception, match="404"):
                await sdk.queues.messages.pull("other", account_id=ACCOUNT)
            simulator.access.token("queues", permissions=[QUEUES_EDIT], accounts=["other"])
            with pytest.raises(PermissionDeniedError):
                await sdk.queues.messages.pull(QUEUE, account_id=ACCOUNT)

    @pytest.mark.parametrize("body", [{"batch_size": 101}, {"visibility_timeout_ms": 43_200_001}])
    async def test_limits_are_those_of_the_documentation(
        self, http: httpx.AsyncClient, body: dict[str, int]
    ) -> None:
        assert (await http.post("/messages/pull", json=body)).status_code == 400

    async def test_requests_for_queues_are_outside_of_the_rate_limit(
        self, simulator: Simulator, http: httpx.AsyncClient
    ) -> None:
        simulator.limit.quota = 1
        for _ in range(3):
            assert (await http.post("/messages/pull", json={})).status_code == 200
        assert simulator.limit.refused == 0
