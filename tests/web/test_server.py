"""Listening and serving, on real sockets."""

import asyncio
import contextlib
import errno
import signal
import socket
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from exporter.web.server import Server, address_of, listen

APP = Starlette(routes=[Route("/", lambda _: PlainTextResponse("hello"))])


@contextlib.asynccontextmanager
async def serving(listener: socket.socket) -> AsyncIterator[int]:
    server = Server(APP)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    async with asyncio.timeout(10):
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
    yield listener.getsockname()[1]
    server.should_exit = True
    await task


async def ask(url: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as http:
        return await http.get(url)


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


class TestListen:
    @pytest.mark.parametrize(
        ("host", "reached"),
        [
            ("127.0.0.1", ["127.0.0.1"]),
            ("localhost", ["127.0.0.1"]),
            ("0.0.0.0", ["127.0.0.1"]),
            ("::1", ["[::1]"]),
            ("", ["127.0.0.1", "[::1]"]),
        ],
    )
    async def test_addresses(self, host: str, reached: list[str]) -> None:
        if "[::1]" in reached and not has_ipv6():
            pytest.skip("this machine has no IPv6")
        with listen(host, 0) as listener:
            async with serving(listener) as port:
                for address in reached:
                    assert (await ask(f"http://{address}:{port}/")).text == "hello"

    def test_it_is_told_as_in_a_url(self) -> None:
        with listen("127.0.0.1", 0) as listener:
            assert address_of(listener) == f"127.0.0.1:{listener.getsockname()[1]}"
        if has_ipv6():
            with listen("::1", 0) as listener:
                assert address_of(listener) == f"[::1]:{listener.getsockname()[1]}"

    def test_an_address_in_use(self) -> None:
        with listen("127.0.0.1", 0) as taken, pytest.raises(OSError, match="in use") as caught:
            listen("127.0.0.1", taken.getsockname()[1])
        assert caught.value.errno == errno.EADDRINUSE

    def test_an_address_of_another_machine(self) -> None:
        with pytest.raises(OSError, match="assign requested address"):
            listen("192.0.2.1", 0)

    def test_a_name_that_is_not_known(self) -> None:
        with pytest.raises(OSError, match=r"nowhere|known|resolution|address"):
            listen("nowhere.invalid", 0)


class TestServer:
    async def test_it_does_not_say_what_it_is_made_of(self) -> None:
        with listen("127.0.0.1", 0) as listener:
            async with serving(listener) as port:
                assert "server" not in (await ask(f"http://127.0.0.1:{port}/")).headers

    async def test_signals_are_left_to_the_app(self) -> None:
        before = signal.getsignal(signal.SIGTERM)
        with listen("127.0.0.1", 0) as listener:
            async with serving(listener):
                assert signal.getsignal(signal.SIGTERM) is before

    @pytest.mark.parametrize("request_text", [b"GET / HTTP/1.1\r\n\r\n", b"nonsense\r\n\r\n"])
    async def test_nonsense_is_refused(self, request_text: bytes) -> None:
        with listen("127.0.0.1", 0) as listener:
            async with serving(listener) as port:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(request_text)
                async with asyncio.timeout(10):
                    assert (await reader.readline()).startswith(b"HTTP/1.1 400")
                writer.close()
                await writer.wait_closed()
