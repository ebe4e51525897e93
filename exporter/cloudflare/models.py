"""The API's responses as structs: instances with their steps, rows of lists, the envelope.

Source: "Get logs and status from instance" in Cloudflare's API reference, and responses of the real
engine. Enumerations are plain strings, and fields that are not declared here (params and outputs
among them) are skipped without being built, so that new values and fields are no errors. Every
field is optional: an invalid one counts as absent (`lenient_decoder.py`). An error's message is
read only to find the step at which an instance failed; it is customers' data and is never shown.
Times stay as they were sent until `correct_times` is called. After that, each has an offset, and
has either passed or is a planned end.

A detail response holds up to 25,000 steps: `gc=False` on its structs, which never refer back to
themselves, halves the time to decode it.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from math import inf
from typing import Annotated, Generic, Self, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType

from exporter.cloudflare.times import LAST, are_correct, correct, latest, unix

Name = Annotated[str, Meta(max_length=100)]
"""A value that the platform chooses. It may not be known today; a longer one is invalid."""
WorkflowName = Annotated[Name, Meta(pattern=r"^[^\0]+$")]
"""It becomes a part of keys in the state. PostgreSQL takes neither NUL nor kilobytes there, and
refuses everything else that is written with it."""
Count = Annotated[float, Meta(ge=0, le=1e9)]
Integer = Annotated[int, Meta(ge=0, le=2**53)]
TIMERS = frozenset({"sleep", "waitForEvent"})
"""Types of steps that run no code of the workflow's: they have no attempts."""
AFTERMATH = frozenset({"rollback", "termination"})
"""Types of steps that come after a run has failed or was terminated."""
_NAMED_ERROR = re.compile(
    r"((?:[A-Za-z_$][\w$]{0,90})?(?:Error|Exception)): (.*)", re.ASCII | re.DOTALL
)


class Error(Struct, gc=False):
    name: str | None = None
    message: str | None = None

    @classmethod
    def from_text(cls, text: str) -> Self | None:
        """An error from `Name: message`, as older responses have it, or from a message alone. An
        empty text is no error.

        Names become labels, so a text is taken for one only if it looks like the name of an error.
        """
        if named := _NAMED_ERROR.fullmatch(text):
            return cls(*named.groups())
        return cls(None, text) if text else None


class Trigger(Struct):
    source: Name | None = None


class Attempt(Struct, gc=False):
    start: datetime | None = None
    end: datetime | None = None
    success: bool | None = None
    error: Error | None = None

    @property
    def outcome(self) -> str:
        """`success`, `failure`, or `running` until it has an end."""
        if self.success is None or self.end is None:
            return "running"
        return "success" if self.success else "failure"


class Retries(Struct, gc=False):
    limit: Count | UnsetType | None = UNSET
    """Attempts after the first one; None: no limit."""


class StepConfig(Struct, gc=False):
    retries: Retries | None = None


class Step(Struct, gc=False):
    """A step, sleep, wait for an event, rollback, termination, or a type not known today."""

    type: Name | None = None
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
        """Maximum attempts after the first, +Inf if there is no limit; None: it isn't reported."""
        limit = self.config.retries.limit if self.config and self.config.retries else UNSET
        if isinstance(limit, UnsetType):
            return None
        return inf if limit is None else limit

    @property
    def ordered_attempts(self) -> Sequence[Attempt]:
        """Its attempts in the order of their starts, or as listed if any lacks its start. The place
        in this order is the number of an attempt."""
        attempts = self.attempts or ()
        if len(attempts) < 2 or any(attempt.start is None for attempt in attempts):
            return attempts
        return sorted(attempts, key=lambda attempt: unix(attempt.start) or inf)

    @property
    def has_planned_end(self) -> bool:
        """Whether its end may only be planned: that of a sleep or wait may be."""
        return self.finished is not None or self.type in TIMERS

    @property
    def outcome(self) -> str:
        """`success`, `failure`, or `running` until it is finished.

        Sleeps and waits have `finished`, since their end may be in the future; others have an end.
        """
        if self.finished is not None:
            if not self.finished:
                return "running"
            return "failure" if self.error is not None or self.success is False else "success"
        if self.success is None or self.end is None:
            return "running"
        return "success" if self.success else "failure"


