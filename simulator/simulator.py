"""The simulator as an ASGI application."""

from __future__ import annotations

from typing import Any

from .api import Api, Request
from .clock import Clock
from .credentials import Access
from .faults import Exchange, Faults
from .rate_limit import RateLimit
from .request_log import RequestLog
from .world import World


class Simulator:
    """A world with credentials, rate limit and faults in front of it; an ASGI application.

    Every request is refused until `access` has a credential.
    """

    def __init__(self, world: World | None = None, *, clock: Clock | None = None) -> None:
        self.world = world or (World() if clock is None else World(clock))
        self.access = Access()
        self.limit = RateLimit(self.world.clock)
        self.faults = Faults()
        self.requests = RequestLog()
        self.api = Api(self.world, self.access, self.limit)
        self.url = ""
        """The API's base URL once it is served, up to and including `/client/v4`."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        request = Request(
            scope["method"],
            scope["raw_path"].decode("latin-1"),
            scope["query_string"].decode("latin-1"),
            {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]},
            await _body(receive) if scope["method"] == "POST" else b"",
        )
        entry = self.api.entry(request)
        self.requests.begin(entry)
        exchange = Exchange(
            entry,
            lambda: self.api.respond(request, entry),
            send,
            receive,
            self.faults.released,
            scope.get("state", {}).get("transport"),
        )
        action = self.faults.pick(entry)
        try:
            if action is None:
                await exchange.respond(exchange.response())
            else:
                entry.fault = type(action).__name__.lower()
                await action.act(exchange)
        finally:
            self.requests.end(entry)


async def _body(receive: Any) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body
