"""Bodies of every bad kind, over real sockets: each ends soon, and none is held."""

import asyncio
import gzip
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from benchmarks import virtual_time
from exporter.cloudflare.connections import http_client
from exporter.cloudflare.credentials import Credential
from exporter.cloudflare.errors import RequestFailed
from exporter.cloudflare.workflows_client import WorkflowsClient
from simulator import (
    Drip,
    EndlessHeaders,
    Inflate,
    ManualClock,
    Rewrite,
    Script,
    Simulator,
    Stream,
    World,
    serve,
    steps,
)
from simulator.response import Response

from .conftest import api, client_of, unlimited

MIB = 1 << 20
OPENING = b'{"success":true,"result":{"queued":"2026-11-24T17:06:11Z","output":'
PAST_THE_LIMIT = {"max_body": 8 * MIB}
TOO_LONG = f"longer than api.max_body, {8 * MIB} bytes"


@asynccontextmanager
async def upstream(action: Any, **options: Any) -> AsyncIterator[tuple[WorkflowsClient, list[str]]]:
    """A client of an upstream where the action is taken, and the codes of its requests."""
    clock, codes = ManualClock(), list[str]()
    simulator = Simulator(World(clock))
    simulator.access.token("secret")
    script = Script(steps(*(f"step {n}" for n in range(100))))
    simulator.world.account("acc").workflow("orders").create("order-1", script)
    clock.advance(1000)
    simulator.faults.add(action)
    async with serve(simulator):
        url = f"{simulator.url}/accounts/{{account_id}}"
        settings = api(url, options.get("limit", 60), options.get("max_body", 256 * MIB))
        async with http_client(settings) as http:
            client = WorkflowsClient(
                http,
                settings,
                "acc",
                Credential(SecretStr("secret")),
                budget=unlimited(),
                on_request=lambda _, code, __: codes.append(code),
            )
            yield client, codes


async def failure(action: Any, **options: Any) -> tuple[RequestFailed, list[str]]:
    async with upstream(action, **options) as (client, codes):
        with pytest.raises(RequestFailed) as caught:
            await client.instance_detail("orders", "order-1")
        return caught.value, codes


def endless(piece: bytes, before: bytes = b"") -> Iterator[bytes]:
    yield OPENING + before
    while True:
        yield piece


def bomb() -> Iterator[bytes]:
    """As much as 128 MiB in 128 KiB."""
    compress = zlib.compressobj(9, wbits=31)
    yield compress.compress(OPENING + b'"')
    for _ in range(128):
        yield compress.compress(b"x" * MIB)
    yield compress.flush()


def hollow() -> Iterator[bytes]:
    """Blocks that hold nothing, without end."""
    compress = zlib.compressobj(wbits=31)
    yield compress.compress(OPENING) + compress.flush(zlib.Z_FULL_FLUSH)
    while True:
        yield b"\x00\x00\x00\xff\xff" * 10_000


def compressed(reply: Response) -> Response:
    headers = reply.headers | {"content-encoding": "gzip"}
    return Response(reply.status, gzip.compress(reply.body), headers)


