"""Whatever comes over a socket: the server responds in HTTP or hangs up, and serves on."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter.web.web_config_reload import WebConfigReloader
from tests.waiting import DEADLINE, wait_until
from tests.web.certificates import Authority
from tests.web.conftest import hashed
from tests.web.serving import serving

VALID = b"GET /large HTTP/1.1\r\nHost: x\r\nAuthorization: Basic eDp5\r\n\r\n"
PIECES = [
    b"GET ",
    b"POST ",
    b"HEAD ",
    b"\x00 ",
    b"/",
    b"/large",
    b"/%00%ff",
    b"*",
    b"http://x/",
    b" HTTP/1.1",
    b" HTTP/1.0",
    b" HTTP/9.9",
    b"\r\n",
    b"\n",
    b"\r\n\r\n",
    b"Host: x\r\n",
    b"Host: y\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: -1\r\n",
    b"Content-Length: 99999999999999999999\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip\r\n",
    b"Expect: 100-continue\r\n",
    b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
    b"Connection: close\r\n",
    b"Authorization: Basic YWxpY2U6\r\n",
    b"Authorization: Basic \xff\r\n",
    b"A: " + b"b" * 40_000 + b"\r\n",
    b"A: b\r\n" * 200,
    b" folded\r\n",
    b"ffffffff\r\n",
    b"0\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    VALID,
]


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    """A request with some of its bytes left out, put in or changed."""
    raw = bytearray(VALID)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(raw)))
        raw[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(raw)


chunks = st.lists(
    st.one_of(st.binary(max_size=200), mangled(), st.sampled_from(PIECES)), max_size=12
)


class Target:
    """A server in a thread of its own."""

    def __init__(self, protecting: WebConfigReloader) -> None:
        self._protecting = protecting
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._up = threading.Event()
        self.port = 0
        self.errors: list[dict[str, object]] = []

    @contextlib.contextmanager
    def running(self) -> Iterator["Target"]:
        self._loop.set_exception_handler(lambda _, context: self.errors.append(context))
        thread = threading.Thread(target=self._loop.run_until_complete, args=[self._serve()])
        thread.start()
        assert self._up.wait(DEADLINE)
        yield self
        self._loop.call_soon_threadsafe(self._stop.set)
        thread.join(DEADLINE)
        assert not thread.is_alive()
        self._loop.close()

    async def _serve(self) -> None:
        times: dict[str, Any] = {"request": 0.2, "response": 0.5, "idle": 0.2}
        async with serving(self._protecting, connections=20, **times) as served:
            self.port = served.port
            self._up.set()
            await self._stop.wait()

    def exchange(self, sent: list[bytes], *, half_closed: bool = False) -> bytes:
        """What comes back until the server hangs up, which it does."""
        received = b""
        with socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE) as client:
            try:
                for chunk in sent:
                    client.sendall(chunk)
                if half_closed:
                    client.shutdown(socket.SHUT_WR)
                while data := client.recv(1 << 20):
                    received += data[: max(0, 1024 - len(received))]
            except TimeoutError:
                raise
            except OSError:
                pass  # it has hung up
        return received


def protecting(folder: Path, **said: object) -> WebConfigReloader:
    file = folder / "web.yaml"
    file.write_text(yaml.safe_dump(said))
    return WebConfigReloader(file)


@pytest.fixture(scope="module")
def plain() -> Iterator[Target]:
    with Target(WebConfigReloader()).running() as target:
        yield target


@pytest.fixture(scope="module")
def behind_passwords(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    users = protecting(tmp_path_factory.mktemp("users"), basic_auth_users={"alice": hashed("x")})
    with Target(users).running() as target:
        yield target


@pytest.fixture(scope="module")
def behind_tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = Authority(folder).sign("server")
    pair = {"cert_file": str(certificate), "key_file": str(key)}
    with Target(protecting(folder, tls_server_config=pair)).running() as target:
        yield target


fuzz = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.slow(10)
@given(sent=chunks, half_closed=st.booleans())
@fuzz
def test_garbage_gets_an_http_response_or_a_closed_connection(
    plain: Target, sent: list[bytes], half_closed: bool
) -> None:
    received = plain.exchange(sent, half_closed=half_closed)
    assert received == b"" or received.startswith(b"HTTP/1.1 ")
    # On a busy machine even this request may not arrive in time.
    wait_until(lambda: plain.exchange([VALID]).startswith(b"HTTP/1.1 200 "), lambda: "it doesn't")
    assert plain.errors == []


@pytest.mark.slow(10)
@given(sent=chunks)
@fuzz
def test_no_garbage_gets_past_a_password(behind_passwords: Target, sent: list[bytes]) -> None:
    received = behind_passwords.exchange(sent)
    status = received.partition(b" ")[2][:3]
    assert status in (b"", b"400", b"401", b"413", b"414", b"431", b"503"), received
    assert b"HTTP/1.1 200" not in received
    assert behind_passwords.errors == []


@given(sent=chunks, half_closed=st.booleans())
@fuzz
def test_garbage_is_no_tls(behind_tls: Target, sent: list[bytes], half_closed: bool) -> None:
    received = behind_tls.exchange(sent, half_closed=half_closed)
    # At most an alert, or the start of a handshake that leads nowhere.
    assert received == b"" or received[0] in (0x15, 0x16)
    assert b"HTTP" not in received
    assert behind_tls.errors == []
