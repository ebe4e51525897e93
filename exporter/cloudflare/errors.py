"""Why a request to Cloudflare failed: the reasons that `polls_total{result}` shows, with advice."""

import os
import socket
import ssl
from collections.abc import Collection
from typing import Literal, get_args
from urllib.parse import urlsplit

import httpx

from exporter.cloudflare import resolver
from exporter.cloudflare.json_filter import InvalidBody
from exporter.cloudflare.proxy import proxy_for

FailureReason = Literal[
    "timeout",
    "connection",
    "http_4xx",
    "http_5xx",
    "rate_limited",
    "unauthorized",
    "not_found",
    "workflow_not_found",
    "dns",
    "invalid_answer",
]
FAILURE_REASONS: tuple[FailureReason, ...] = get_args(FailureReason)
NOT_THE_API = "check api.url, firewalls and proxies: another server responds"
"""Advice."""
_DNS_ADVICE = (
    "check api.url, HTTPS_PROXY and the machine's DNS (in a cluster, CoreDNS and network policies)"
)
_TLS_ADVICE = (
    "api.url must name a host and port that speak TLS, with a certificate that this machine "
    "trusts; SSL_CERT_FILE names a file of others to trust"
)


class RequestFailed(Exception):  # noqa: N818 - reads as what happened
    """A request to Cloudflare brought no usable response.

    Attributes:
        reason: One of `FAILURE_REASONS`.
        advice: What to do about it; empty when there is nothing to do but wait.
        size: Bytes of the response that were read, decompressed.
    """

    def __init__(self, reason: FailureReason, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.advice = advice
        self.size = 0

    def without_frames(self) -> "RequestFailed":
        """Itself, to be stored: the frames that it came through hold the response."""
        self.__traceback__ = self.__cause__ = self.__context__ = None
        return self


def from_status(
    status: int, message: str, codes: Collection[str] | None, note: str = ""
) -> RequestFailed:
    """The failure that an HTTP status other than 2xx stands for.

    Args:
        status: The status.
        message: The error that the API reports, short; empty where it reports none.
        codes: The API's own codes of its errors; None: the response isn't the API's.
        note: What else belongs into the message.
    """
    reason, advice = _reason(status, message, codes or ())
    if codes is None and reason in ("unauthorized", "http_4xx"):
        advice = NOT_THE_API
    text = "; ".join(filter(None, [message, note]))
    return RequestFailed(reason, f"HTTP {status}: {text}" if text else f"HTTP {status}", advice)


def from_envelope(message: str, codes: Collection[str]) -> RequestFailed:
    """The failure that the envelope of a response with status 2xx reports: the arguments are those
    of `from_status`. What doesn't exist, its codes say as with status 404."""
    reason, advice = _absence(message, codes) or ("invalid_answer", "")
    return RequestFailed(reason, f"the API reports a failure: {message or 'no result'}", advice)


def _reason(status: int, message: str, codes: Collection[str]) -> tuple[FailureReason, str]:
    """The reason and the advice for an HTTP status other than 2xx."""
    match status:
        case 400 if "6003" in codes:  # "Invalid request headers"
            return "unauthorized", "check the API token, or e-mail and key: their format is invalid"
        case 401:
            return "unauthorized", "check the API token: it is wrong, expired or revoked"
        case 403:
            return "unauthorized", (
                "give the API token one of the permissions Workers Scripts Read, Workers Tail Read "
                "or Workers Scripts Write for this account, and check account_id"
            )
        case 404:
            return _absence(message, codes) or ("http_4xx", "check account_id and api.url")
        case 429:
            return "rate_limited", (
                "all tools of the token's user share Cloudflare's 1200 requests in 5 minutes; use "
                "a token with a rate limit of its own, or lower api.requests_per_5m"
            )
        case _ if 300 <= status < 400:
            return "invalid_answer", "check api.url: the API itself never redirects"
        case _ if 400 <= status < 500:
            return "http_4xx", "check api.url and account_id"
        case _:
            return "http_5xx", ""


def _absence(message: str, codes: Collection[str]) -> tuple[FailureReason, str] | None:
    """A reason and advice where the API says that an instance or a workflow doesn't exist.

    Only its own codes say so: 10400 (`instance.not_found`) and 10200 (`workflow.not_found`). Its
    local engine has 10501 for both, with "Workflow instance '…' not found." and "Workflow '…' not
    found.".
    """
    if "10200" in codes or message.startswith("Workflow '"):
        return "workflow_not_found", "check the workflow's name and account_id"
    if "10400" in codes or "10501" in codes:
        return "not_found", "check the instance's id, unless it is still to be created"
    return None


def from_exception(error: Exception, url: str, allowed: float) -> RequestFailed:
    """The failure that an error stands for, of a request to a URL that may take `allowed`
    seconds."""
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        if resolver.is_waiting():
            text = f"no name server responded within {allowed:g} s"
            return RequestFailed("dns", text, _DNS_ADVICE)
        text = f"no complete response within {allowed:g} s"
        advice = "raise api.timeout, or check the network between here and Cloudflare"
        return RequestFailed("timeout", text, advice)
    if isinstance(error, InvalidBody):
        return RequestFailed("invalid_answer", f"unreadable body: {error}")
    if isinstance(error, httpx.InvalidURL):
        return RequestFailed("invalid_answer", f"a cursor that can't be requested: {error}")
    # The error and its causes, the root cause last.
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    # h11 gives up when headers (or trailers) exceed 100 KiB; httpx reports that as a lost
    # connection. Source: `MAX_INCOMPLETE_EVENT_SIZE` in httpcore, `error_status_hint` in h11's
    # documentation.
    if any(getattr(cause, "error_status_hint", None) == 431 for cause in chain):
        return RequestFailed("invalid_answer", "headers too long")
    root, destination = chain[-1], _destination(url)
    text = str(root) or type(root).__name__
    if isinstance(root, socket.gaierror):
        return RequestFailed("dns", f"{destination}: {root.strerror or text}", _DNS_ADVICE)
    if isinstance(root, ssl.SSLError):
        return RequestFailed("connection", f"{destination}: {text}", _TLS_ADVICE)
    if isinstance(root, OSError) and root.errno:
        # The system's message: asyncio's is "Connect call failed" for every cause.
        text = os.strerror(root.errno)
    advice = "check api.url, firewalls and proxies"
    return RequestFailed("connection", f"{destination}: {text}", advice)


def _destination(url: str) -> str:
    """The host of a URL, and the proxy to it, if any, without the proxy's user and password."""
    host, proxy = urlsplit(url).netloc, proxy_for(url)
    via = "" if proxy is None else urlsplit(proxy).netloc.rpartition("@")[2]
    return f"{host} through the proxy {via}" if via else host
