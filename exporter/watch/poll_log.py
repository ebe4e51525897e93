"""What the log tells of looks at instances: each trouble once, and once that it is over."""

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
    """What was told of one workflow, and what is news."""

    def __init__(self, key: WorkflowKey, clock: Clock) -> None:
        self._troubles = OpenProblems(clock)
        self._faults = Throttle(clock)
        self._absent: set[str] = set()
        """Configured instances of which it was told that they aren't there."""
        self._log = log.bind(account=key.account, workflow=key.workflow)

    def failing(
        self, instances: Iterable[Instance], sweep: RequestFailed | None, *, unmatched: bool
    ) -> None:
        """Polls of these instances fail now, and perhaps the list pass.

        Where the workflow is `unmatched`, the log says already that the account has none of its
        name, and that is all there is to say of it.
        """
        reported = _NO_WORKFLOW if unmatched else None
        troubles: dict[str, tuple[RequestFailed, dict[str, object]]] = {}
        for instance in instances:
            if instance.failure is not None and instance.failure.reason != reported:
                name = instance.failure.reason
                _, about = troubles.setdefault(
                    name, (instance.failure, {"instance_id": instance.id, "instances": 0})
                )
                about["instances"] = int(str(about["instances"])) + 1
        if sweep is not None and sweep.reason != reported:
            troubles[f"list {sweep.reason}"] = (sweep, {})
        news = self._troubles.news(troubles)
        for trouble, (failure, about) in troubles.items():
            if trouble in news:
                self._log.warning(
                    "looks at instances fail; their last known figures stay"
                    if about
                    else "lists of instances can't be had; their last known figures stay",
                    result=failure.reason,
                    **about,
                    error=str(failure),
                    advice=failure.advice,
                )
        if self._troubles.over(troubles):
            self._log.info("looks at instances succeed again")

    def absent(self, instances: Iterable[Instance]) -> None:
        """These configured instances don't exist; in one line, if it is news."""
        unseen = {instance.id: instance for instance in instances}
        news = [i for i, instance in unseen.items() if instance.not_found and i not in self._absent]
        if news:
            self._log.info(
                "instances are not there yet, looking for them on",
                instances=len(news),
                instance_id=news[0],
                advice="check their ids, unless they are still to be created",
            )
        self._absent = self._absent.union(news).intersection(unseen)

    def gone(self, instance: Instance) -> None:
        """A configured instance was there, and the API says that it doesn't exist."""
        self._log.info("instance was deleted; its series will expire", instance_id=instance.id)
        self._absent.add(instance.id)

    def fault(self, instance: Instance, error: Exception) -> None:
        """A look failed by a fault of ours. To be called where it is handled."""
        if self._faults.may(type(error).__name__):
            self._log.exception("look failed for an unknown reason", instance_id=instance.id)
