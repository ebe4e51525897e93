"""The statuses of an instance, and what each means to the exporter: the one table of them.

Not part of `cloudflare/`, because `config/` needs it and imports nothing from there. A status that
is not in the table counts as live. Source: "Get logs and status from instance" in Cloudflare's API
reference, and responses of the hosted API (`rollingBack`).
"""

from typing import Literal, get_args

Status = Literal[
    "queued",
    "running",
    "paused",
    "errored",
    "terminated",
    "complete",
    "waitingForPause",
    "waiting",
    "rollingBack",
]
STATUSES: tuple[str, ...] = get_args(Status)
UNKNOWN = "unknown"
"""Shown until a response has a status that can be read."""
ENDED = frozenset[str]({"complete", "errored", "terminated"})
"""From these statuses an instance changes only by a restart."""
ENDED_WITHOUT_ERROR = ENDED - {"errored"}
"""Ended, and nothing to look into: what people see last, or not at all."""
LIVE = tuple(status for status in STATUSES if status not in ENDED)
UNDER_WAY = frozenset[str]({"running", "waiting"})
"""A long run changes between these with each step, maybe thousands of times."""
PAUSED = frozenset[str]({"paused", "waitingForPause"})
"""What an instance is once it was paused."""
RESTING = frozenset[str]({"queued", "paused", "waiting"})
"""A run leaves these statuses before it ends, unless somebody terminates it."""
BEFORE_END = frozenset[str](LIVE) - {"rollingBack"}
"""Statuses which show that a run has not ended. `rollingBack` isn't one of them, nor a status that
is not known today: they may come after an end."""
MAY_BE_STUCK = ("running", "waitingForPause", "rollingBack")
"""The instance is supposed to move; others wait for an event, a time, a person or a free slot."""
SELECTED: tuple[Status, ...] = tuple(
    status for status in get_args(Status) if status not in ENDED_WITHOUT_ERROR
)
"""The statuses that a selector takes, unless it names some."""
