"""Calls to Cloudflare's API: URLs, credentials, the envelope, and what failed. One call, one try:
the next round is the retry, so that nothing is spent twice on an API that is in trouble."""

import asyncio
import re
import ssl
import time
from collections.abc import AsyncIterable, Callable
from email.utils import parsedate_to_datetime
from typing import NamedTuple, TypeVar, cast
from urllib.parse import quote, urlencode, urlsplit

import httpx
import msgspec
from msgspec import UnsetType

from exporter.cloudflare.body import Body
from exporter.cloudflare.budget import Budget
from exporter.cloudflare.connections import (
    LostOnKeptConnection,
    failure_of,
    noting,
    streamed,
    was_lost,
)
from exporter.cloudflare.credentials import Credential
from exporter.cloudflare.errors import RequestFailed, from_status
from exporter.cloudflare.json_filter import Refused
from exporter.cloudflare.lenient import Reader
from exporter.cloudflare.models import (
    Account,
    Detail,
    Envelope,
    PageInfo,
    Row,
    Summary,
    Version,
    Workflow,
)
from exporter.config.settings import Api

Result = TypeVar("Result")

OnRequest = Callable[[str, str, float], None]
"""Told of each call: endpoint, HTTP status (or what came instead of one), seconds."""
OnIgnored = Callable[[str, list[str]], None]
"""Gets the endpoint and the places in its response that could not be read, if there are any."""

_MIB = 1024 * 1024
_LONGEST_REFUSAL = 64 * 1024
"""Bytes of an answer other than 2xx that are read: what went wrong is said in a few."""

_LONGEST_BLOCK = 3600.0
"""Seconds of a `Retry-After`: a longer one is a mistake of somebody's clock."""
_LONGEST_MESSAGE = 200
_RESULT = "$.result"
_ROW = re.compile(r"\$\.result\[\d+\]")
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


_ACCOUNTS = Reader(Envelope[list[Account]])
_SUMMARY = Reader(Envelope[Summary])
_DETAIL = Reader(Envelope[Detail])
_ROWS = Reader(Envelope[list[Row]])
_WORKFLOW = Reader(Envelope[Workflow])
_WORKFLOWS = Reader(Envelope[list[Workflow]])
_VERSIONS = Reader(Envelope[list[Version]])
_FAILURE = Reader(Envelope[msgspec.Raw])


class Page(NamedTuple):
    """A page of a workflow's instances."""

    rows: list[Row]
    next: dict[str, str] | None
    """The parameters that ask for the next page; None: the API names none."""
    sent: int = 0
    """Rows that the page held."""
    total: int | None = None
    """Rows that the whole list holds, as the API says."""


