"""What the pages show, as plain data: accounts, a row for each instance, all details of one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import NamedTuple

from msgspec import Struct

from exporter.clock import Clock, Moment
from exporter.cloudflare.errors import RequestFailed
from exporter.cloudflare.models import TIMERS
from exporter.instances.instance import Instance, Pending
from exporter.instances.timeline import Timeline, unpack
from exporter.instances.values import InstanceValues
from exporter.metrics.catalogue import WorkflowKey
from exporter.state.backend import Replica
from exporter.statuses import MAY_BE_STUCK
from exporter.watch.account_workflows import Attachment
from exporter.watch.watched_account import WatchedAccount

STUCK_AFTER = 3600.0
"""Seconds without a change after which a run is stuck, as in alerts/parameters.yaml."""

ATTENTION = ("errored", "stuck", "failing", "retrying")
"""Instances that need attention, most urgent first; failing: the last poll failed."""


_NOT_SEEN, _NOT_FOUND = InstanceValues("not seen", "", ""), InstanceValues("not found", "", "")
"""In place of the values of an instance that has none."""


class WorkflowView(NamedTuple):
    """A workflow with its instances, each of which a poll may change at any time."""

    key: WorkflowKey
    up: bool
    tried: bool
    next_pass: float
    """When the next list pass shows what changed (monotonic clock)."""
    list_failure: RequestFailed | None
    """Why its last list pass failed; None: it succeeded."""
    watched: Sequence[Instance]
    """All of its instances, with series or without."""

    @property
    def name(self) -> str:
        return self.key.workflow

    @property
    def instances(self) -> list[Instance]:
        """The instances with series."""
        return [instance for instance in self.watched if instance.has_series]

    @property
    def failures(self) -> list[RequestFailed]:
        """Why the last polls of instances failed."""
        return [instance.failure for instance in self.watched if instance.failure is not None]


class AccountView(NamedTuple):
    """An account and the budget of its credential, in requests in 5 minutes."""

    name: str
    spent: int
    allowed: int
    limit: int
    remaining: int | None
    """Requests that are left, as of Cloudflare's last response."""
    quota: int | None
    """Requests that Cloudflare allows."""
    blocked_until: float | None
    """Unix time; None: requests are allowed."""
    lag: float
    """Seconds by which the most overdue poll or list pass is late."""
    failure: RequestFailed | None
    """Why its workflows could not be listed the last time; None: they could."""
    workflows: tuple[WorkflowView, ...]
    """First those that aren't up; then by name."""
    elsewhere: Mapping[str, Replica | None]
    """The workflows that aren't watched here, each with the replica that holds it."""


class TableRow(Struct, frozen=True, gc=False):
    """An instance. Times are Unix seconds, durations seconds; None: unknown, or none.

    `gc=False`: thousands are made at once, and hold no references to each other.
    """

    account: str
    workflow: str
    id: str
    status: str
    """As the API has it, or `not seen` and `not found`."""
    attention: str
    """One of `ATTENTION`, or empty."""
    checked_at: float | None
    """When its last poll or list row showed its status."""
    due: float | None
    """When it is polled next."""
    error: str = ""
    step: str = ""
    """The open step with the most attempts; of an errored run, the step it failed at."""
    more_steps: int = 0
    """Further open steps."""
    attempts: int | None = None
    """Attempts of `step` so far."""
    running: float | None = None
    """How long the run took, or has taken so far."""
    changed: float | None = None
    """When its values last changed."""


class Explanation(NamedTuple):
    """All details of an instance, and how they became known. Times are Unix seconds."""

    row: TableRow
    instance: Instance
    now: float
    account_id: str
    requested_at: float | None
    """When the last request for it was made."""
    waits: str
    """What its poll waits for; empty: no poll waits."""
    next_detail: float | None
    """When its steps will be fetched again, at the latest."""
    expires_at: float | None
    timeline: Timeline | None


class Snapshot(NamedTuple):
    """Everything watched, at one moment. `rows` may be called in another thread."""

    now: Moment
    accounts: tuple[AccountView, ...]
    state_problem: str = ""
    """Why the state is not written; empty: it is."""

    def rows(self) -> list[TableRow]:
        """A row for each instance with series."""
        return [
            _row(workflow, instance, self.now)
            for account in self.accounts
            for workflow in account.workflows
            for instance in workflow.instances
        ]


