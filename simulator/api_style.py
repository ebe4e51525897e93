"""How responses of the hosted API and of the local engine differ in details."""

from typing import Literal

from msgspec import Struct


class Style(Struct, frozen=True):
    """How the responses of a world are written.

    Args:
        hosted_fields: `success`, `trigger`, `versionId`, `event_type` and the full list rows;
            the local engine has none of them.
        waiting: a sleeping or waiting instance is `waiting`; on the local engine `running`.
        planned_ends: an unfinished sleep or wait has its planned end instead of null.
        termination_steps: a terminated instance has a `termination` step.
        rollbacks: a run that rolls back shows it, in its status and by `rollback` steps.
        running_attempts: whether an attempt that runs is listed, with `end: null`.
        modified_on: what moves it: a change of status, or of any step or attempt as well.
            Cloudflare doesn't document which.
    """

    hosted_fields: bool = True
    waiting: bool = True
    planned_ends: bool = True
    termination_steps: bool = True
    rollbacks: bool = True
    running_attempts: bool = True
    modified_on: Literal["status", "step"] = "status"


HOSTED = Style()
LOCAL_ENGINE = Style(
    hosted_fields=False,
    waiting=False,
    planned_ends=False,
    termination_steps=False,
    rollbacks=False,
)
