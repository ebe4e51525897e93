"""One request to Cloudflare's API and its response: the envelope, timeouts, and why it failed.

A failed request is not repeated here. The next poll is the retry, so that an API with problems gets
no additional requests. Only a request that was lost with a kept-alive connection, which the server
has not seen, is sent again.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterable, Callable
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar, cast

import httpx
import msgspec
from msgspec import UnsetType

from exporter.cloudflare.budget import Budget
from exporter.cloudflare.connections import ReusedConnectionLost, request
from exporter.cloudflare.credentials import Credential
from exporter.cloudflare.errors import (
    NOT_THE_API,
    RequestFailed,
    from_envelope,
    from_exception,
    from_status,
)
from exporter.cloudflare.json_filter import InvalidBody
from exporter.cloudflare.lenient_decoder import decode
from exporter.cloudflare.models import Envelope, PageInfo
from exporter.cloudflare.response_body import ResponseBody
from exporter.cloudflare.response_headers import retry_after
from exporter.config.settings import Api

Result = TypeVar("Result")

OnRequest = Callable[[str, str, float], None]
"""Called after each request: endpoint, HTTP status or kind of error, seconds."""
OnIgnored = Callable[[str, list[str]], None]
"""Called with an endpoint and the places in its response that were ignored, if there are any."""

_MIB = 1024 * 1024
_MAX_ERROR_BODY = 64 * 1024
"""Bytes that are read of a response other than 2xx: errors are short."""
_MAX_MESSAGE = 200
"""Characters of a message from the API, or about a body that can't be read."""
_RESULT = "$.result"
_UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, InvalidBody)


class Response(NamedTuple, Generic[Result]):
    """The response to a request that succeeded."""

    result: Result | None
    """None stands for null, which the API sends for an empty list."""
    info: PageInfo | None
    size: int
    """Bytes of the body, decompressed."""
    ignored: list[str]
    """The places in it that could not be read."""

    @property
    def required(self) -> Result:
        """The result, which must not be null.

        Raises:
            RequestFailed: it is.
        """
        if self.result is None:
            raise RequestFailed("invalid_answer", "the API reports a failure: no result")
        return self.result


