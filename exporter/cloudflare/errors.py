"""Why a request to Cloudflare failed: the reasons that `polls_total{result}` shows, with advice."""

from collections.abc import Collection
from typing import Literal, get_args

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


def from_envelope(message: str, codes: Collection[str] | None) -> RequestFailed:
    """The failure that the envelope of a response with status 2xx reports: the arguments are those
    of `from_status`. What doesn't exist, its codes say as with status 404."""
    reason, advice = _absence(message, codes or ()) or ("invalid_answer", "")
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
