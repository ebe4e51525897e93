"""The events that Cloudflare publishes of an instance (Event subscriptions, Workflows source)."""

from collections.abc import Iterable, Iterator
from typing import Any

PREFIX = "cf.workflows.workflow.instance."

_PAUSED = frozenset({"paused", "waitingForPause"})
_NAMES = {
    "queued": "queued",
    "paused": "paused",
    "errored": "errored",
    "terminated": "terminated",
    "complete": "completed",
}
"""By status; `running` after `queued` or a pause is `started`, and nothing comes for others."""


def events_of(marks: Iterable[tuple[int, str]], retried: Iterable[int]) -> list[tuple[int, str]]:
    """The events of a run, by time.

    Args:
        marks: When it came to which status.
        retried: When attempts failed that are retried: `errored`, too, by the documentation.
    """
    return sorted([*_of_statuses(marks), *((time, "errored") for time in retried)])


def _of_statuses(marks: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    before = ""
    for time, status in marks:
        if status in _NAMES:
            yield time, _NAMES[status]
        elif status in {"running", "waiting"} and before in _PAUSED | {"queued", ""}:
            yield time, "started"
        before = status


def event_body(
    kind: str, *, account: str, workflow: str, version: str, instance: str, time: str
) -> dict[str, Any]:
    """The body of an event's message."""
    return {
        "type": PREFIX + kind,
        "source": {"type": "workflows.workflow", "workflowName": workflow},
        "payload": {"versionId": version, "instanceId": instance},
        "metadata": {
            "accountId": account,
            "eventSubscriptionId": "1830c4bb612e43c3af7f4cada31fbf3f",
            "eventSchemaVersion": 1,
            "eventTimestamp": time,
        },
    }
