"""A client whose upstream is a function, put in at the transport."""

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from pydantic import ByteSize, SecretStr

from exporter.clock import Clock
from exporter.cloudflare.budget import Budget
from exporter.cloudflare.connections import http_client
from exporter.cloudflare.credentials import Credential
from exporter.cloudflare.workflows_client import WorkflowsClient
from exporter.config.settings import Api
from exporter.config.units import Duration

BASE = "https://api.example.com/client/v4/accounts/acc"


def api(url: str = BASE, timeout: float = 5, max_body: int = 1 << 28) -> Api:
    """The section `api` of a configuration."""
    return Api(url=url, timeout=Duration(timeout), max_body=ByteSize(max_body))


def unlimited() -> Budget:
    """A budget that holds up nothing: whenever it reads the clock, hours have passed."""
    return Budget(10**9, clock=Clock(monotonic=itertools.count(0.0, 10_000.0).__next__))


@asynccontextmanager
async def client_of(
    response: object,
    *,
    base: str = BASE,
    credential: Credential | None = None,
    limit: float = 5,
    codes: list[tuple[str, str]] | None = None,
    ignored: list[str] | None = None,
) -> AsyncIterator[WorkflowsClient]:
    """A client of an upstream that sends `response`, or a function of requests.

    Args:
        limit: Seconds for a request.
        codes: Gets the endpoint and the code of each request.
        ignored: Gets the places in responses that could not be read.
    """

    def record(endpoint: str, code: str, _: float) -> None:
        if codes is not None:
            codes.append((endpoint, code))

    transport = httpx.MockTransport(response if callable(response) else lambda _: response)  # type: ignore[arg-type]
    settings = api(base, limit)
    async with http_client(settings, transport) as http:
        yield WorkflowsClient(
            http,
            settings,
            "acc",
            credential or Credential(SecretStr("hidden")),
            budget=unlimited(),
            on_request=record,
            on_ignored=lambda _, places: ignored.extend(places) if ignored is not None else None,
        )


@pytest.fixture
def ok() -> httpx.Response:
    return httpx.Response(200, json={"success": True, "result": {"queued": "2026-11-24T17:06:11Z"}})
