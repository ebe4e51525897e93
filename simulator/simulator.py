"""The simulator as an ASGI application."""

from __future__ import annotations

from typing import Any

from .access import Access
from .api import Api, Request
from .calls import CallLog
from .clock import Clock
from .faults import Exchange, Faults
from .limits import RateLimit
from .world import World


class Simulator:
    """A world with everything that stands before it; an ASGI application.

    Any credential is refused until `access` knows one.
    """

    def __init__(self, world: World | None = None, *, clock: Clock | None = None) -> None:
        self.world = world or (World() if clock is None else World(clock))
        self.access = Access()
        self.limit = RateLimit(self.world.clock)
        self.faults = Faults()
        self.calls = CallLog()
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
        )
        call = self.api.call(request)
        self.calls.begin(call)
        exchange = Exchange(
            call,
            lambda: self.api.answer(request, call),
            send,
            receive,
            self.faults.released,
            scope.get("state", {}).get("transport"),
        )
        action = self.faults.pick(call)
        try:
            if action is None:
                await exchange.answer(exchange.reply())
            else:
                call.fault = type(action).__name__.lower()
                await action.act(exchange)
        finally:
            self.calls.end(call)
