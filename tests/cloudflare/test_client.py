"""Requests: what is sent, what is reported of a failure, and that nothing else ever comes out."""

import asyncio
import email.utils
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from exporter.clock import Clock
from exporter.cloudflare.budget import Budget
from exporter.cloudflare.client import OnRequest
from exporter.cloudflare.connections import http_client
from exporter.cloudflare.credentials import Credential
from exporter.cloudflare.errors import FAILURE_REASONS, RequestFailed
from exporter.cloudflare.response_headers import retry_after
from exporter.cloudflare.workflows_client import WorkflowsClient
from exporter.metrics import catalogue
from simulator import (
    Drip,
    Drop,
    Hang,
    Script,
    Simulator,
    Truncate,
    redirect,
    serve,
    steps,
)
from simulator.api import PREFIX
from tests.ports import reserved_port
from tests.relay import relay
from tests.waiting import until

from .conftest import BASE, api, client_of, unlimited

CREDENTIALS = ("authorization", "x-auth-email", "x-auth-key")


async def failure(response: object, **options: Any) -> RequestFailed:
    async with client_of(response, **options) as client:
        with pytest.raises(RequestFailed) as caught:
            await client.instance("orders", "order-1")
    return caught.value


class CutShort(httpx.AsyncByteStream):
    """A body whose connection is lost."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"{"
        raise httpx.RemoteProtocolError("incomplete chunked read")


def refusal(status: int, *messages: str, **headers: str) -> httpx.Response:
    errors = [{"code": 1000 + n, "message": message} for n, message in enumerate(messages)]
    body = {"success": False, "errors": errors, "messages": [], "result": None}
    return httpx.Response(status, json=body, headers=headers)


class TestRequests:
    async def requested(self, ok: httpx.Response, *names: str, base: str = BASE) -> list[str]:
        urls = []

        def response(request: httpx.Request) -> httpx.Response:
            urls.append(f"{request.method} {request.url}")
            return ok

        async with client_of(response, base=base) as client:
            await client.instance(*names)
            await client.instance_detail(*names)
        return urls

    async def test_a_simple_and_a_detail_request(self, ok: httpx.Response) -> None:
        url = f"GET {BASE}/workflows/orders/instances/order-1"
        assert await self.requested(ok, "orders", "order-1") == [
            f"{url}?simple=true",
            f"{url}?simple=false&order=asc",
        ]

    async def test_names_are_quoted(self, ok: httpx.Response) -> None:
        """So that no name reaches another path."""
        simple, _ = await self.requested(ok, "a/../b", "c?d#e% f")
        path = "/workflows/a%2F..%2Fb/instances/c%3Fd%23e%25%20f?simple=true"
        assert simple == f"GET {BASE}{path}"

    @pytest.mark.parametrize(
        ("instance_id", "quoted"),
        [
            ("*/30 * * * *-17", "%2A%2F30%20%2A%20%2A%20%2A%20%2A-17"),
            ("a%2Fb,+", "a%252Fb%2C%2B"),
            ("größe", "gr%C3%B6%C3%9Fe"),
            (".", "%2E"),
            ("..", "%2E%2E"),
        ],
    )
    async def test_ids_are_quoted(self, ok: httpx.Response, instance_id: str, quoted: str) -> None:
        simple, _ = await self.requested(ok, "w", instance_id)
        assert simple == f"GET {BASE}/workflows/w/instances/{quoted}?simple=true"

    async def test_a_slash_at_the_end_of_the_base_is_no_matter(self, ok: httpx.Response) -> None:
        simple, _ = await self.requested(ok, "w", "i", base="http://127.0.0.1:8787/api/")
        assert simple == "GET http://127.0.0.1:8787/api/workflows/w/instances/i?simple=true"

    async def test_the_exporter_says_who_it_is(self) -> None:
        def response(request: httpx.Request) -> httpx.Response:
            assert request.headers["user-agent"].startswith("cloudflare-workflows-exporter/")
            assert request.headers["accept"] == "application/json"
            return refusal(404)

        await failure(response)

    async def test_cookies_are_not_sent_back(self) -> None:
        """Accounts share the client, and one's session is not another's."""
        requests: list[httpx.Request] = []

        def response(request: httpx.Request) -> httpx.Response:
            requests.append(request)
            result = {"success": True, "result": {}}
            return httpx.Response(200, headers={"Set-Cookie": "session=1"}, json=result)

        async with client_of(response) as client:
            for _ in range(2):
                await client.instance("orders", "order-1")
        assert [request.headers.get("cookie") for request in requests] == [None, None]


class TestCredentials:
    @pytest.mark.parametrize(
        ("credential", "headers"),
        [
            (Credential(SecretStr("t")), {"authorization": "Bearer t"}),
            (
                Credential(SecretStr("k"), email="a@example.com"),
                {"x-auth-email": "a@example.com", "x-auth-key": "k"},
            ),
            (Credential(), {}),
        ],
        ids=["token", "e-mail and key", "none"],
    )
    async def test_headers(
        self, credential: Credential, headers: dict[str, str], ok: httpx.Response
    ) -> None:
        def response(request: httpx.Request) -> httpx.Response:
            assert {k: v for k, v in request.headers.items() if k in CREDENTIALS} == headers
            return ok

        async with client_of(response, credential=credential) as client:
            await client.instance("orders", "order-1")

    async def test_a_refusal_says_that_a_file_with_a_new_one_cannot_be_used(
        self, tmp_path: Path
    ) -> None:
        file = tmp_path / "token"
        file.write_text("first")
        credential = Credential(file)
        file.write_text('"second"')
        said = [str(await failure(refusal(status), credential=credential)) for status in (401, 500)]
        assert said == [
            f"HTTP 401: the last secret read is still in use, since {file} holds characters that "
            "no API token or key has, such as quotes or spaces",
            "HTTP 500",
        ]
        file.unlink()
        gone = await failure(refusal(403, "no"), credential=credential)
        assert str(gone).endswith(f"in use, since {file}: No such file or directory")
        file.write_text("third")
        assert str(await failure(refusal(401, "no"), credential=credential)) == (
            "HTTP 401: no (code 1000)"
        )

    async def test_they_never_go_along_a_redirect(self) -> None:
        """Over real sockets: the other host gets no request at all."""
        there, here = Simulator(), Simulator()
        async with serve(there), serve(here):
            here.faults.add(redirect(there.url))
            failed = await failure_over_a_socket(here)
        assert (failed.reason, failed.advice) == (
            "invalid_answer",
            "check api.url: the API itself never redirects",
        )
        assert there.requests.total == 0

    async def test_a_secret_that_comes_back_is_not_repeated(self) -> None:
        failed = await failure(refusal(400, "bad token hidden given"))
        assert str(failed) == "HTTP 400: bad token *** given (code 1000)"


def ignore(*_: object) -> None:
    """Takes note of no request."""


def client_over_a_socket(
    simulator: Simulator,
    http: httpx.AsyncClient,
    *,
    limit: float = 5,
    on_request: OnRequest = ignore,
) -> WorkflowsClient:
    return WorkflowsClient(
        http,
        api(f"{simulator.url}/accounts/{{account_id}}", limit),
        "acc",
        Credential(SecretStr("secret")),
        budget=unlimited(),
        on_request=on_request,
    )


async def failure_over_a_socket(
    simulator: Simulator, limit: float = 60, on_request: OnRequest = ignore
) -> RequestFailed:
    async with http_client(api(timeout=limit)) as http:
        client = client_over_a_socket(simulator, http, limit=limit, on_request=on_request)
        with pytest.raises(RequestFailed) as caught:
            await client.instance("orders", "order-1")
    return caught.value


class TestStatuses:
    @pytest.mark.parametrize(
        ("status", "expected"),
        [
            (400, "http_4xx"),
            (401, "unauthorized"),
            (403, "unauthorized"),
            (404, "http_4xx"),
            (405, "http_4xx"),
            (429, "rate_limited"),
            (500, "http_5xx"),
            (502, "http_5xx"),
            (530, "http_5xx"),
            (301, "invalid_answer"),
            (304, "invalid_answer"),
        ],
    )
    async def test_each_has_its_class(self, status: int, expected: str) -> None:
        failed = await failure(refusal(status, "no"))
        assert (failed.reason, str(failed)) == (expected, f"HTTP {status}: no (code 1000)")

    @pytest.mark.parametrize(
        ("code", "message", "expected"),
        [
            (10400, "instance.not_found", "not_found"),
            (10501, "Workflow instance 'a' not found.", "not_found"),
            (10501, f"Workflow instance '{'i' * 271}' not found.", "not_found"),
            (10501, "Workflow instance '(code 10200)' not found.", "not_found"),
            (10200, "workflow.not_found", "workflow_not_found"),
            (10501, "Workflow 'orders' not found.", "workflow_not_found"),
            (7003, "Could not route to /workflows", "http_4xx"),
            (7003, "Could not route to /instances/(code 10400)", "http_4xx"),
            (10001, "not found", "http_4xx"),
        ],
    )
    async def test_a_404_is_of_what_the_api_says(
        self, code: int, message: str, expected: str
    ) -> None:
        body = {"success": False, "errors": [{"code": code, "message": message}], "result": None}
        assert (await failure(httpx.Response(404, json=body))).reason == expected

    async def test_403_says_which_permission_is_missing(self) -> None:
        assert "Workers Tail Read" in (await failure(refusal(403))).advice

    async def test_every_refusal_of_a_request_says_what_to_do(self) -> None:
        for status in (301, 400, 401, 403, 404, 429):
            assert (await failure(refusal(status))).advice

    async def test_the_code_of_each_request_is_reported(self, ok: httpx.Response) -> None:
        reported: list[tuple[str, str]] = []
        await failure(refusal(503), codes=reported)
        async with client_of(ok, codes=reported) as client:
            await client.instance_detail("orders", "order-1")
        assert reported == [("instance", "503"), ("instance", "200")]


class TestMessages:
    async def test_up_to_three_are_shown(self) -> None:
        failed = await failure(refusal(400, "a", "b", "c", "d"))
        assert str(failed) == "HTTP 400: a (code 1000); b (code 1001); c (code 1002)"

    async def test_they_are_short_and_on_one_line(self) -> None:
        text = str(await failure(refusal(400, "a\n\tb\r\n" + "c" * 1000)))
        assert text.startswith("HTTP 400: a b ccc")
        assert len(text) == len("HTTP 400: ") + 200

    @pytest.mark.parametrize("errors", [[], None])
    async def test_none_at_all(self, errors: object) -> None:
        response = httpx.Response(500, json={"success": False, "errors": errors})
        assert str(await failure(response)) == "HTTP 500"

    async def test_a_page_of_a_proxy_is_only_described(self) -> None:
        response = httpx.Response(502, html="<h1>Bad gateway</h1>")
        assert str(await failure(response)) == (
            "HTTP 502: not from the API, but text/html of 20 bytes"
        )

    async def test_a_failure_with_status_200(self) -> None:
        failed = await failure(refusal(200, "busy"))
        assert (failed.reason, str(failed)) == (
            "invalid_answer",
            "the API reports a failure: busy (code 1000)",
        )

    @pytest.mark.parametrize(
        ("code", "reason"), [(10400, "not_found"), (10200, "workflow_not_found")]
    )
    async def test_one_that_says_that_something_does_not_exist(
        self, code: int, reason: str
    ) -> None:
        body = {"success": False, "errors": [{"code": code, "message": "no"}], "result": None}
        assert (await failure(httpx.Response(200, json=body))).reason == reason

    async def test_success_without_a_result(self) -> None:
        failed = await failure(httpx.Response(200, json={"success": True, "result": None}))
        assert str(failed) == "the API reports a failure: no result"


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            ("7", 7),
            ("0", 0),
            ("99999999999999", 3600),
            ("Fri, 31 Dec 1999 23:59:59 GMT", 0),
            ("soon", None),
            ("-1", None),
            ("1.5", None),
            ("", None),
            ("٣", None),
        ],
    )
    def test_numbers_dates_and_rubbish(self, value: str, seconds: float | None) -> None:
        response = httpx.Response(429, headers={b"Retry-After": value.encode()})
        assert retry_after(response) == seconds

    def test_a_date_to_come(self) -> None:
        date = email.utils.formatdate(time.time() + 1000, usegmt=True)
        seconds = retry_after(refusal(429, **{"Retry-After": date}))
        assert seconds is not None
        assert 900 < seconds <= 1000

    def test_a_date_counts_from_the_response_s_own_and_an_hour_at_most(self) -> None:
        """The two clocks differ, by years here."""
        sent = "Tue, 15 Nov 1994 08:12:31 GMT"
        for end, seconds in (("08:14:31", 120), ("23:59:59", 3600), ("08:00:00", 0)):
            headers = {"Date": sent, "Retry-After": f"Tue, 15 Nov 1994 {end} GMT"}
            assert retry_after(refusal(429, **headers)) == seconds

    @pytest.mark.parametrize("zone", ["JST-9", "EST5"])
    @pytest.mark.parametrize(
        "date",
        [
            "Tue, 15 Nov 1994 08:14:31 GMT",
            "Tuesday, 15-Nov-94 08:14:31 GMT",
            "Tue Nov 15 08:14:31 1994",
        ],
    )
    def test_a_date_of_any_form_is_in_utc(
        self, zone: str, date: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever the machine's time zone; RFC 9110 has the three forms."""
        headers = {"Date": "Tue, 15 Nov 1994 08:12:31 GMT", "Retry-After": date}
        with monkeypatch.context() as patch:
            patch.setenv("TZ", zone)
            time.tzset()
            seconds = retry_after(refusal(429, **headers))
        time.tzset()
        assert seconds == 120

    def test_missing(self) -> None:
        assert retry_after(refusal(429)) is None

    @given(value=st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=40))
    def test_whatever_it_says(self, value: str) -> None:
        seconds = retry_after(httpx.Response(429, headers={"Retry-After": value}))
        assert seconds is None or seconds >= 0


