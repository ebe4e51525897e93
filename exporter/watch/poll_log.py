"""What the log says of polls: each problem once, and once that it is over."""

from collections.abc import Iterable

import structlog

from exporter.clock import Clock
from exporter.cloudflare.errors import RequestFailed
from exporter.log_dedup import OpenProblems, Throttle
from exporter.watch.instance import Instance
from exporter.watch.sink import WorkflowKey

log = structlog.get_logger(__name__)

_NO_WORKFLOW = "workflow_not_found"


class PollLog:
    """What was reported of one workflow, and what is news."""

    def __init__(self, key: WorkflowKey, clock: Clock) -> None:
        self._problems = OpenProblems(clock)
        self._faults = Throttle(clock)
        self._absent: set[str] = set()
        """Configured instances that were reported not to exist."""
        self._log = log.bind(account=key.account, workflow=key.workflow)

    def failing(
        self,
        polls: Iterable[tuple[str, RequestFailed]],
        list_pass: RequestFailed | None,
        *,
        unmatched: bool,
    ) -> None:
        """The polls that fail now, by instance, and the failure of the list pass.

        Where the workflow is `unmatched`, it was reported already that the account has none of its
        name, and nothing else is reported of it.
        """
        reported = _NO_WORKFLOW if unmatched else None
        problems: dict[str, tuple[RequestFailed, list[str]]] = {}
        for instance_id, failure in polls:
            if failure.reason != reported:
                problems.setdefault(failure.reason, (failure, []))[1].append(instance_id)
        if list_pass is not None and list_pass.reason != reported:
            problems[f"list {list_pass.reason}"] = (list_pass, [])
        news = self._problems.news(problems)
        for problem, (failure, ids) in problems.items():
            if problem in news:
                self._log.warning(
                    f"failed to {'poll' if ids else 'list'} instances; keeping last known values",
                    result=failure.reason,
                    **({"instances": len(ids), "instance_id": ids[0]} if ids else {}),
                    error=str(failure),
                    advice=failure.advice,
                )
        if self._problems.over(problems):
            self._log.info("polls of instances succeed again")

    def absent(self, instances: Iterable[Instance]) -> None:
        """These configured instances have no values, or theirs expire."""
        unseen = {instance.id: instance for instance in instances}
        missing = (i for i in unseen.values() if i.last_poll.not_found and i.id not in self._absent)
        never: list[str] = []
        for instance in missing:
            self._absent.add(instance.id)
            if instance.values is None:
                never.append(instance.id)
            else:
                self._log.info(
                    "instance was deleted; its series will expire", instance_id=instance.id
                )
        if never:
            self._log.info(
                "instances not found; will keep checking",
                instances=len(never),
                instance_id=never[0],
                advice="check their ids, unless they are still to be created",
            )
        self._absent &= unseen.keys()

    def fault(self, instance: Instance, error: Exception) -> None:
        """A poll failed by a fault of the exporter. To be called where it is handled."""
        if self._faults.may(type(error).__name__):
            self._log.exception("poll failed: a fault of the exporter", instance_id=instance.id)
