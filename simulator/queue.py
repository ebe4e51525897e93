"""A queue of Cloudflare Queues with a pull consumer: leases, and what messages go through.

A message comes at least once, in no order. Once pulled, it is invisible until its lease ends; one
that isn't acknowledged by then comes back, `max_retries` times at most.
"""

from __future__ import annotations

import base64
import heapq
import random
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal

import msgspec

from .response import ApiError

MAX_BATCH = 100
_MAX_VISIBILITY = 43_200_000


@dataclass(slots=True, eq=False)
class Message:
    """A message; times are milliseconds since the epoch."""

    id: str
    body: str
    content_type: str
    at: int
    attempts: int = 0
    lease: str = ""


@dataclass(slots=True)
class Queue:
    """A queue, and how well it delivers.

    Args:
        consumer: `http_pull`; with another, or none, nothing can be pulled.
        plain: Whether bodies come as JSON text rather than as base64 of it.
        delay: Seconds until a message can be pulled, between these two.
        lost: The share of messages that never come.
        twice: The share of messages that come twice.
        max_retries: How often a message comes back.
        paused: Whether delivery is paused.
    """

    id: str
    name: str = "workflow-events"
    consumer: Literal["http_pull", "worker"] | None = "http_pull"
    plain: bool = False
    delay: tuple[float, float] = (0.0, 0.0)
    lost: float = 0.0
    twice: float = 0.0
    max_retries: int = 3
    paused: bool = False
    chance: random.Random = field(default_factory=lambda: random.Random(0))
    acknowledged: int = 0
    dropped: int = 0
    """Messages that came back too often."""
    _numbers: count[int] = field(default_factory=count)
    _coming: list[tuple[int, int, Message]] = field(default_factory=list)
    _ready: list[Message] = field(default_factory=list)
    _leased: dict[str, Message] = field(default_factory=dict)
    _leases: list[tuple[int, str]] = field(default_factory=list)

    @property
    def backlog(self) -> int:
        """Messages that aren't acknowledged."""
        return len(self._coming) + len(self._ready) + len(self._leased)

    @property
    def leased(self) -> int:
        """Messages that were pulled, and are neither acknowledged nor back."""
        return len(self._leased)

    def push(self, body: Any, at: int, *, content_type: str = "json") -> None:
        """Takes a message at a time: a value that is sent as JSON, or a text as it is."""
        if self.chance.random() < self.lost:
            return
        text = body if isinstance(body, str) else msgspec.json.encode(body).decode()
        if not self.plain and content_type == "json":
            text = base64.b64encode(text.encode()).decode()
        for _ in range(2 if self.chance.random() < self.twice else 1):
            message = Message(uuid.UUID(int=next(self._numbers)).hex, text, content_type, at)
            self._come(message, at + round(self.chance.uniform(*self.delay) * 1000))

    def _come(self, message: Message, at: int) -> None:
        heapq.heappush(self._coming, (at, next(self._numbers), message))

    def pull(self, query: Mapping[str, Any], now: int) -> dict[str, Any]:
        """The result of a pull.

        Raises:
            ApiError: nothing can be pulled.
        """
        if self.consumer != "http_pull":
            text = "messages cannot be pulled unless http_pull mode is enabled"
            raise ApiError(405, 10001, text)
        batch = _number(query, "batch_size", 5, MAX_BATCH)
        visibility = _number(query, "visibility_timeout_ms", 30_000, _MAX_VISIBILITY)
        self._end_leases(now)
        while self._coming and self._coming[0][0] <= now:
            self._ready.append(heapq.heappop(self._coming)[2])
        pulled: list[Message] = []
        while self._ready and len(pulled) < batch and not self.paused:
            index = self.chance.randrange(len(self._ready))
            self._ready[index], self._ready[-1] = self._ready[-1], self._ready[index]
            message = self._ready.pop()
            message.attempts += 1
            message.lease = uuid.UUID(int=next(self._numbers)).hex
            self._leased[message.lease] = message
            heapq.heappush(self._leases, (now + visibility, message.lease))
            pulled.append(message)
        backlog = self.backlog
        oldest = min((m.at for m in (*pulled, *self._ready[:1])), default=0)
        metrics = {
            "backlog_count": backlog,
            "backlog_bytes": backlog * 400,
            "oldest_message_timestamp_ms": oldest,
        }
        return {
            "message_backlog_count": backlog,
            "messages": [_shown(message) for message in pulled],
            "metadata": {"metrics": metrics},
        }

    def ack(self, query: Mapping[str, Any], now: int) -> dict[str, Any]:
        """The result of an acknowledgement."""
        self._end_leases(now)
        warnings: dict[str, str] = {}
        acked = self._taken(query.get("acks") or [], warnings)
        retried = self._taken(query.get("retries") or [], warnings)
        self.acknowledged += len(acked)
        for message, entry in retried:
            self._return(message, now + round(float(entry.get("delay_seconds") or 0) * 1000))
        return {"ackCount": len(acked), "retryCount": len(retried), "warnings": warnings}

    def _taken(
        self, entries: Iterable[Mapping[str, Any]], warnings: dict[str, str]
    ) -> list[tuple[Message, Mapping[str, Any]]]:
        taken = []
        for entry in entries:
            lease = str(entry.get("lease_id", ""))
            message = self._leased.pop(lease, None)
            if message is None:
                warnings[lease] = "the lease has expired or is unknown"
            else:
                taken.append((message, entry))
        return taken

    def _end_leases(self, now: int) -> None:
        while self._leases and self._leases[0][0] <= now:
            _, lease = heapq.heappop(self._leases)
            message = self._leased.pop(lease, None)
            if message is not None:
                self._return(message, now)

    def _return(self, message: Message, at: int) -> None:
        if message.attempts > self.max_retries:
            self.dropped += 1
        else:
            self._come(message, at)

    def result(self) -> dict[str, Any]:
        """The queue as the API describes it."""
        consumer: dict[str, Any] = {"type": self.consumer, "queue_name": self.name}
        if self.consumer == "http_pull":
            settings = {"batch_size": 10, "max_retries": self.max_retries, "retry_delay": 0}
            consumer["settings"] = settings | {"visibility_timeout_ms": 30_000}
        consumers = [] if self.consumer is None else [consumer]
        return {
            "queue_id": self.id,
            "queue_name": self.name,
            "consumers": consumers,
            "consumers_total_count": len(consumers),
            "producers": [],
            "producers_total_count": 0,
            "settings": {
                "delivery_delay": 0,
                "delivery_paused": self.paused,
                "message_retention_period": 345_600,
            },
        }


def _shown(message: Message) -> dict[str, Any]:
    return {
        "id": message.id,
        "body": message.body,
        "attempts": message.attempts,
        "timestamp_ms": message.at,
        "lease_id": message.lease,
        "metadata": {"CF-Content-Type": message.content_type},
    }


def _number(query: Mapping[str, Any], key: str, default: int, most: int) -> int:
    value = query.get(key, default)
    if not isinstance(value, int | float) or not 1 <= value <= most:
        raise ApiError(400, 10207, f'Validation error: number out of range at "{key}"')
    return int(value)
