"""Checks every request before it reaches an endpoint, first its size and then its password, and
adds headers to every response."""

from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exporter.web.auth import check_password
from exporter.web.web_config_reload import Protection

MAX_HEADERS = 100
MAX_TARGET_SIZE = 8 * 1024
MAX_HEAD_SIZE = 32 * 1024
"""Maximum bytes of a request's target, and of its target and headers together."""

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
"""Headers of every response, unless it sets them itself."""


class RequestChecks:
    """ASGI middleware: refuses requests that are too large or carry no valid password.

    Args:
        app: The application that serves accepted requests.
        protection: Returns the protection in force.
    """

    def __init__(self, app: ASGIApp, protection: Callable[[], Protection]) -> None:
        self._app = app
        self._protection = protection

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        protection = self._protection()
        # Whether the connection was accepted under a protection that is no longer in force.
        connection = scope.get("state", {}).get("connection")
        outdated = connection is not None and connection.protection is not protection

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                headers.update(protection.headers)
                if outdated:
                    headers["Connection"] = "close"
            await send(message)

        response = _check_size(scope) or await check_password(scope, protection.users) or self._app
        await response(scope, receive, send_with_headers)


def _check_size(scope: Scope) -> Response | None:
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    target = len(scope["raw_path"]) + len(scope["query_string"])
    head = target + sum(len(name) + len(value) for name, value in headers)
    if target > MAX_TARGET_SIZE:
        return _refusal(414, "URI Too Long")
    if len(headers) > MAX_HEADERS or head > MAX_HEAD_SIZE:
        return _refusal(431, "Request Header Fields Too Large")
    body = {pair for pair in headers if pair[0] in (b"content-length", b"transfer-encoding")}
    if body - {(b"content-length", b"0")}:
        return _refusal(413, "Request bodies are not accepted")
    return None


def _refusal(status: int, text: str) -> Response:
    """A response that also closes the connection, so that nothing else on it is read."""
    return PlainTextResponse(f"{text}\n", status, headers={"Connection": "close"})
