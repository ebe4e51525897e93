"""A queue of Cloudflare Queues, pulled over HTTP, and the lifecycle events that its messages hold.

Sources: "Pull consumers" and "Event subscriptions" in Cloudflare's Queues docs, and the types of
its official SDK. A pull leases messages for some time; those that aren't acknowledged by then come
again. Requests for queues don't count towards the limit on API requests, so they have no budget.
"""

import base64
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from math import inf
from typing import NamedTuple, TypeVar

import msgspec
from msgspec import Raw, Struct, field

from exporter.cloudflare.client import ApiClient, Response
from exporter.cloudflare.errors import RequestFailed
from exporter.cloudflare.lenient_decoder import decode
from exporter.cloudflare.times import corrected, unix
from exporter.config.accounts import is_instance_id

Result = TypeVar("Result")

BATCH = 100
"""Maximum messages of a pull: Cloudflare's limit."""
_LEASE_MS = 120_000
KINDS = ("queued", "started", "paused", "errored", "terminated", "completed")
"""The kinds of events: what the instance became."""
_KIND_OF = {f"cf.workflows.workflow.instance.{kind}": kind for kind in KINDS}
_ADD_CONSUMER = "add a pull consumer: wrangler queues consumer http add QUEUE (docs/events.md)"


class Event(NamedTuple):
    """A change of an instance, as its queue announces it."""

    kind: str
    """One of `KINDS`; empty: it is of another kind."""
    account_id: str
    workflow: str
    instance_id: str
    at: float
    """Unix time by Cloudflare's clock; -inf: the message has none."""


class Message(Struct):
    body: Raw = field(default_factory=Raw)
    lease_id: str | None = None


class Pulled(Struct, rename={"backlog": "message_backlog_count"}):
    """The result of a pull."""

    messages: list[Message] = []
    backlog: float = 0.0
    """Roughly how many messages the queue has."""


class _Acked(Struct):
    """Counts that are not needed: what wasn't acknowledged comes again."""


class _Consumer(Struct):
    type: str | None = None


class _Queue(Struct):
    queue_name: str | None = None
    consumers: list[_Consumer] = []


class _Source(Struct, frozen=True):
    workflowName: str | None = None  # noqa: N815 - as Cloudflare spells it


class _Payload(Struct, frozen=True):
    instanceId: str | None = None  # noqa: N815


class _Metadata(Struct, frozen=True):
    accountId: str | None = None  # noqa: N815
    eventTimestamp: datetime | None = None  # noqa: N815


class _Event(Struct):
    type: str | None = None
    source: _Source = _Source()
    payload: _Payload = _Payload()
    metadata: _Metadata = _Metadata()


@dataclass(frozen=True, kw_only=True)
class EventQueue(ApiClient):
    """The queue of an account's events. Every method raises `RequestFailed`.

    Attributes:
        queue_id: Its id.
    """

    queue_id: str

    async def pull(self) -> Pulled:
        """Leases the next messages, `BATCH` at most."""
        content = {"batch_size": BATCH, "visibility_timeout_ms": _LEASE_MS}
        return (await self._send("pull", "/messages/pull", Pulled, content)).required

    async def ack(self, leases: Collection[str]) -> None:
        """Removes leased messages from the queue."""
        content = {"acks": [{"lease_id": lease} for lease in leases], "retries": []}
        await self._send("ack", "/messages/ack", _Acked, content)

    async def check(self) -> str:
        """Checks that the queue has a pull consumer and that the token may pull, without taking a
        message. Returns the queue's name.

        Pulling and acknowledging need the same permission, so this acknowledges an empty list.
        """
        queue = (await self._send("queue", "", _Queue)).required
        if not any(consumer.type == "http_pull" for consumer in queue.consumers):
            types = ", ".join(str(consumer.type) for consumer in queue.consumers)
            text = f"the queue's consumer is {types or 'missing'}, and must be http_pull"
            raise RequestFailed("http_4xx", text, _ADD_CONSUMER)
        try:
            await self.ack([])
        except RequestFailed as failure:
            if failure.reason != "http_4xx":  # the API may refuse an empty list to whoever may pull
                raise
        return queue.queue_name or ""

    async def _send(
        self, endpoint: str, path: str, kind: type[Result], content: object = None
    ) -> Response[Result]:
        url = f"{self.base_url}/queues/{self.queue_id}{path}"
        try:
            return await self.send(endpoint, url, kind, content)
        except RequestFailed as failure:
            raise RequestFailed(failure.reason, str(failure), _advice(failure)) from None


def _advice(failure: RequestFailed) -> str:
    if failure.reason == "unauthorized":
        return "give events.api_token the permission Queues Edit for this account"
    if "http_pull" in str(failure):
        return _ADD_CONSUMER
    if failure.reason == "http_4xx":
        return "check events.queue_id and account_id"
    return "" if failure.reason == "rate_limited" else failure.advice


UNREADABLE = Event("", "", "", "", -inf)


def event_of(message: Message) -> Event:
    """The event that a message holds, or `UNREADABLE`.

    The body is JSON, or a string that holds JSON as text or in base64; Cloudflare's docs have both.
    """
    body = bytes(message.body)
    try:
        if body[:1] == b'"':
            text = msgspec.json.decode(body, type=str).strip()
            body = text.encode() if text[:1] == "{" else base64.b64decode(text, validate=True)
        event, _ = decode(body, _Event)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return UNREADABLE
    workflow, instance_id = event.source.workflowName, event.payload.instanceId
    kind = _KIND_OF.get(event.type or "", "")
    if not event.type or (kind and not (workflow and is_instance_id(instance_id or ""))):
        return UNREADABLE
    at = unix(corrected(event.metadata.eventTimestamp))
    return Event(
        kind,
        event.metadata.accountId or "",
        workflow or "",
        instance_id or "",
        -inf if at is None else at,
    )