class Client:
    """One account's view of the API, or that of none.

    Every method raises `RequestFailed`.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        api: Api,
        account_id: str | None,
        credential: Credential,
        *,
        budget: Budget,
        on_request: OnRequest = lambda *_: None,
        on_ignored: OnIgnored = lambda *_: None,
    ) -> None:
        self._http = http
        self._budget = budget
        self._base_url = api.url.replace("{account_id}", account_id or "").rstrip("/")
        self._credential = credential
        self._timeout = api.timeout
        self._max_body = api.max_body
        self._on_request = on_request
        self._on_ignored = on_ignored

    async def instance(self, workflow: str, instance_id: str) -> Summary:
        """An instance without its steps (`simple=true`)."""
        url = self._instance_url(workflow, instance_id)
        answer, *_ = await self._get("instance", f"{url}?simple=true", _SUMMARY)
        return _result(answer)

    async def instance_detail(self, workflow: str, instance_id: str) -> tuple[Detail, int]:
        """An instance with all its steps, and the bytes that the answer took."""
        url = self._instance_url(workflow, instance_id)
        answer, size, _ = await self._get("instance", f"{url}?simple=false&order=asc", _DETAIL)
        return _result(answer), size

    async def instances(self, workflow: str, parameters: dict[str, str]) -> Page:
        """A page of a workflow's instances, newest first.

        Args:
            workflow: Its name.
            parameters: `per_page` and, as need be, `status`, `date_start`, and what the page
                before named as the next.
        """
        url = f"{self._workflow_url(workflow)}/instances?{urlencode(parameters)}"
        answer, _, ignored = await self._get("instances", url, _ROWS)
        rows = _list(answer)
        # A row that can't be read is one of those that were sent.
        sent = len(rows) + sum(_ROW.fullmatch(place) is not None for place in ignored)
        info = answer.result_info
        return Page(rows, _next(info, parameters, sent), sent, info.total_count if info else None)

    async def workflow(self, workflow: str) -> Workflow:
        """A workflow with the platform's counts of its instances."""
        answer, *_ = await self._get("workflow", self._workflow_url(workflow), _WORKFLOW)
        return _result(answer)

    async def workflows(self, page: int, per_page: int) -> list[Workflow]:
        """A page of the account's workflows."""
        query = urlencode({"page": page, "per_page": per_page})
        url = f"{self._base_url}/workflows?{query}"
        answer, *_ = await self._get("workflows", url, _WORKFLOWS)
        return _list(answer)

    async def accounts(self, per_page: int) -> list[Account]:
        """The first accounts that the credential can read, of a client whose URL names none."""
        answer, *_ = await self._get("accounts", f"{self._base_url}?per_page={per_page}", _ACCOUNTS)
        return _list(answer)

    async def versions(self, workflow: str) -> list[Version]:
        """The latest versions of a workflow."""
        url = f"{self._workflow_url(workflow)}/versions?per_page=10"
        answer, *_ = await self._get("versions", url, _VERSIONS)
        return _list(answer)

    def _workflow_url(self, workflow: str) -> str:
        return f"{self._base_url}/workflows/{quote(workflow, safe='')}"

    def _instance_url(self, workflow: str, instance_id: str) -> str:
        name = quote(instance_id, safe="")
        if name in (".", ".."):
            # Left as they are, they would be taken out of the path (RFC 3986, section 5.2.4).
            name = name.replace(".", "%2E")
        return f"{self._workflow_url(workflow)}/instances/{name}"

    async def _get(
        self, endpoint: str, url: str, reader: Reader[Envelope[Result]]
    ) -> tuple[Envelope[Result], int, list[str]]:
        """A response, the bytes it took, and the places in it that could not be read."""
        body = Body(self._max_body, reader.kind)
        try:
            response = await self._call(endpoint, url, body)
            answer, ignored = self._read(response, body, reader)
        except RequestFailed as failure:
            failure.size = body.size
            raise
        if ignored:
            self._on_ignored(endpoint, ignored)
        return answer, body.size, ignored

    def _read(
        self, response: httpx.Response, body: Body, reader: Reader[Envelope[Result]]
    ) -> tuple[Envelope[Result], list[str]]:
        if not response.is_success:
            raise from_status(
                response.status_code,
                self._said(response, body),
                retry_after=_retry_after(response),
            )
        if not body.size:
            raise RequestFailed("invalid_answer", "the body is empty")
        try:
            answer, ignored = reader.read(body.read())
        except (*_UNREADABLE, Refused) as error:
            # msgspec names the place and the types, never the value.
            own = isinstance(error, msgspec.MsgspecError | Refused)
            what = f"{_kind(response, body)} can't be read: "
            what += str(error) if own else type(error).__name__
            raise RequestFailed("invalid_answer", what[:_LONGEST_MESSAGE]) from None
        if _RESULT in ignored:
            what = f"{_kind(response, body)} can't be read: unexpected type at {_RESULT}"
            raise RequestFailed("invalid_answer", what)
        if answer.success is False or isinstance(answer.result, UnsetType):
            said = self._said(response, body) or "no result"
            raise RequestFailed("invalid_answer", f"the API reports a failure: {said}")
        return answer, ignored

    async def _call(self, endpoint: str, url: str, body: Body) -> httpx.Response:
        while True:
            try:
                return await self._call_once(endpoint, url, body)
            except LostOnKeptConnection:
                # The server had closed it before it saw the request. Others that are kept alive may
                # be closed too: each repeat takes one out of the pool, and a fresh one ends it.
                continue

    async def _call_once(self, endpoint: str, url: str, body: Body) -> httpx.Response:
        async with self._budget.request():
            response = await self._send(endpoint, url, body)
            if response.status_code == 429:
                self._budget.rate_limited(_retry_after(response))
            else:
                self._budget.update(response.headers)
        return response

    async def _send(self, endpoint: str, url: str, body: Body) -> httpx.Response:
        started, code = time.perf_counter(), "cancelled"
        allowed: float = self._timeout
        events: set[str] = set()
        get = self._http.build_request("GET", url, extensions={"trace": noting(events)})
        try:
            async with (
                asyncio.timeout(allowed) as limit,
                streamed(self._http, get, self._credential) as response,
            ):
                until = limit.when() or 0.0
                body.begin(response.headers.get("content-encoding", ""))
                # Not `aiter_bytes`: it would decompress without a limit.
                async for data in cast("AsyncIterable[bytes]", response.stream):
                    body.add(data)
                    if body.received > _MIB:
                        # Who sends a byte a second gets no second more.
                        more = body.received // _MIB
                        allowed = self._timeout + more
                        limit.reschedule(until + more)
                    if body.size > _LONGEST_REFUSAL and not response.is_success:
                        break
            code = str(response.status_code)
        except (TimeoutError, httpx.TimeoutException):
            code = "timeout"
            raise RequestFailed(
                "timeout",
                f"no whole answer within {allowed:g} s",
                "raise api.timeout, or look at the network on the way to Cloudflare",
            ) from None
        except (Refused, httpx.TooManyRedirects) as error:
            code = "invalid"
            raise RequestFailed("invalid_answer", f"unreadable body: {error}") from None
        except (httpx.TransportError, ssl.SSLError, OSError) as error:
            if was_lost(error, events):
                code = "connection"
                raise LostOnKeptConnection from None
            failure = failure_of(error, urlsplit(url).netloc)
            code = "invalid" if failure.reason == "invalid_answer" else failure.reason
            raise failure from None
        finally:
            self._on_request(endpoint, code, time.perf_counter() - started)
        return response

    def _said(self, response: httpx.Response, body: Body) -> str:
        """What the API says went wrong, short and on one line; empty where it says nothing."""
        try:
            errors = _FAILURE.read(body.read())[0].errors or []
        except (*_UNREADABLE, Refused):
            return f"not from the API, but {_kind(response, body)}"
        text = "; ".join(
            f"{error.message}" if error.code is None else f"{error.message} (code {error.code})"
            for error in errors[:3]
        )
        return " ".join(self._credential.scrub(text).split())[:_LONGEST_MESSAGE]


