"""Listening and serving, on real sockets."""

import asyncio
import contextlib
import errno
import logging
import signal
import socket
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from exporter.web.server import Server, address_of, listen, page_url
from tests.waiting import DEADLINE, until
from tests.web.serving import HELLO, LARGE, serving


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
            ("::", ["127.0.0.1", "[::1]"]),
        ],
    )
    async def test_addresses(self, host: str, reached: list[str]) -> None:
        if "[::1]" in reached and not has_ipv6():
            pytest.skip("this machine has no IPv6")
        async with serving(host=host) as served:
            for address in reached:
                url = f"http://{address}:{served.port}/"
                async with httpx.AsyncClient(
                    trust_env=False, timeout=DEADLINE, verify=False
                ) as http:
                    assert (await http.get(url)).text == "hello"

    def test_it_is_shown_as_in_a_url(self) -> None:
        with listen("127.0.0.1", 0) as listener:
            assert address_of(listener) == f"127.0.0.1:{listener.getsockname()[1]}"
        if has_ipv6():
            with listen("::1", 0) as listener:
                assert address_of(listener) == f"[::1]:{listener.getsockname()[1]}"

    @pytest.mark.parametrize("tls", [False, True])
    def test_the_page_has_an_address_for_other_machines(self, tls: bool) -> None:
        scheme = "https" if tls else "http"
        with listen("127.0.0.1", 0) as listener:
            port = listener.getsockname()[1]
            assert page_url(listener, tls=tls) == f"{scheme}://127.0.0.1:{port}/"
        with listen("", 0) as listener:
            url = urlsplit(page_url(listener, tls=tls))
            assert (url.scheme, url.port) == (scheme, listener.getsockname()[1])
            assert url.hostname not in ("", "0.0.0.0", "::", None)

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
        async with serving() as served:
            assert "server" not in (await served.get()).headers

    async def test_signals_are_left_to_the_app(self) -> None:
        before = signal.getsignal(signal.SIGTERM)
        async with serving():
            assert signal.getsignal(signal.SIGTERM) is before

    @pytest.mark.parametrize(
        "request_text",
        [
            b"GET / HTTP/1.1\r\n\r\n",
            b"nonsense\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        ],
    )
    async def test_nonsense_is_refused_and_is_no_error(
        self, request_text: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with serving() as served, served.connected() as client:
            client.send(request_text)
            assert await client.status() == 400
            assert (await client.rest()).count(b"HTTP/1.1") == 0
        assert [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR] == []

    async def test_a_client_that_sends_no_more_gets_its_response(self) -> None:
        """As `nc` does at the end of its input."""
        async with serving() as served, served.connected() as client:
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            client.writer.write_eof()
            assert await client.status() == 200
            assert (await client.rest()).endswith(b"hello")

    async def test_it_stops_with_connections_open(self) -> None:
        async with serving() as served, served.connected() as idle, served.connected() as silent:
            idle.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert await idle.status() == 200
            served.server.should_exit = True
            assert (await idle.rest()).endswith(b"hello")
            assert await silent.rest() == b""

    async def test_a_response_that_is_not_read_as_it_stops_is_no_error(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def in_pieces(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(16):
                piece = b"x" * (LARGE // 16)
                await send({"type": "http.response.body", "body": piece, "more_body": True})

        async with serving(app=in_pieces, stop=0) as served, served.connected() as client:
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert await client.status() == 200
            served.server.should_exit = True
            await until(lambda: not served.server._open)
            await until(lambda: not served.server.server_state.tasks)
        assert [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR] == []

    async def test_a_connection_taken_as_it_stops_is_closed(self) -> None:
        server = Server(HELLO)
        with listen("127.0.0.1", 0) as listener, socket.socket() as client:
            client.connect(listener.getsockname())
            accepting = asyncio.create_task(server.accept(listener))
            await asyncio.sleep(0)  # it has been accepted, and isn't served yet
            assert len(server._open) == 1
            accepting.cancel()
            await server.close_connections()
            client.settimeout(DEADLINE)
            assert client.recv(1) == b""
