"""What tests of discovery share."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from simulator import Respond, Script, Wait
from simulator.api_results import instance_detail
from simulator.response import Response, success
from tests.watching import Watching, watching

WAITING = Script(pieces=(Wait("approval"),))
INTERVAL = 15.0


@asynccontextmanager
async def discovering(
    name: str = "orders", *, ids: tuple[str, ...] = (), more: Any = None, **discover: Any
) -> AsyncIterator[Watching]:
    """Discovers instances of a workflow, by settings of `discover`."""
    entry: dict[str, Any] = {"name": name, "discover": discover}
    if ids:
        entry["instances"] = list(ids)
    async with watching(workflows=[entry], **(more or {})) as w:
        yield w


def iso(moment: float | None) -> str | None:
    """A Unix time as the API writes it."""
    if moment is None:
        return None
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def without_counts(reply: Response) -> Response:
    """A list of workflows without the platform's counts."""
    body = json.loads(reply.body)
    for row in body["result"]:
        row["instances"] = None
    return Response(reply.status, json.dumps(body).encode())


def without_unlisted(reply: Response) -> Response:
    """A list of workflows without some that there are."""
    body = json.loads(reply.body)
    body["result"] = [row for row in body["result"] if not row["name"].endswith("unlisted")]
    body["result_info"]["total_count"] = len(body["result"])
    return Response(reply.status, json.dumps(body).encode())


def behind(w: Watching, instance_id: str) -> Respond:
    """The detail response of this moment, later on."""
    now = w.simulator.world.settle()
    return Respond(body=success(instance_detail(w.orders.instances[instance_id], now)).body)


def by_status(w: Watching) -> dict[str, float]:
    return {
        dict(labels)["status"]: value
        for labels, value in w.samples("cloudflare_workflow_instances").items()
        if value
    }
