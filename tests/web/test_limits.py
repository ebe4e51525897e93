"""What a client can't do to the server: send too much, too slowly, or hold too many connections."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from structlog.testing import capture_logs

from exporter.web.middleware import MAX_HEAD_SIZE, MAX_HEADERS, MAX_TARGET_SIZE
from tests.waiting import DEADLINE, until
from tests.web.certificates import Authority
from tests.web.conftest import Protect
from tests.web.serving import LARGE as LARGE_SIZE
from tests.web.serving import Raw, Served, serving
from tests.web.test_tls import gets_in

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LARGE = b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n"
SHORT = 0.3


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as served:
        yield served


def request(*headers: bytes, method: bytes = b"GET", target: bytes = b"/") -> bytes:
    head = [method + b" " + target + b" HTTP/1.1", b"Host: x", *headers]
    return b"\r\n".join([*head, b"", b""])


async def responses(served: Served, raw: bytes) -> tuple[int, bytes]:
    """Status of the response, and what comes after its first line until the connection ends."""
    async with served.connected() as client:
        client.send(raw)
        return await client.status(), await client.rest()


class TestSize:
    @pytest.mark.parametrize(
        ("raw", "status"),
        [
            (request(target=b"/" + b"a" * (MAX_TARGET_SIZE)), 414),
            (request(target=b"/?" + b"a" * MAX_TARGET_SIZE), 414),
            (request(*[b"A: b"] * (MAX_HEADERS + 1)), 431),
            (request(b"A: " + b"b" * MAX_HEAD_SIZE), 431),
            (request(*[b"A: " + b"b" * (MAX_HEAD_SIZE // 10)] * 10), 431),
            (request(target=b"/" + b"a" * 200_000), 414),
            (request(b"Content-Length: 1") + b"x", 413),
            (request(b"Content-Length: 1000000000000"), 413),
            (request(b"Content-Length: 00") + GET, 413),
            (request(b"Transfer-Encoding: chunked") + b"0\r\n\r\n", 413),
            (request(b"Content-Length: 5", b"Expect: 100-continue"), 413),
            (request(b"Content-Length: 1", method=b"POST") + b"x", 413),
        ],
    )
    async def test_too_much_is_refused_and_ends_the_connection(
        self, served: Served, raw: bytes, status: int
    ) -> None:
        got, rest = await responses(served, raw)
        assert got in (status, 400)  # 400: it didn't even come in one piece
        assert b"connection: close" in rest.lower()
        assert (await served.get()).text == "hello"

    @pytest.mark.parametrize(
        "raw",
        [
            request(target=b"/?" + b"a" * (MAX_TARGET_SIZE - 2)),
            request(*[b"A: b"] * (MAX_HEADERS - 1)),
            request(b"A: " + b"b" * (MAX_HEAD_SIZE - 100)),
            request(b"Content-Length: 0"),
        ],
    )
    async def test_what_is_within_the_limits_is_served(self, served: Served, raw: bytes) -> None:
        async with served.connected() as client:
            client.send(raw)
            assert await client.status() == 200

    async def test_a_head_that_never_ends(self, served: Served) -> None:
        """Is read no further than the limit."""
        async with served.connected() as client:
            client.send(b"GET / HTTP/1.1\r\n")
            for _ in range(MAX_HEAD_SIZE // 100 + 1000):
                client.send(b"A: " + b"b" * 100 + b"\r\n")
            assert b"400" in await client.rest()

    async def test_strangers_get_no_further(self, protect: Protect) -> None:
        async with serving(protect(users={"alice": "word"})) as served:
            got, rest = await responses(served, request(b"Content-Length: 1") + b"x")
            assert (got, b"hello" in rest) == (413, False)

    async def test_an_upgrade_is_not_made(self, served: Served) -> None:
        upgrade = request(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: x")
        async with served.connected() as client:
            client.send(upgrade)
            assert await client.status() == 200


class TestTime:
    async def test_who_says_nothing_is_hung_up_on(self) -> None:
        async with (
            serving(request=SHORT) as served,
            served.connected() as client,
        ):
            assert await client.rest() == b""

    async def test_who_sends_a_request_byte_by_byte_too(self) -> None:
        """However lively: the time counts from the first byte."""
        async with (
            serving(request=SHORT) as served,
            served.connected() as client,
        ):

            async def drip() -> None:
                while not client.writer.is_closing():
                    client.send(b"a")
                    await asyncio.sleep(0.01)

            client.send(b"GET / HTTP/1.1\r\nA: ")
            dripping = asyncio.create_task(drip())
            assert await client.rest() == b""
            client.writer.close()
            await dripping

    async def test_and_who_does_so_with_a_second_request(self) -> None:
        async with serving(request=SHORT) as served, served.connected() as client:
            client.send(GET)
            assert await client.status() == 200
            client.send(b"G")
            assert (await client.rest()).endswith(b"hello")

    @pytest.mark.slow
    async def test_between_requests_a_client_may_take_longer(self) -> None:
        """So that a scrape finds its connection open."""
        async with serving(request=SHORT) as served, served.connected() as client:
            for _ in range(2):
                client.send(GET)
                assert await client.status() == 200
                async with served.connected() as silent:
                    await silent.rest()  # its time is over, and that of the other isn't
                await client.reader.readuntil(b"hello")

    async def test_but_not_for_ever(self) -> None:
        async with (
            serving(idle=SHORT) as served,
            served.connected() as client,
        ):
            client.send(GET)
            assert (await client.rest()).endswith(b"hello")

    async def test_a_response_may_take_longer_than_a_request(self) -> None:
        made = asyncio.Event()

        async def late(_: Request) -> Response:
            await made.wait()
            return PlainTextResponse("hello")

        app = Starlette(routes=[Route("/", late)])
        async with serving(app=app, request=SHORT) as served, served.connected() as client:
            client.send(GET)
            async with served.connected() as silent:
                await silent.rest()  # its time is over
            made.set()
            assert await client.status() == 200

    async def test_who_does_not_read_the_response_is_disconnected(self) -> None:
        """The log says so, for the first of them."""
        with capture_logs() as logs:
            async with (
                serving(response=SHORT) as served,
                AsyncExitStack() as open_,
            ):
                slow = [await open_.enter_async_context(served.connected()) for _ in range(3)]
                for client in slow:
                    client.send(LARGE)
                    assert await client.status() == 200
                await until(lambda: not served.server.server_state.connections)
                for client in slow:
                    assert len(await client.rest()) < LARGE_SIZE
        assert logs == [
            {
                "event": "client did not read the response in time; closing the connection",
                "log_level": "warning",
                "client": "127.0.0.1",
                "after_seconds": SHORT,
            }
        ]

    async def test_who_does_not_shake_hands_is_hung_up_on(
        self, protect: Protect, authority: Authority
    ) -> None:
        async with serving(protect(tls={}), request=SHORT) as served:
            async with served.connected() as client:
                assert await client.rest() == b""
            async with asyncio.timeout(DEADLINE):  # on a busy machine its time may be over, too
                while not await gets_in(served, authority.client()):
                    pass


class TestNumber:
    async def test_the_oldest_idle_connection_gives_way_to_a_new_one(self) -> None:
        """So that whoever holds connections open shuts nobody out."""
        async with (
            serving(connections=10) as served,
            AsyncExitStack() as open_,
        ):
            held = [await open_.enter_async_context(served.connected()) for _ in range(50)]
            assert (await served.get()).text == "hello"
            for client in held[:40]:
                assert await client.rest() == b""
            held[-1].send(GET)
            assert await held[-1].status() == 200

    async def test_also_while_they_still_shake_hands(
        self, protect: Protect, authority: Authority
    ) -> None:
        async with (
            serving(protect(tls={}), connections=10) as served,
            AsyncExitStack() as open_,
        ):
            held = [await open_.enter_async_context(served.connected()) for _ in range(50)]
            assert (await served.get(tls=authority.client())).text == "hello"
            for client in held[:40]:
                assert await client.rest() == b""

    async def test_one_that_is_being_served_stays(self) -> None:
        async with (
            serving(connections=10) as served,
            AsyncExitStack() as open_,
        ):
            slow = await open_.enter_async_context(served.connected())
            slow.send(LARGE)
            assert await slow.status() == 200
            for _ in range(50):
                await open_.enter_async_context(served.connected())
            assert (await served.get()).text == "hello"
            await slow.reader.readuntil(b"\r\n\r\n")
            async with asyncio.timeout(DEADLINE):
                assert await slow.reader.readexactly(LARGE_SIZE)

    async def test_unread_responses_are_limited(self) -> None:
        """They cost memory; the one that waits longest is dropped."""
        async with serving(unread=3) as served, AsyncExitStack() as open_:
            slow: list[Raw] = []
            for _ in range(6):
                client = await open_.enter_async_context(served.connected())
                client.send(LARGE)
                assert await client.status() == 200
                slow.append(client)
            await until(lambda: len(served.server.server_state.connections) == 3)
            lengths = [len(await client.rest()) for client in slow[:3]]
            assert max(lengths) < LARGE_SIZE
            assert (await served.get("/large")).status_code == 200