def _result(answer: Envelope[Result]) -> Result:
    if answer.result is None or isinstance(answer.result, UnsetType):
        raise RequestFailed("invalid_answer", "the API reports a failure: no result")
    return answer.result


def _list(answer: Envelope[list[Result]]) -> list[Result]:
    return [] if answer.result is None else _result(answer)


def _next(info: PageInfo | None, parameters: dict[str, str], rows: int) -> dict[str, str] | None:
    """The parameters of the next page. `cursor` and `page` exclude each other."""
    base = {key: value for key, value in parameters.items() if key not in ("cursor", "page")}
    if info is None or not rows:
        return None
    if info.cursor:
        return None if info.cursor == parameters.get("cursor") else {**base, "cursor": info.cursor}
    if info.page and info.total_pages and info.page < info.total_pages:
        return {**base, "page": str(info.page + 1)}
    return None


def _kind(response: httpx.Response, body: Body) -> str:
    kind = response.headers.get("content-type", "").partition(";")[0].strip() or "an untyped body"
    return f"{kind[:50]} of {body.size} bytes"


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds of `Retry-After`, an hour at most.

    It is a number, or a date (RFC 9110), which counts from the response's own: clocks differ.
    """
    value = response.headers.get("retry-after", "")
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), _LONGEST_BLOCK)
    until = _date(value)
    sent = _date(response.headers.get("date", ""))
    if until is None:
        return None
    return min(max(0.0, until - (time.time() if sent is None else sent)), _LONGEST_BLOCK)


def _date(text: str) -> float | None:
    """Unix time of an HTTP date; None where it is none."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
