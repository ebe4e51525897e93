"""What the log reports of an account and of the polls of its workflows: each problem once when it
begins, and once when it is over."""

import logging
from collections.abc import Collection, Iterable, Sequence

import structlog

from exporter.clock import Clock
from exporter.cloudflare.errors import RequestFailed
from exporter.instances.instance import Instance
from exporter.log_dedup import OpenProblems, Throttle
from exporter.metrics.catalogue import WorkflowKey

log = structlog.get_logger(__name__)


class PollLog:
    """Reports the problems of one workflow.

    Args:
        key: The workflow.
        throttle: Shared by the account's workflows: what all of them fail with is logged for one.
    """

    def __init__(self, key: WorkflowKey, throttle: Throttle) -> None:
        self.in_list: bool | None = None
        """Whether the account's list has the workflow; None: the list was not read since polls or
        list passes say that the workflow doesn't exist."""
        self._problems = OpenProblems(throttle)
        self._throttle = throttle
        self._absent: set[str] = set()
        """Configured instances that were reported not to exist."""
        self._log = log.bind(account=key.account, workflow=key.workflow)

    def failing(
        self, polls: Iterable[tuple[str, RequestFailed]], list_pass: RequestFailed | None
    ) -> None:
        """Reports the failing polls, each with its instance, and the failure of the list pass. That
        the workflow doesn't exist is left to the account's list, unless that has it."""
        problems: dict[str, tuple[RequestFailed, list[str]]] = {}
        for instance_id, failure in polls:
            problems.setdefault(failure.reason, (failure, []))[1].append(instance_id)
        if list_pass is not None:
            problems[f"list {list_pass.reason}"] = (list_pass, [])
        missing = {p for p in problems if p.endswith("workflow_not_found")}
        if not missing:
            self.in_list = None
        reported = problems.keys() if self.in_list else problems.keys() - missing
        for problem in sorted(self._problems.news(reported)):
            failure, ids = problems[problem]
            self._log.warning(
                f"failed to {'poll' if ids else 'list'} instances; keeping last known values",
                result=failure.reason,
                **({"instances": len(ids), "instance_id": ids[0]} if ids else {}),
                error=str(failure),
                advice=failure.advice,
            )
        if self._problems.over(problems):
            self._log.info("instances can be polled and listed again")

    def absent(self, configured: Iterable[Instance]) -> None:
        """Reports the configured instances that don't exist."""
        unseen = {i.id: i for i in configured if i.values is None or i.expires_at is not None}
        missing = [i for i in unseen.values() if i.last_poll.not_found and i.id not in self._absent]
        for instance in missing:
            if instance.values is not None:
                self._log.info(
                    "instance was deleted; its series will expire", instance_id=instance.id
                )
        if never := [i.id for i in missing if i.values is None]:
            self._log.info(
                "instances not found; will keep checking",
                instances=len(never),
                instance_id=min(never),
                advice="check their ids, unless they are still to be created",
            )
        self._absent = unseen.keys() & {*self._absent, *(i.id for i in missing)}

    def fault(self, instance: Instance, error: Exception) -> None:
        """Reports that a poll failed by a fault of the exporter; to be called in its handler."""
        if self._throttle.may(type(error).__name__):
            self._log.exception("poll failed: a fault of the exporter", instance_id=instance.id)

    def ignored(self, what: str) -> None:
        """Reports that parts of a response were ignored for what they say."""
        if self._throttle.may(f"ignored {what}"):
            _ignored(self._log, first=what)


def _ignored(log: structlog.typing.FilteringBoundLogger, **details: str | int) -> None:
    log.warning(
        "ignored parts of a response that could not be read; the rest is taken",
        **details,
        advice="Cloudflare's API may have changed: check for a newer version of the exporter",
    )


class AccountLog:
    """Reports the problems of an account. It outlives reloads, so that none is reported twice."""

    def __init__(self, label: str, clock: Clock) -> None:
        self.workflows: dict[str, PollLog] = {}
        self._throttle = Throttle(clock)
        self._problems = OpenProblems(Throttle(clock))
        self._unmatched: set[str] = set()
        self._log = log.bind(account=label)

    def ignored(self, endpoint: str, places: Sequence[str]) -> None:
        """Reports that parts of a response could not be read."""
        if self._throttle.may(endpoint):
            _ignored(self._log, endpoint=endpoint, parts=len(places), first=places[0])

    def not_restored(self, workflow: str, error: str) -> None:
        """Reports that the state of a workflow could not be read, so that it isn't watched."""
        if self._throttle.may("state"):
            self._log.warning(
                "failed to restore workflows; will try again, and watch them then",
                workflow=workflow,
                error=error,
                advice="check the database, or the health of state.path's disk",
            )

    def not_attached(self, error: Exception) -> None:
        """Reports that workflows could not be attached by a fault of the exporter; to be called in
        its handler."""
        if self._throttle.may(f"attach {type(error).__name__}"):
            self._log.exception("failed to attach workflows; will try again")

    def pass_failed(self, error: Exception) -> None:
        """Reports that a list pass failed by a fault of the exporter; to be called in its
        handler."""
        if self._throttle.may(f"pass {type(error).__name__}"):
            self._log.exception("list pass failed for an unknown reason")

    def of(self, key: WorkflowKey) -> PollLog:
        """What reports the problems of a workflow."""
        return self.workflows.setdefault(key.workflow, PollLog(key, self._throttle))

    def drop_others(self, names: Collection[str]) -> None:
        """Drops what was reported of workflows other than these."""
        for name in self.workflows.keys() - names:
            del self.workflows[name]

    def unmatched(self, names: set[str], listed: Collection[str]) -> None:
        """Reports that no workflow matches these configured names, or that one is there now. The
        account's list has those that are `listed`."""
        for name in sorted(names - self._unmatched):
            self._log.warning(
                "no workflow matches this name; will keep checking",
                workflow=name,
                advice="check the name and account_id",
            )
        for name in sorted(self._unmatched.intersection(listed)):
            self._log.info("workflow found", workflow=name)
        self._unmatched = names
        for name, workflow in self.workflows.items():
            workflow.in_list = name in listed

    def listed(self, failure: RequestFailed | None, *, matters: bool) -> None:
        """Reports whether the account's workflows could be listed.

        Args:
            failure: Why they could not; None: they could.
            matters: Whether anything that is watched depends on the list.
        """
        problems = [failure.reason] if failure else []
        for workflow in self.workflows.values():
            if failure is not None and workflow.in_list is None:
                workflow.in_list = True  # as far as is known
        if failure is not None and self._problems.news(problems):
            self._log.log(
                logging.WARNING if matters else logging.DEBUG,
                "failed to list the account's workflows; still watching those known",
                result=failure.reason,
                error=str(failure),
                advice=failure.advice,
            )
        elif self._problems.over(problems):
            self._log.log(
                logging.INFO if matters else logging.DEBUG,
                "the account's workflows can be listed again",
            )
