"""What the watch knows, as plain data for people: accounts, a row an instance, and why of one."""

from collections.abc import Mapping, Sequence
from math import inf, isfinite
from typing import NamedTuple

from msgspec import Struct

from exporter.clock import Clock
from exporter.config.settings import Poll
from exporter.statuses import MAY_BE_STUCK
from exporter.watch.account import Account
from exporter.watch.fingerprints import Change
from exporter.watch.instance import Instance
from exporter.watch.poll_queue import Urgency
from exporter.watch.poller import Poller
from exporter.watch.sink import WorkflowKey
from exporter.watch.step_timeline import Timeline, unpack
from exporter.watch.tracker import InstanceValues

STUCK_AFTER = 3600.0
"""Seconds without progress after which a run is called stuck, as in alerts/parameters.yaml."""
_RESTING = frozenset({"sleep", "waitForEvent"})

ATTENTION = ("errored", "stuck", "failing", "retrying")
"""What needs a person first, in that order. failing: looks at the instance fail."""


class WorkflowView(NamedTuple):
    """A workflow. `failure` is the class of what is wrong, `advice` what to do about it."""

    name: str
    up: bool
    tried: bool
    instances: int
    failing: int
    failure: str
    advice: str


class AccountView(NamedTuple):
    """An account and the budget of its credential; calls are those in 5 minutes."""

    name: str
    spent: int
    allowed: int
    limit: int
    remaining: int | None
    """As Cloudflare last told."""
    quota: int | None
    blocked_until: float | None
    """Unix time; None while calls are made."""
    lag: float
    """Seconds that the oldest look or sweep is behind its plan."""
    workflows: tuple[WorkflowView, ...]


class InstanceRow(Struct, frozen=True, gc=False):
    """An instance. Times are Unix seconds, durations seconds; None: not known, or none.

    Thousands are made at once, and the garbage collector needn't look at them each time.
    """

    account: str
    workflow: str
    id: str
    status: str
    """As the API has it, or `not seen` and `not found`."""
    attention: str
    """One of `ATTENTION`, or empty."""
    error: str
    step: str
    """The step that is open, the first of several; of an errored run, the one it failed at."""
    more_steps: int
    """Further open steps."""
    attempts: int | None
    """Of the open step with the most of them."""
    running: float | None
    changed: float | None
    checked_at: float | None
    due: float | None
    """When it is looked at next."""


class Explanation(NamedTuple):
    """All that is known of an instance, and how. Times are Unix seconds."""

    row: InstanceRow
    values: InstanceValues | None
    configured: bool
    account_id: str
    last_request: tuple[float, str, str] | None
    """The last call on it: when, its kind, and why."""
    failure: str
    advice: str
    changes: tuple[Change, ...]
    waits: str
    """What the next look waits for; empty when it waits for its time."""
    next_detail: float | None
    """When its steps are fetched anew at the latest."""
    expires_at: float | None
    timeline: Timeline | None


class Snapshot(NamedTuple):
    """The watch at one moment; `rows` can be made of it in another thread."""

    wall: float
    monotonic: float
    accounts: tuple[AccountView, ...]
    watched: tuple[tuple[WorkflowKey, float, Sequence[Instance]], ...]
    """Workflows with the next sweep over each and their instances."""

    def rows(self) -> list[InstanceRow]:
        """A row for each instance that is shown."""
        return [
            self._row(key, instance, sweep)
            for key, sweep, instances in self.watched
            for instance in instances
            if instance.shown
        ]

    def row(self, key: WorkflowKey, instance: Instance) -> InstanceRow:
        """The row of one instance."""
        sweep = next((sweep for k, sweep, _ in self.watched if k == key), inf)
        return self._row(key, instance, sweep)

    def unix(self, moment: float) -> float | None:
        """Unix time of a moment on the monotonic clock."""
        return self.wall - self.monotonic + moment if isfinite(moment) else None

    def _row(self, key: WorkflowKey, instance: Instance, sweep: float) -> InstanceRow:
        # Read once: the watch goes on, and may put new ones in their place.
        values = instance.values
        due = instance.due if instance.configured else min(instance.due, sweep)
        if values is None:
            status = "not found" if instance.not_found else "not seen"
            return InstanceRow(
                *key,
                instance.id,
                status,
                attention="failing" if instance.failure else "",
                error="",
                step="",
                more_steps=0,
                attempts=None,
                running=None,
                changed=None,
                checked_at=self.unix(instance.checked_at),
                due=self.unix(due),
            )
        steps = values.open_steps
        most = max(steps, key=lambda step: step.attempts, default=None)
        return InstanceRow(
            *key,
            instance.id,
            values.status,
            attention=self._attention(instance, values),
            error=values.error_name or "",
            step=(most.name if most else values.error_step) or "",
            more_steps=max(0, len(steps) - 1),
            attempts=most.attempts if most else None,
            running=self._running(values),
            changed=instance.last_change,
            checked_at=self.unix(instance.checked_at),
            due=self.unix(due),
        )

    def _running(self, values: InstanceValues) -> float | None:
        if values.ended:
            return values.run_duration
        return None if values.start is None else max(0.0, self.wall - values.start)

    def _attention(self, instance: Instance, values: InstanceValues) -> str:
        if values.status == "errored":
            return "errored"
        still = self.wall - instance.last_change
        resting = any(step.type in _RESTING for step in values.open_steps)
        if values.status in MAY_BE_STUCK and not resting and still > STUCK_AFTER:
            return "stuck"
        if instance.failure is not None:
            return "failing"
        return "retrying" if any(step.attempts > 1 for step in values.open_steps) else ""