class TestConnections:
    """Over real sockets."""

    @pytest.mark.parametrize(
        ("action", "expected"),
        [
            (Drop(), "connection"),
            (Drop(0.5), "connection"),
            (Drop(0.5, reset=True), "connection"),
            (Truncate(keep=0.5), "invalid_answer"),
            (Truncate(keep=0), "invalid_answer"),
        ],
        ids=["no response", "ends in mid-body", "reset in mid-body", "half a body", "no body"],
    )
    async def test_broken_responses(self, action: Any, expected: str) -> None:
        async with serve(self.simulator()) as simulator:
            simulator.faults.add(action)
            assert (await failure_over_a_socket(simulator)).reason == expected

    @pytest.mark.parametrize("action", [Hang(), Drip(1, 0.05)], ids=["silence", "a byte at a time"])
    async def test_a_request_has_one_limit_of_time(self, action: Any) -> None:
        """From connecting to the last byte, however the time goes by."""
        async with serve(self.simulator()) as simulator:
            simulator.faults.add(action)
            failed = await failure_over_a_socket(simulator, limit=0.3)
        assert (failed.reason, str(failed)) == ("timeout", "no complete response within 0.3 s")

    async def test_one_lost_on_a_reused_connection_is_repeated_once(self) -> None:
        """The server closes it as the request arrives: on a fresh one that is a failure."""
        async with serve(self.simulator()) as simulator, http_client(api(timeout=60)) as http:
            codes: list[str] = []
            client = client_over_a_socket(
                simulator, http, on_request=lambda _, code, __: codes.append(code)
            )
            await client.instance("orders", "order-1")
            simulator.faults.add(Drop(), times=1)
            await client.instance("orders", "order-1")
            assert codes == ["200", "connection", "200"]
            assert simulator.requests.total == 3
            simulator.faults.add(Drop(), times=2)
            with pytest.raises(RequestFailed) as caught:
                await client.instance("orders", "order-1")
            assert caught.value.reason == "connection"
            await client.instance("orders", "order-1")
            simulator.faults.add(Drop(0.5), times=1)
            with pytest.raises(RequestFailed, match="without sending complete message body"):
                await client.instance("orders", "order-1")

    async def test_one_lost_while_all_reused_connections_are_closed(self) -> None:
        """The server closes each as a request arrives: the repeats end at a fresh one."""
        async with serve(self.simulator()) as simulator, http_client(api(timeout=60)) as http:
            codes: list[str] = []
            client = client_over_a_socket(
                simulator, http, on_request=lambda _, code, __: codes.append(code)
            )
            hang = simulator.faults.add(Hang(), times=3)
            async with asyncio.TaskGroup() as group:
                for _ in range(3):
                    group.create_task(client.instance("orders", "order-1"))
                await until(lambda: simulator.requests.most_in_flight == 3)
                simulator.faults.remove(hang)
                simulator.faults.release()
            simulator.faults.add(Drop(), times=3)
            await client.instance("orders", "order-1")
        assert codes == ["200"] * 3 + ["connection"] * 3 + ["200"]

    async def test_one_gets_a_connection_however_many_others_wait_for_their_responses(self) -> None:
        """Those of list pages and of other accounts, while the polls of one take long. All of these
        connections are used again."""
        async with (
            serve(self.simulator()) as simulator,
            relay() as relayed,
            http_client(api(timeout=60)) as http,
        ):
            relayed.port = urlsplit(simulator.url).port or 0
            simulator.url = f"http://{relayed.address}{PREFIX}"
            client = client_over_a_socket(simulator, http)
            for _ in range(2):
                hang = simulator.faults.add(Hang(), kind="detail")
                async with asyncio.TaskGroup() as group:
                    for _ in range(12):
                        group.create_task(client.instance_detail("orders", "order-1"))
                    await until(lambda: simulator.requests.in_flight.total() == 12)
                    await client.instance("orders", "order-1")
                    simulator.faults.remove(hang)
                    simulator.faults.release()
            assert relayed.connections == 13

    async def test_nobody_listens(self) -> None:
        simulator = self.simulator()
        with reserved_port() as port:
            simulator.url = f"http://127.0.0.1:{port}"
            failed = await failure_over_a_socket(simulator)
        expected = f"127.0.0.1:{port}: Connection refused"
        assert (failed.reason, str(failed)) == ("connection", expected)

    async def test_a_name_that_is_not_known(self) -> None:
        simulator = self.simulator()
        simulator.url = "http://nowhere.invalid/client/v4"
        codes: list[str] = []
        failed = await failure_over_a_socket(
            simulator, on_request=lambda _, code, __: codes.append(code)
        )
        assert (failed.reason, codes) == ("dns", ["dns"])
        assert f" {codes[0]}," in catalogue.API_REQUESTS.help
        assert str(failed).startswith("nowhere.invalid: ")

    async def test_a_request_that_is_given_up_is_reported_too(self) -> None:
        reported: list[tuple[str, str]] = []
        begun = asyncio.Event()

        async def response(_: httpx.Request) -> httpx.Response:
            begun.set()
            await asyncio.Event().wait()
            raise AssertionError

        async with client_of(response, codes=reported) as client:
            request = asyncio.create_task(client.instance("orders", "order-1"))
            await begun.wait()
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request
        assert reported == [("instance", "cancelled")]

    async def test_a_body_in_a_wrong_coding(self) -> None:
        def response(_: httpx.Request) -> httpx.Response:
            stream = httpx.ByteStream(b"no gzip")
            return httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=stream)

        reported: list[tuple[str, str]] = []
        assert (await failure(response, codes=reported)).reason == "invalid_answer"
        assert reported == [("instance", "invalid")]

    @pytest.mark.parametrize(
        ("coding", "stream"),
        [
            ("gzip", httpx.ByteStream(b"no gzip")),
            ("br", httpx.ByteStream(b"compressed otherwise")),
            ("", CutShort()),
        ],
        ids=["wrong gzip", "another coding", "cut short"],
    )
    async def test_a_429_stops_requests_though_its_body_cannot_be_read(
        self, coding: str, stream: Any
    ) -> None:
        headers = {"Content-Encoding": coding, "Retry-After": "30"}
        reported: list[tuple[str, str]] = []
        budget = Budget(600, clock=Clock(monotonic=lambda: 0.0))
        async with client_of(
            lambda _: httpx.Response(429, headers=headers, stream=stream), codes=reported
        ) as client:
            with pytest.raises(RequestFailed, match="HTTP 429: not from the API") as caught:
                await replace(client, budget=budget).instance("orders", "order-1")
        assert (caught.value.reason, reported) == ("rate_limited", [("instance", "429")])
        assert budget.blocked == 30

    @staticmethod
    def simulator() -> Simulator:
        simulator = Simulator()
        simulator.access.token("secret")
        simulator.world.account("acc").workflow("orders").create("order-1", Script(steps("a")))
        return simulator


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
STEP_KEYS = ("name", "message", "success", "type", "step_count", "finished", "attempts")
KEYS = ("queued", "start", "end", "status", "steps", "error", "trigger", "source", "versionId")
keys = st.sampled_from([*KEYS, *STEP_KEYS])
moments = st.datetimes().map(lambda moment: moment.isoformat() + "Z")
results = st.dictionaries(
    keys, any_json | moments | st.lists(st.dictionaries(keys, any_json | moments), max_size=3)
)


