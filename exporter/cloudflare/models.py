"""What Cloudflare answers, as far as the exporter reads it.

Source: "Get logs and status from instance" of Cloudflare's API reference, and answers of the real
engine. Enumerations are plain strings and fields that are not read here are skipped unbuilt
(params and outputs among them), so that values and fields of tomorrow are taken as they come. Every
field is optional: one that can't be read is as if it were absent (`lenient.py`).
Times are Unix seconds, UTC. An error's message is read only to tell which step an instance failed
at; it is customers' data and goes nowhere.

A full answer holds up to 25,000 steps: `gc=False` on what it is made of, which never refers back to
itself, halves the time to read it.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from math import inf
from typing import Annotated, Generic, Self, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType

Word = Annotated[str, Meta(max_length=100)]
"""A value of the platform's own, perhaps of tomorrow; a longer one is ignored."""
Count = Annotated[float, Meta(ge=0, le=1e9)]
Whole = Annotated[int, Meta(ge=0, le=2**53)]
_ERROR_NAME = re.compile(r"(?:[A-Za-z_$][\w$]{0,90})?(?:Error|Exception)", re.ASCII)


class Error(Struct, gc=False):
    name: str | None = None
    message: str | None = None

    @classmethod
    def from_text(cls, text: str) -> Self:
        """An error as older responses have it: `Name: message`, or a message alone.

        Only what is surely a name is one: names are labels, and messages are customers' data.
        """
        name, colon, message = text.partition(": ")
        is_name = colon and _ERROR_NAME.fullmatch(name)
        return cls(name, message) if is_name else cls(None, text)


class Trigger(Struct):
    source: Word | None = None


class Attempt(Struct, gc=False):
    start: datetime | None = None
    end: datetime | None = None
    success: bool | None = None
    error: Error | None = None

    @property
    def outcome(self) -> str:
        """`success`, `failure`, or `running` as long as it has no end."""
        if self.end is None or self.success is None:
            return "running"
        return "success" if self.success else "failure"


class Retries(Struct, gc=False):
    limit: Count | UnsetType | None = UNSET
    """Attempts after the first one; None: without end."""


class StepConfig(Struct, gc=False):
    retries: Retries | None = None


class Step(Struct, gc=False):
    """A step, sleep, wait for an event, rollback, termination, or a type not known today."""

    type: Word | None = None
    name: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    success: bool | None = None
    finished: bool | None = None
    error: Error | None = None
    attempts: list[Attempt] | None = None
    config: StepConfig | None = None

    @property
    def retry_limit(self) -> float | None:
        """Attempts that it may take after its first, +Inf without a limit; None: not known."""
        limit = self.config.retries.limit if self.config and self.config.retries else UNSET
        if isinstance(limit, UnsetType):
            return None
        return inf if limit is None else limit

    @property
    def outcome(self) -> str:
        """`success`, `failure`, or `running` as long as it isn't finished.

        Sleeps and waits say `finished`, since their end may be a plan; others have an end.
        """
        if self.finished is not None:
            if not self.finished:
                return "running"
            return "failure" if self.error is not None or self.success is False else "success"
        if self.end is None or self.success is None:
            return "running"
        return "success" if self.success else "failure"


class Summary(Struct, kw_only=True, rename={"version_id": "versionId"}):
    """An instance without its steps: what `simple=true` answers.

    `queued` names the run: a restart from the start keeps the instance's id and gets a new one. It
    is null until the engine has recorded it.
    """

    queued: datetime | None = None
    status: Word | None = None
    start: datetime | None = None
    end: datetime | None = None
    success: bool | None = None
    error: Error | None = None
    step_count: Count | None = None
    trigger: Trigger | None = None
    version_id: Word | None = None


class Detail(Summary, kw_only=True, rename={"version_id": "versionId"}):
    """An instance with its steps: the full answer."""

    steps: list[Step] | None = None


Result = TypeVar("Result")


class ApiError(Struct):
    code: int | str | None = None
    message: str | None = None

    @classmethod
    def from_text(cls, text: str) -> Self:
        return cls(None, text)


class Row(Struct):
    """An instance in a list. It never names the run: `created_on` stays through a restart."""

    id: str | None = None
    status: Word | None = None
    created_on: datetime | None = None
    started_on: datetime | None = None
    ended_on: datetime | None = None
    modified_on: datetime | None = None
    version_id: Word | None = None
    trigger_source: Word | None = None


class Account(Struct):
    """An account in the list of those that a credential can read."""

    id: str | None = None
    name: str | None = None


class Workflow(Struct):
    """A workflow in a list, or alone; `instances` are the platform's counts by status."""

    name: str | None = None
    instances: dict[Word, Whole] | None = None


class Limits(Struct):
    steps: Whole | None = None


class Concurrency(Struct):
    limit: Whole | None = None


class Version(Struct):
    """A version of a workflow, in a list: the newest first."""

    created_on: datetime | None = None
    limits: Limits | None = None
    concurrency: Concurrency | None = None


class PageInfo(Struct):
    """Where a list goes on. The hosted API gives a cursor, the local engine page numbers."""

    cursor: str | None = None
    page: Whole | None = None
    per_page: Whole | None = None
    total_count: Whole | None = None
    total_pages: Whole | None = None


class Envelope(Struct, Generic[Result]):
    """What every answer comes in. Source: Cloudflare's API reference, any endpoint."""

    result: Result | UnsetType | None = UNSET
    """A list that is null is empty."""
    success: bool | None = None
    errors: list[ApiError] | None = None
    result_info: PageInfo | None = None


def unix(moment: datetime | None) -> float | None:
    """Unix seconds of a time in an answer."""
    return None if moment is None else _utc(moment).timestamp()


def latest(moments: Iterable[datetime | None]) -> datetime | None:
    """The latest of some times in a response; None when there is none."""
    known = [moment for moment in moments if moment is not None]
    try:
        return max(known, default=None)
    except TypeError:  # some have an offset and some have none
        return max(map(_utc, known))


def seconds(start: datetime | None, end: datetime | None) -> float | None:
    """Seconds from `start` to `end`, exact to the microsecond and not below 0."""
    if start is None or end is None:
        return None
    return max(0.0, (_utc(end) - _utc(start)).total_seconds())


def _utc(moment: datetime) -> datetime:
    """A time without an offset is UTC."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