@dataclass(frozen=True)
class ApiClient:
    """Sends requests about one account with one credential. The clients of the API derive from it.

    Attributes:
        account_id: None if the API's URL has no place for it.
        budget: What requests draw on; None: nothing limits their rate.
        sent: Requests so far, by endpoint.
    """

    http: httpx.AsyncClient
    api: Api
    account_id: str | None
    credential: Credential
    budget: Budget | None = None
    on_request: OnRequest = lambda *_: None
    on_ignored: OnIgnored = lambda *_: None
    sent: Counter[str] = field(default_factory=Counter, init=False)

    @property
    def base_url(self) -> str:
        """The beginning of the URLs of all of the account's endpoints."""
        return self.api.url.replace("{account_id}", self.account_id or "").rstrip("/")

    async def send(
        self, endpoint: str, url: str, kind: type[Result], content: object = None
    ) -> Response[Result]:
        """The response to a GET or, with content that is sent as JSON, a POST.

        Args:
            endpoint: The endpoint's name in metrics.
            url: Its URL.
            kind: The type of the result.
            content: What to send as JSON with a POST; None: to send a GET.

        Raises:
            RequestFailed: there is no usable response.
        """
        self.sent[endpoint] += 1
        model: type[Envelope[Result]] = Envelope[kind]  # type: ignore[valid-type]
        body = ResponseBody(self.api.max_body, model)
        try:
            response = self._decode(await self._request(endpoint, url, body, content), body, model)
        except RequestFailed as failure:
            failure.size = body.size
            raise
        if response.ignored:
            self.on_ignored(endpoint, response.ignored)
        return response

    def _decode(
        self, response: httpx.Response, body: ResponseBody, model: type[Envelope[Result]]
    ) -> Response[Result]:
        try:
            envelope, ignored = decode(body.read(), model)
            if _RESULT in ignored and response.is_success:
                raise InvalidBody(f"unexpected type at {_RESULT}")
        except _UNDECODABLE as error:
            raise self._unreadable(response, body, error) from None
        if not response.is_success:
            text, codes = self._api_errors(envelope)
            raise from_status(response.status_code, text, codes, self._note(response))
        if envelope.success is False or isinstance(envelope.result, UnsetType):
            raise from_envelope(*self._api_errors(envelope))
        return Response(envelope.result, envelope.result_info, body.size, ignored)

    def _unreadable(
        self, response: httpx.Response, body: ResponseBody, error: Exception
    ) -> RequestFailed:
        """The failure of a response in whose body no envelope can be read."""
        media = response.headers.get("content-type", "").partition(";")[0].strip()
        content = f"{media[:50] or 'an untyped body'} of {body.size} bytes"
        if not response.is_success:
            text = f"not from the API, but {content}"
            return from_status(response.status_code, text, None, self._note(response))
        if not body.size:
            return RequestFailed("invalid_answer", "the body is empty")
        # msgspec's message names the place and the types; those of other errors show the value.
        own = isinstance(error, msgspec.MsgspecError | InvalidBody)
        message = f"{content} can't be read: {error if own else type(error).__name__}"
        advice = "" if "json" in (media or "json") else NOT_THE_API
        return RequestFailed("invalid_answer", message[:_MAX_MESSAGE], advice)

    async def _request(
        self, endpoint: str, url: str, body: ResponseBody, content: object
    ) -> httpx.Response:
        while True:
            # Other kept-alive connections may be closed, too. Each repeat takes one out of the
            # pool, until the request gets a new connection.
            with contextlib.suppress(ReusedConnectionLost):
                if self.budget is None:
                    return await self._receive(endpoint, url, body, content)
                async with self.budget.request():
                    response = await self._receive(endpoint, url, body, content)
                    if response.status_code == 429:
                        self.budget.rate_limited(retry_after(response))
                    else:
                        self.budget.update(response.headers)
                return response

    async def _receive(
        self, endpoint: str, url: str, body: ResponseBody, content: object
    ) -> httpx.Response:
        started, code = time.perf_counter(), "cancelled"
        response: httpx.Response | None = None
        try:
            async with (
                asyncio.timeout(self.api.timeout) as limit,
                request(self.http, url, self.credential, content) as response,
            ):
                until = limit.when() or 0.0
                body.begin(response.headers.get("content-encoding", ""))
                # Not `aiter_bytes`: it would decompress without a limit.
                async for data in cast("AsyncIterable[bytes]", response.stream):
                    body.add(data)
                    # One more second for each MiB that has arrived: a slow sender gains nothing.
                    limit.reschedule(until + body.received // _MIB)
                    if body.size > _MAX_ERROR_BODY and not response.is_success:
                        break
            code = str(response.status_code)
        except ReusedConnectionLost:
            code = "connection"
            raise
        except (httpx.TransportError, httpx.InvalidURL, OSError, InvalidBody) as error:
            if response is None or response.is_success:
                allowed = self.api.timeout + body.received // _MIB
                failure = from_exception(error, url, allowed)
                code = "invalid" if failure.reason == "invalid_answer" else failure.reason
                raise failure from None
            # The status alone says what matters: after a 429 no more requests may be sent.
            code = str(response.status_code)
        finally:
            self.on_request(endpoint, code, time.perf_counter() - started)
        return response

    def _note(self, response: httpx.Response) -> str:
        """What to add to the API's own errors; mostly nothing."""
        if response.status_code == 429 and self.budget is not None and self.budget.blocked:
            return f"no requests for {self.budget.blocked:.0f} s"
        if response.status_code in (401, 403) and self.credential.problem:
            return f"the last secret read is still in use, since {self.credential.problem}"
        return ""

    def _api_errors(self, envelope: Envelope[Result]) -> tuple[str, set[str]]:
        """The errors that the API reports, shortened to one line, and the codes of all of them."""
        errors = envelope.errors or []
        text = "; ".join(
            f"{error.message}" if error.code is None else f"{error.message} (code {error.code})"
            for error in errors[:3]
        )
        short = " ".join(self.credential.scrub(text).split())[:_MAX_MESSAGE]
        return short, {str(error.code) for error in errors}
