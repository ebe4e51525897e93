"""HTTP responses, and the envelope that Cloudflare puts around results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec


@dataclass(slots=True)
class Response:
    """A complete HTTP response."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})


class ApiError(Exception):
    """An error in the envelope."""

    def __init__(
        self, status: int, code: int, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}

    def response(self) -> Response:
        envelope = {
            "success": False,
            "errors": [{"code": self.code, "message": self.message}],
            "messages": [],
            "result": None,
        }
        response = Response(self.status, msgspec.json.encode(envelope))
        response.headers.update(self.headers)
        return response


def success(result: Any, result_info: dict[str, Any] | None = None) -> Response:
    """A result in the envelope."""
    envelope = {"success": True, "errors": [], "messages": [], "result": result}
    if result_info is not None:
        envelope["result_info"] = result_info
    return Response(200, msgspec.json.encode(envelope))