class TestWhateverComes:
    """Only `RequestFailed` ever comes out, of a known class, with a short message of one line."""

    async def fails(self, status: int, body: bytes, kind: str = "application/json") -> None:
        response = httpx.Response(status, content=body, headers={"Content-Type": kind})
        async with client_of(response) as client:
            for request in (client.instance, client.instance_detail):
                failed = None
                try:
                    await request("orders", "order-1")
                except RequestFailed as error:
                    failed = error
                if failed is not None:
                    assert failed.reason in FAILURE_REASONS
                    assert len(str(failed)) < 250
                    assert "\n" not in str(failed)

    @given(status=st.sampled_from([200, 204, 403, 404, 429, 500]), body=st.binary())
    async def test_bytes(self, status: int, body: bytes) -> None:
        await self.fails(status, body)

    @pytest.mark.slow
    @given(status=st.sampled_from([200, 400, 503]), body=any_json)
    async def test_json(self, status: int, body: object) -> None:
        await self.fails(status, json.dumps(body).encode())

    @pytest.mark.slow
    @settings(max_examples=200)
    @given(
        status=st.sampled_from([200, 404]),
        result=results,
        errors=any_json | st.lists(st.dictionaries(st.sampled_from(["code", "message"]), any_json)),
        success=any_json,
    )
    async def test_envelopes(
        self, status: int, result: object, errors: object, success: object
    ) -> None:
        body = {"result": result, "errors": errors, "success": success}
        await self.fails(status, json.dumps(body).encode())

    @pytest.mark.parametrize("status", [200, 500])
    @pytest.mark.parametrize(
        "opening", [b"[", b'{"result":', b'{"result":{"steps":[', b'{"errors":[']
    )
    async def test_nesting(self, status: int, opening: bytes) -> None:
        await self.fails(status, opening * 50_000)

    @pytest.mark.slow
    @given(kind=st.text(st.characters(codec="latin-1", exclude_categories=["Cc"])))
    async def test_content_types(self, kind: str) -> None:
        response = httpx.Response(
            200, content=b"?", headers={b"Content-Type": kind.encode("latin-1")}
        )
        assert (await failure(response)).reason == "invalid_answer"