class WatchView:
    """Reads the watch. What it gives holds nothing that changes later on but instances.

    Args:
        accounts: Those watched; a list that the owner may change.
        account_ids: Cloudflare's id of an account, by its name on `/metrics`.
    """

    def __init__(
        self,
        accounts: Sequence[Account],
        account_ids: Mapping[str, str],
        *,
        poll: Poll,
        clock: Clock,
    ) -> None:
        self._accounts = accounts
        self._ids = account_ids
        self._poll = poll
        self._clock = clock

    def configure(self, account_ids: Mapping[str, str], *, poll: Poll) -> None:
        """Goes on as another configuration says."""
        self._ids, self._poll = account_ids, poll

    def snapshot(self) -> Snapshot:
        """The watch now."""
        return Snapshot(
            self._clock.wall(),
            self._clock.monotonic(),
            tuple(map(self._account, self._accounts)),
            tuple(
                (
                    poller.key,
                    account.next_pass if name in account.discoveries else inf,
                    list(poller.instances.values()),
                )
                for account in self._accounts
                for name, poller in account.pollers.items()
            ),
        )

    def explain(self, account: str, workflow: str, instance_id: str) -> Explanation | None:
        """An instance; None when it isn't watched."""
        key = WorkflowKey(account, workflow)
        instance = next(
            (
                poller.instances[instance_id]
                for watched in self._accounts
                for poller in watched.pollers.values()
                if poller.key == key and instance_id in poller.instances
            ),
            None,
        )
        if instance is None or not instance.shown:
            return None
        now = self.snapshot()
        look, failure = instance.last_request, instance.failure
        when = now.unix(look.at) if look else None
        refresh = max(instance.detailed_at + self._poll.detail_refresh, instance.detail_after)
        expires_at = instance.expires_at
        return Explanation(
            row=now.row(key, instance),
            values=instance.values,
            configured=instance.configured,
            account_id=self._ids.get(account, ""),
            last_request=(when, look.kind, look.why.value) if look and when is not None else None,
            failure=failure.reason if failure else "",
            advice=failure.advice if failure else "",
            changes=instance.changed,
            waits=_waits(instance),
            next_detail=now.unix(refresh) if instance.live else None,
            expires_at=None if expires_at is None else now.unix(expires_at),
            timeline=None if instance.timeline is None else unpack(instance.timeline),
        )

    def _account(self, account: Account) -> AccountView:
        budget, now = account.budget, self._clock.wall()
        pollers = account.pollers.values()
        lags = [account.queue.lag, *(poller.lag() for poller in pollers)]
        if account.discoveries:
            lags.append(account.lag)
        return AccountView(
            account.label,
            spent=budget.spent,
            allowed=int(budget.allowed),
            limit=budget.limit,
            remaining=budget.remaining,
            quota=budget.quota,
            blocked_until=now + budget.blocked if budget.blocked else None,
            lag=max(lags),
            workflows=tuple(map(_workflow, pollers)),
        )


def _workflow(poller: Poller) -> WorkflowView:
    failing = [i.failure for i in poller.instances.values() if i.failure is not None]
    failure = poller.pass_failure or (failing[0] if failing else None)
    return WorkflowView(
        poller.key.workflow,
        up=poller.up,
        tried=poller.tried,
        instances=sum(i.shown for i in poller.instances.values()),
        failing=len(failing),
        failure=failure.reason if failure else "",
        advice=failure.advice if failure else "",
    )


def _waits(instance: Instance) -> str:
    if not instance.busy:
        return ""
    if instance.waits is None:
        return "under way"
    return f"waits for its turn at the budget, as {Urgency(instance.waits).name.lower()}"