def _row(workflow: WorkflowView, instance: Instance, now: Moment) -> TableRow:
    # Read only once, since a poll may replace it meanwhile.
    known = instance.values
    values = known or (_NOT_FOUND if instance.last_poll.not_found else _NOT_SEEN)
    due = instance.due if instance.configured else min(instance.due, workflow.next_pass)
    steps = values.open_steps
    most = max(steps, key=lambda step: step.attempts, default=None)
    return TableRow(
        *workflow.key,
        instance.id,
        values.status,
        _attention(instance, values, now.unix),
        checked_at=_unix(instance.checked_at, now),
        due=_unix(due, now),
        error=values.error_name or "",
        step=(most.name if most else values.error_step) or "",
        more_steps=max(0, len(steps) - 1),
        attempts=most.attempts if most else None,
        running=_running(values, now.unix),
        changed=instance.last_change if known else None,
    )


def _unix(moment: float | None, now: Moment) -> float | None:
    """Unix time of a moment on the monotonic clock."""
    if moment is None or not isfinite(moment):
        return None
    return now.unix - now.monotonic + moment


def _running(values: InstanceValues, now: float) -> float | None:
    if values.ended:
        return values.run_duration
    return None if values.start is None else max(0.0, now - values.start)


def _attention(instance: Instance, values: InstanceValues, now: float) -> str:
    if values.status == "errored":
        return "errored"
    unchanged = now - instance.last_change
    idle = any(step.type in TIMERS for step in values.open_steps)
    if values.status in MAY_BE_STUCK and not idle and unchanged > STUCK_AFTER:
        return "stuck"
    if instance.failure is not None:
        return "failing"
    return "retrying" if any(step.attempts > 1 for step in values.open_steps) else ""


@dataclass(eq=False)
class WatchView:
    """Makes snapshots of what is watched. Only the instances in a snapshot still change.

    Attributes:
        accounts: The watched accounts; their owner may change the list.
        clock: The time.
        state_problem: Returns that of a snapshot.
    """

    accounts: Sequence[WatchedAccount]
    clock: Clock
    state_problem: Callable[[], str] = str

    def snapshot(self) -> Snapshot:
        """Everything watched, now."""
        accounts = tuple(map(self._account, self.accounts))
        return Snapshot(self.clock.now(), accounts, self.state_problem())

    def explain(self, label: str, workflow: str, instance_id: str) -> Explanation | None:
        """All details of an instance; None if it isn't watched or has no series.

        Args:
            label: The account's, as metrics have it.
        """
        account = next((a for a in self.accounts if a.workflows.label == label), None)
        attached = account.workflows.attached.get(workflow) if account else None
        instance = attached.watched.instances.get(instance_id) if attached else None
        if not (account and attached and instance and instance.has_series):
            return None
        settings, now = account.workflows.settings, self.clock.now()
        request = instance.last_poll.request
        refresh = instance.detailed_at + settings.poll.detail_refresh
        return Explanation(
            row=_row(_workflow(account, attached), instance, now),
            instance=instance,
            now=now.unix,
            account_id=settings.account.account_id or "",
            requested_at=_unix(request.at if request else None, now),
            waits=_waits(instance),
            next_detail=_unix(max(refresh, instance.detail_after), now) if instance.live else None,
            expires_at=_unix(instance.expires_at, now),
            timeline=None if instance.timeline is None else unpack(instance.timeline),
        )

    def _account(self, account: WatchedAccount) -> AccountView:
        workflows, now = account.workflows, self.clock.now().unix
        budget = workflows.queue.budget
        watched = (_workflow(account, attached) for attached in workflows.attached.values())
        return AccountView(
            workflows.label,
            spent=budget.spent,
            allowed=int(budget.allowed),
            limit=budget.limit,
            remaining=budget.remaining,
            quota=budget.quota,
            blocked_until=now + budget.blocked if budget.blocked else None,
            lag=account.lag,
            failure=workflows.list_failure,
            workflows=tuple(sorted(watched, key=lambda w: (w.up, w.name))),
            elsewhere=workflows.elsewhere,
        )


def _workflow(account: WatchedAccount, attached: Attachment) -> WorkflowView:
    poller, watched = attached.poller, attached.watched
    next_pass = inf if attached.discovery is None else account.next_pass
    instances = [*watched.instances.values()]
    failure = watched.passes.failure
    return WorkflowView(watched.key, poller.up, poller.tried, next_pass, failure, instances)


def _waits(instance: Instance) -> str:
    match instance.activity:
        case None:
            return ""
        case Pending(urgency=urgency):
            return f"waits for the request budget, as {urgency.name.lower()}"
        case _:
            return "in progress"
