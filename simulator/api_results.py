"""The results in the API's responses at a moment, as plain dicts.

Keys and their order follow the responses of Cloudflare's real engine; what only the hosted API has
follows the types of its official SDK.
"""

from __future__ import annotations

import json
from typing import Any

from .api_style import Style
from .clock import timestamp
from .run_script import Error, Sleep, Step, Wait
from .run_timeline import FATAL, PlayedAttempt, Record
from .world import Account, Instance, Version, Workflow


def instance_detail(
    instance: Instance, at: int, *, simple: bool = False, descending: bool = False
) -> Any:
    """The result of the instance endpoint; a simple one has no `steps`."""
    if instance.result is not None:
        return instance.result
    style = instance.workflow.world.style
    run = instance.run(at)
    timeline = run.timeline
    view = _View(style, run.queued, at)
    now = at - run.queued
    ended = timeline.end <= now
    result: dict[str, Any] = {
        "status": instance.status(at),
        "params": instance.params,
        "queued": timestamp(run.queued),
        "start": view.past(timeline.start),
        "end": view.past(timeline.end),
        "output": timeline.output if ended else None,
        "error": _instance_error(timeline.error) if ended else None,
    }
    records = timeline.records[: timeline.begun(now)]
    if not style.rollbacks:
        records = [record for record in records if record.type != "rollback"]
    if not simple:
        result["steps"] = [view.step(r) for r in (reversed(records) if descending else records)]
    result["step_count"] = len(records)
    if style.hosted_fields:
        result["success"] = timeline.final == "complete" if ended else None
        result["trigger"] = {"source": instance.trigger}
        result["versionId"] = instance.version
        if instance.schedule is not None:
            result["schedule"] = instance.schedule
        if ended and timeline.rolled_back:
            failure = timeline.rollback_error
            result["rollback"] = {
                "outcome": "failed" if failure else "complete",
                "error": _error(failure),
            }
    if instance.patch is not None:
        changed = instance.patch(result)
        return result if changed is None else changed
    return result


def instance_row(instance: Instance, at: int) -> dict[str, Any]:
    """The instance as a row of a list."""
    style = instance.workflow.world.style
    row: dict[str, Any] = {
        "id": instance.id,
        "status": instance.status(at),
        "created_on": timestamp(instance.created),
    }
    if style.hosted_fields:
        run = instance.run(at)
        timeline = run.timeline
        now = max(0, at - run.queued)
        view = _View(style, run.queued, at)
        by_status = style.modified_on == "status"
        modified = timeline.last_mark(now) if by_status else timeline.last_move(now)
        row["started_on"] = view.past(timeline.start)
        row["ended_on"] = view.past(timeline.end)
        row["modified_on"] = timestamp(run.queued + modified)
        row["version_id"] = instance.version
        row["workflow_id"] = instance.workflow.id
        row["trigger_source"] = instance.trigger
    if instance.patch_row is not None:
        changed = instance.patch_row(row)
        return row if changed is None else changed
    return row


def account_result(account: Account) -> dict[str, Any]:
    """An account in the list of accounts."""
    return {
        "id": account.id,
        "name": account.name,
        "type": "standard",
        "settings": {"enforce_twofactor": False, "abuse_contact_email": None},
        "created_on": timestamp(account.created),
    }


def workflow_result(workflow: Workflow, at: int) -> dict[str, Any]:
    """The workflow with the platform's own counts of instances by status."""
    result: dict[str, Any] = {
        "name": workflow.name,
        "class_name": workflow.class_name,
        "script_name": workflow.script_name,
        "instances": workflow.counts(at),
    }
    if workflow.world.style.hosted_fields:
        triggered = workflow.triggered
        result["id"] = workflow.id
        result["created_on"] = timestamp(workflow.created)
        result["modified_on"] = timestamp(workflow.modified)
        result["triggered_on"] = None if triggered is None else timestamp(triggered)
    return result


def version_result(workflow: Workflow, version: Version) -> dict[str, Any]:
    """A workflow's version with its limits; retention is in milliseconds."""
    result: dict[str, Any] = {
        "id": version.id,
        "class_name": workflow.class_name,
        "created_on": timestamp(version.created),
        "modified_on": timestamp(version.created),
        "workflow_id": workflow.id,
        "has_dag": False,
        "language": "javascript",
    }
    if version.step_limit is not None:
        result["limits"] = {"steps": version.step_limit}
    if version.concurrency is not None:
        result["concurrency"] = {"limit": version.concurrency}
    result["default_retention"] = {
        "success_retention": version.success_retention,
        "error_retention": version.error_retention,
    }
    return result