class Summary(Struct, kw_only=True, rename={"version_id": "versionId"}):
    """An instance without its steps: the result of a simple request (`simple=true`).

    `queued` identifies the run: a restart from the start has the same id and a new `queued`. It is
    null until the engine has recorded it.
    """

    queued: datetime | None = None
    status: Name | None = None
    start: datetime | None = None
    end: datetime | None = None
    error: Error | None = None
    step_count: Count | None = None
    trigger: Trigger | None = None
    version_id: Name | None = None

    def correct_times(self, limit: datetime) -> int:
        """Drops times that stand for none, and times after a limit, which can't have passed.
        Returns the number of the latter."""
        return correct(self, limit, "queued", "start", "end")


class Detail(Summary, kw_only=True, rename={"version_id": "versionId"}):
    """An instance with its steps: the result of a detail request."""

    steps: list[Step] | None = None

    @property
    def newest(self) -> datetime | None:
        """The latest time in the response that must have passed."""
        return latest(self._passed())

    def _passed(self) -> list[datetime | None]:
        """The times that must have passed: all but ends that may only be planned."""
        moments = [self.queued, self.start, self.end]
        for step in self.steps or ():
            moments += (step.start, None if step.has_planned_end else step.end)
            for attempt in step.attempts or ():
                moments += (attempt.start, attempt.end)
        return moments

    def correct_times(self, limit: datetime) -> int:
        steps = self.steps or []
        plans = (step.end for step in steps if step.has_planned_end)
        if are_correct(self._passed(), limit) and are_correct(plans, LAST):
            return 0
        dropped = super().correct_times(limit)
        for step in steps:
            dropped += correct(step, limit, "start")
            dropped += correct(step, LAST if step.has_planned_end else limit, "end")
            for attempt in step.attempts or ():
                dropped += correct(attempt, limit, "start", "end")
        return dropped


Result = TypeVar("Result")


class ApiError(Struct):
    code: int | str | None = None
    message: str | None = None

    @classmethod
    def from_text(cls, text: str) -> Self:
        return cls(None, text)


class Row(Struct):
    """An instance in a list. It doesn't identify the run: `created_on` stays through a restart."""

    id: str | None = None
    status: Name | None = None
    created_on: datetime | None = None
    started_on: datetime | None = None
    ended_on: datetime | None = None
    modified_on: datetime | None = None
    version_id: Name | None = None
    trigger_source: Name | None = None

    def correct_times(self, limit: datetime) -> int:
        """As `Summary.correct_times`."""
        return correct(self, limit, "created_on", "started_on", "ended_on", "modified_on")


class ListedAccount(Struct):
    """An account in the list of those that a credential can read."""

    id: str | None = None
    name: str | None = None


class ListedWorkflow(Struct):
    """A workflow; `instances` are the platform's counts of its instances by status."""

    name: WorkflowName | None = None
    instances: dict[Name, Integer] | None = None


class VersionLimits(Struct):
    steps: Integer | None = None


class Concurrency(Struct):
    limit: Integer | None = None


class WorkflowVersion(Struct):
    """A version of a workflow. Lists have the newest first."""

    created_on: datetime | None = None
    limits: VersionLimits | None = None
    concurrency: Concurrency | None = None


class PageInfo(Struct):
    """Where a list continues: the hosted API sends a cursor, the local engine page numbers."""

    cursor: str | None = None
    page: Integer | None = None
    total_count: Integer | None = None
    total_pages: Integer | None = None


class Envelope(Struct, Generic[Result]):
    """The outermost object of every response. Source: Cloudflare's API reference, any endpoint."""

    result: Result | UnsetType | None = UNSET
    """null stands for an empty list."""
    success: bool | None = None
    errors: list[ApiError] | None = None
    result_info: PageInfo | None = None
