"""What can go wrong with a call, in the classes that `polls_total{result}` shows."""

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

_PERMISSIONS = "Workers Scripts Read, Workers Tail Read or Workers Scripts Write"


class RequestFailed(Exception):  # noqa: N818 - reads as what happened
    """A call to Cloudflare brought no answer to use.

    Attributes:
        reason: Why, as `polls_total{result}` shows it.
        advice: What to do about it; empty when there is nothing to do but wait.
        retry_after: Seconds that the API asks to wait, of a 429.
        size: Bytes of the answer that were read in vain, decompressed.
    """

    def __init__(
        self,
        reason: FailureReason,
        what: str,
        advice: str = "",
        *,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(what)
        self.reason = reason
        self.advice = advice
        self.retry_after = retry_after
        self.size = 0


def from_status(status: int, said: str, *, retry_after: float | None = None) -> RequestFailed:
    """The failure that an HTTP status other than 2xx stands for; `said` is what the API said.

    Of 404s, only the API's own word is about an instance or a workflow. Cloudflare's API has the
    codes 10400 (`instance.not_found`) and 10200 (`workflow.not_found`); its local engine has 10501
    for both, with "Workflow instance '…' not found." and "Workflow '…' not found.".
    """
    what = f"HTTP {status}: {said}" if said else f"HTTP {status}"
    match status:
        case 400 if "(code 6003)" in said:  # "Invalid request headers"
            return RequestFailed(
                "unauthorized",
                what,
                "check the API token, or the e-mail and key: they don't look like any",
            )
        case 401:
            return RequestFailed(
                "unauthorized", what, "check the API token: it is wrong, expired or revoked"
            )
        case 403:
            return RequestFailed(
                "unauthorized",
                what,
                f"give the API token one of the permissions {_PERMISSIONS} for this account, "
                "and check account_id",
            )
        case 404 if "(code 10200)" in said or said.startswith("Workflow '"):
            return RequestFailed(
                "workflow_not_found", what, "check the workflow's name and account_id"
            )
        case 404 if "(code 10400)" in said or "(code 10501)" in said:
            return RequestFailed(
                "not_found", what, "check the instance's id, unless it is still to be created"
            )
        case 404:
            return RequestFailed("http_4xx", what, "check account_id and api.url")
        case 429:
            return RequestFailed(
                "rate_limited",
                what,
                "Cloudflare allows a user 1200 calls in 5 minutes over all tools; poll less often "
                "(poll.interval) or watch less",
                retry_after=retry_after,
            )
        case _ if 300 <= status < 400:
            return RequestFailed(
                "invalid_answer", what, "check api.url: the API itself never redirects"
            )
        case _ if 400 <= status < 500:
            return RequestFailed("http_4xx", what, "check api.url and account_id")
        case _:
            return RequestFailed("http_5xx", what)