_FATAL = (
    "The execution of the Workflow instance was terminated, as a step threw an NonRetryableError "
    "and it was not handled"
)


def _error(error: Error | None) -> dict[str, str] | None:
    return None if error is None else {"name": error.name, "message": error.message}


_OF_JAVASCRIPT = frozenset(
    {"Error", "EvalError", "RangeError", "ReferenceError", "SyntaxError", "TypeError", "URIError"}
)


def _instance_error(error: Error | None) -> dict[str, str] | None:
    """The engine keeps the names of JavaScript's own errors, and flattens all others."""
    if error is not None and error.name == FATAL:
        return {"name": error.name, "message": _FATAL}
    if error is None or error.name in _OF_JAVASCRIPT:
        return _error(error)
    return {"name": "Error", "message": f"{error.name}: {error.message}"}


class _View:
    """A cut through a run: `queued` and `at` in milliseconds, records relative to `queued`."""

    def __init__(self, style: Style, queued: int, at: int) -> None:
        self.style = style
        self.queued = queued
        self.now = at - queued

    def time(self, relative: int) -> str:
        return timestamp(self.queued + relative)

    def past(self, relative: int) -> str | None:
        return self.time(relative) if relative <= self.now else None

    def step(self, record: Record) -> dict[str, Any]:
        match record.piece:
            case Step():
                return self.do(record, record.piece)
            case Sleep() | Wait():
                return self.timer(record, record.piece)
            case source:
                return {"type": "termination", "trigger": {"source": source}}

    def do(self, record: Record, step: Step) -> dict[str, Any]:
        ended = record.end <= self.now
        succeeded = ended and record.error is None
        result: dict[str, Any] = {
            "name": record.name,
            "start": self.time(record.start),
            "end": self.past(record.end),
            "success": succeeded if ended else None,
            "type": record.type,
        }
        if succeeded:
            result["output"] = "[REDACTED]" if step.config.sensitive else step.output
        retries: dict[str, Any] = {"limit": step.config.limit}
        if step.config.backoff is not None:
            retries["backoff"] = step.config.backoff
        retries["delay"] = step.config.delay
        result["config"] = {"retries": retries, "timeout": step.config.timeout}
        if step.config.sensitive is not None:
            result["config"]["sensitive"] = step.config.sensitive
        result["attempts"] = [
            self.attempt(a)
            for a in record.attempts
            if a.start <= self.now and (a.end <= self.now or self.style.running_attempts)
        ]
        return result

    def attempt(self, attempt: PlayedAttempt) -> dict[str, Any]:
        ended = attempt.end <= self.now
        return {
            "start": self.time(attempt.start),
            "end": self.past(attempt.end),
            "success": attempt.error is None if ended else None,
            "error": self.attempt_error(attempt.error) if ended else None,
        }

    def attempt_error(self, error: Error | None) -> dict[str, str] | None:
        """The local engine flattens the names of workflows' own errors here, too."""
        flat = error and not self.style.hosted_fields and not error.name.startswith("Workflow")
        return _instance_error(error) if flat else _error(error)

    def timer(self, record: Record, piece: Sleep | Wait) -> dict[str, Any]:
        finished = record.end <= self.now
        end = self.past(record.end)
        if not finished and self.style.planned_ends:
            end = self.time(record.planned)
        result: dict[str, Any] = {
            "name": record.name,
            "start": self.time(record.start),
            "end": end,
            "finished": finished,
            "type": record.type,
            "error": _error(record.error) if finished else None,
        }
        if finished and record.error and not self.style.hosted_fields:
            result["error"]["message"] = ""
        if isinstance(piece, Wait):
            result["output"] = None
            if finished and record.output is not None:
                kind, payload, sent = record.output
                event = {"payload": payload, "type": kind, "timestamp": self.time(sent)}
                # The hosted API's types say that it is a string.
                hosted = self.style.hosted_fields
                result["output"] = json.dumps(event) if hosted else event
            if self.style.hosted_fields:
                result["event_type"] = piece.event_type
        return result