class TestLargeAnswers:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        "value",
        [b'"' + b"x" * 1021 + b'"', b'{"id":12345,"tags":["a\\"","b"],"price":{"amount":"1.50"}}'],
        ids=["text", "objects"],
    )
    async def test_steps_are_read_and_outputs_are_not_held(self, value: bytes) -> None:
        """Of 64 MiB, less than 1 MiB a step: most of the memory is what may stay unfiltered."""
        action = Inflate(value, 64 * MIB // 100 // (len(value) + 1))
        async with upstream(action) as (client, _):
            tracemalloc.start()
            try:
                detail, size = await client.instance_detail("orders", "order-1")
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
        assert size > 60 * MIB
        assert peak < 24 * MIB
        assert [step.name for step in detail.steps or ()] == [f"step {n}-1" for n in range(100)]
        assert all(step.outcome == "success" for step in detail.steps or ())

    async def test_a_simple_response_that_holds_steps_all_the_same(self) -> None:
        """As the local engine's does."""
        big = Stream(lambda: [OPENING, *[b'["' + b"x" * MIB + b'",'] * 9, b"1" + b"]" * 9, b"}}"])
        async with upstream(big) as (client, _):
            assert (await client.instance("orders", "order-1")).status is None

    async def test_compressed(self) -> None:
        async with upstream(Rewrite(compressed)) as (client, _):
            detail, size = await client.instance_detail("orders", "order-1")
        assert len(detail.steps or ()) == 100
        assert size > 20_000

    def test_each_mebibyte_gives_a_second_more(self) -> None:
        """A large response may take longer than `api.timeout`, as long as it keeps coming."""

        class Slow(httpx.AsyncByteStream):
            async def __aiter__(self) -> AsyncIterator[bytes]:
                yield OPENING + b'"'
                for _ in range(4):
                    yield b"x" * (MIB + 1)
                    await asyncio.sleep(0.9)
                yield b'"}}'

        async def main() -> int:
            async with client_of(lambda _: httpx.Response(200, stream=Slow()), limit=1) as client:
                _, size = await client.instance_detail("orders", "order-1")
                return size

        assert virtual_time.run(main()) > 4 * MIB


class TestBadAnswers:
    """Each is an invalid response, in the metrics too, and says what is wrong with it."""

    @pytest.mark.parametrize(
        ("pieces", "said"),
        [
            (lambda: endless(b"[" * 100_000), "nested more than 10000 deep"),
            (lambda: endless(b'{"a":' * 100_000), "nested more than 10000 deep"),
            (
                lambda: endless(b'"' + b"x" * MIB + b'",', b"["),
                TOO_LONG,
            ),
            (lambda: endless(b" " * MIB, b"["), TOO_LONG),
            (lambda: endless(b"x" * MIB, b'"'), TOO_LONG),
            (lambda: endless(b"x" * MIB, b'1,"x'), TOO_LONG),
        ],
        ids=["lists in lists", "objects in objects", "strings", "spaces", "a string", "a name"],
    )
    async def test_bodies_without_end(self, pieces: Any, said: str) -> None:
        failed, codes = await failure(Stream(pieces), **PAST_THE_LIMIT)
        assert (failed.reason, str(failed)) == ("invalid_answer", f"unreadable body: {said}")
        assert codes == ["invalid"]
        assert failed.size > 4 * MIB

    async def test_more_steps_than_fit(self) -> None:
        steps = b'{"name":"%s"},' % (b"x" * 10_000) * 10
        failed, _ = await failure(Stream(lambda: endless(steps, b'1,"steps":[')))
        said = f"more than {32 * MIB} bytes without outputs and params"
        assert (failed.reason, str(failed)) == ("invalid_answer", f"unreadable body: {said}")

    @pytest.mark.parametrize("size", [1, 5])
    async def test_more_objects_than_can_be_held(self, size: int) -> None:
        """They take far more memory than bytes of the body."""
        end = [b"1,", b'"steps":[', b"{}," * (size * MIB // 3), b"{}]}}"]
        failed, _ = await failure(Stream(lambda: [OPENING, *end]))
        assert failed.reason == "invalid_answer"
        assert str(failed).endswith("too many steps and attempts")

    async def test_as_many_objects_in_outputs_are_none_of_them(self) -> None:
        async with upstream(Inflate(b"{}", 10_000)) as (client, _):
            detail, size = await client.instance_detail("orders", "order-1")
        assert (len(detail.steps or ()), size < 4 * MIB) == (100, True)

    @pytest.mark.parametrize("opening", [b"[", b'{"result":', b'{"result":{"steps":['])
    async def test_what_is_read_is_nested_100_000_deep(self, opening: bytes) -> None:
        failed, _ = await failure(Stream(lambda: [opening * 100_000, b" " * 5 * MIB]))
        assert failed.reason == "invalid_answer"

    @pytest.mark.slow
    async def test_a_bomb(self) -> None:
        """It counts as what it is decompressed, and that a little at a time."""
        action = Stream(bomb, {"content-encoding": "gzip"})
        tracemalloc.start()
        try:
            failed, _ = await failure(action, max_body=32 * MIB)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert str(failed) == f"unreadable body: longer than api.max_body, {32 * MIB} bytes"
        assert failed.reason == "invalid_answer"
        assert peak < 24 * MIB

    async def test_nothing_without_end(self) -> None:
        action = Stream(hollow, {"content-encoding": "gzip"})
        failed, _ = await failure(action, **PAST_THE_LIMIT)
        assert str(failed) == f"unreadable body: {TOO_LONG}"

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda body: body + b"x" * MIB, "it continues after the end of its gzip stream"),
            (lambda body: body[:-20], "its gzip stream is cut short"),
            (lambda body: b"rubbish" + body, "not compressed as gzip"),
        ],
        ids=["longer", "cut", "rubbish"],
    )
    async def test_a_body_that_is_not_compressed_as_it_says(self, change: Any, said: str) -> None:
        def changed(reply: Response) -> Response:
            reply = compressed(reply)
            reply.body = change(reply.body)
            return reply

        failed, _ = await failure(Rewrite(changed))
        assert failed.reason == "invalid_answer"
        assert said in str(failed)

    async def test_another_coding_than_was_asked_for(self) -> None:
        failed, _ = await failure(Stream(lambda: [b"?"], {"content-encoding": "br"}))
        assert failed.reason == "invalid_answer"
        assert str(failed) == "unreadable body: its Content-Encoding is not gzip"

    async def test_headers_without_end(self) -> None:
        failed, codes = await failure(EndlessHeaders())
        assert (failed.reason, str(failed)) == ("invalid_answer", "headers too long")
        assert codes == ["invalid"]

    @pytest.mark.parametrize("end", [b'"xx', b'[{"a":"b"}', b'[{"a', b'["\\'])
    async def test_a_large_body_that_ends_in_mid_value(self, end: bytes) -> None:
        def pieces() -> Iterable[bytes]:
            return [OPENING, b'"' + b"x" * 5 * MIB + b'","output":', end]

        failed, codes = await failure(Stream(pieces))
        assert failed.reason == "invalid_answer"
        assert "can't be read" in str(failed)
        assert codes == ["200"]

    async def test_a_byte_at_a_time(self) -> None:
        failed, _ = await failure(Drip(1, 0.05), limit=0.3)
        assert (failed.reason, str(failed)) == ("timeout", "no complete response within 0.3 s")

    @pytest.mark.parametrize("status", [404, 500])
    async def test_of_a_refusal_only_the_beginning_is_read(self, status: int) -> None:
        """Here without end: what went wrong is said in a few bytes."""
        failed, codes = await failure(Stream(lambda: endless(b"x" * 10_000), status=status))
        assert str(failed).startswith(f"HTTP {status}: not from the API, but application/json of ")
        assert failed.size < MIB
        assert codes == [str(status)]
