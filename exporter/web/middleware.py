"""What every request passes before it reaches an endpoint: limits, headers, passwords."""

from collections.abc import Callable

from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exporter.web.auth import BusyError
from exporter.web.web_config_reload import Protection

MOST_HEADERS = 100
LONGEST_TARGET = 8 * 1024
LARGEST_HEAD = 32 * 1024
"""Bytes of a request's target and of its target and headers together."""


class RequestChecks:
    """The application behind it, for those who may ask, and ask in moderation.

    Everything is behind the passwords, health included, as in all of Prometheus' exporters.

    Args:
        app: What answers those who are let in.
        protection: What is in force now.
    """

    def __init__(self, app: ASGIApp, protection: Callable[[], Protection]) -> None:
        self._app = app
        self._protection = protection

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        protection = self._protection()
        headers = dict(protection.headers)
        if scope["state"].get("protection") not in (None, protection):
            # The client was let in under rules that are no longer in force.
            headers["Connection"] = "close"
        answer = _too_much(scope) or await _stranger(scope, protection) or self._app
        await answer(scope, receive, _with(headers, send))


def _too_much(scope: Scope) -> Response | None:
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    target = len(scope["raw_path"]) + len(scope["query_string"])
    if target > LONGEST_TARGET:
        return _refusal(414, "URI Too Long")
    if (
        len(headers) > MOST_HEADERS
        or target + sum(len(name) + len(value) for name, value in headers) > LARGEST_HEAD
    ):
        return _refusal(431, "Request Header Fields Too Large")
    body = {name: value for name, value in headers if name in _BODY}
    if body and body != {b"content-length": b"0"}:
        return _refusal(413, "No body is taken")
    return None


_BODY = (b"content-length", b"transfer-encoding")


async def _stranger(scope: Scope, protection: Protection) -> Response | None:
    """The answer for somebody who isn't let in."""
    if protection.users is None:
        return None
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    try:
        if len(given) == 1 and await protection.users.admits(given[0].decode("latin-1")):
            return None
    except BusyError:
        return _refusal(503, "Too many passwords to check", {"Retry-After": "1"})
    # The realm is fixed, so that nothing is told of what is behind.
    challenge = {"WWW-Authenticate": 'Basic realm="metrics", charset="UTF-8"'}
    return PlainTextResponse("Unauthorized\n", 401, headers=challenge)


def _refusal(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    """Ends the connection too: what else comes on it isn't read."""
    return PlainTextResponse(
        f"{text}\n", status, headers={"Connection": "close", **(headers or {})}
    )


def _with(headers: dict[str, str], send: Send) -> Send:
    """`send` with headers that take the place of those of the same name."""
    if not headers:
        return send
    more = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    names = {name for name, _ in more}

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [pair for pair in message["headers"] if pair[0].lower() not in names]
            message = {**message, "headers": kept + more}
        await send(message)

    return sending
