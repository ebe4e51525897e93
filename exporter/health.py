"""Whether the exporter makes progress (if not, Kubernetes restarts it), and when it is ready."""

import asyncio
from collections.abc import Iterator
from itertools import count

import structlog

from exporter.clock import Clock
from exporter.cloudflare.replica_budgets import WINDOW
from exporter.log_dedup import Throttle
from exporter.state.writer import StateWriter
from exporter.watch.watched_accounts import WatchedAccounts

log = structlog.get_logger(__name__)

_EVERY = 1.0
"""Seconds between two checks."""
_STALL = 5.0
"""Seconds for which the event loop may be busy with one thing, or stopped, before that is
logged."""
_REQUESTS = 2 * WINDOW
"""Seconds without a response, although there are requests to make and nothing forbids them, after
which the exporter is unhealthy."""
_LATE = 60
"""Seconds by which polls may be overdue before that is logged; also those between two checks of
it."""
_WRITE = 60.0
"""Seconds that a write to the disk may take before the exporter is unhealthy."""


class Health:
    """Finds what has made no progress for too long.

    Args:
        watched: The watched accounts.
        writer: Writes the state.
        clock: The time.
    """

    def __init__(self, watched: WatchedAccounts, writer: StateWriter, clock: Clock) -> None:
        self._watched, self._accounts = watched, watched.accounts
        self._writer = writer
        self._clock = clock
        self._reported: set[str] = set()
        self._throttle = Throttle(clock)
        self._was_ready = self._was_late = False

    def unhealthy(self) -> list[str]:
        """What has stalled: a line for each, which begins with its name."""
        return [f"{name}: {what}" for name, what in self._stalled()]

    def unready(self) -> list[str]:
        """Why the exporter isn't ready: what wasn't polled yet, that nothing can be read, or that
        the results aren't on `/metrics` yet.

        Once it was ready, it stays ready: what is added later takes nothing away.
        """
        if self._was_ready:
            return []
        if unpolled := self._watched.unpolled():
            return unpolled
        if not any(account.readable for account in self._accounts):
            return [
                f"{a.workflows.label}: nothing can be read; the log says why"
                for a in self._accounts
            ]
        if not self._writer.first_polls_shown:
            return ["state: the results of the first polls aren't committed yet"]
        self._was_ready = True
        return []

    def _stalled(self) -> Iterator[tuple[str, str]]:
        now = self._clock.monotonic()
        for account in self._accounts:
            workflows = account.workflows
            settings, queue = workflows.settings, workflows.queue
            interval = settings.poll.interval
            for name, attached in workflows.attached.items():
                since = now - attached.poller.round_started
                if since > 3 * interval + settings.api.timeout:
                    about = f"{workflows.label}/{name}"
                    due = f"one is due every {interval}"
                    yield "scheduler", f"no round over {about} for {since:.0f} s; {due}"
            # Nothing can be done while Cloudflare allows no requests, so time counts from there.
            blocked_until = queue.budget.blocked_until
            since = now - max(queue.progress_at, blocked_until)
            if (len(queue) or queue.under_way) and since > _REQUESTS:
                left = f"{queue.under_way} are under way, {len(queue)} wait"
                yield "poller", f"no poll of {workflows.label} ended for {since:.0f} s; {left}"
            since = now - max(account.progress_at, blocked_until)
            if account.next_pass < now and since > _REQUESTS:
                yield "lists", f"no list of {workflows.label} was read for {since:.0f} s"
        began = self._writer.writes_since
        # No exchange with a database is without end, and a restart makes a slow one no faster.
        if began is not None and now - began > _WRITE and not self._writer.leases.shared:
            yield "state", f"a write to the disk has taken {now - began:.0f} s"

    async def watch(self) -> None:
        """Logs what has stalled, and stalls of the event loop. Never returns."""
        for seconds in count():
            before = self._clock.monotonic()
            await asyncio.sleep(_EVERY)
            self.check(stalled_for=self._clock.monotonic() - before - _EVERY)
            if seconds % _LATE == 0:
                self.warn_if_late()

    def check(self, *, stalled_for: float = 0.0) -> None:
        """Logs what has stalled since the last check, and what makes progress again.

        Args:
            stalled_for: Seconds for which the event loop did nothing at all.
        """
        if stalled_for > _STALL and self._throttle.may("stalled"):
            log.warning(
                "event loop stalled; resuming",
                seconds=round(stalled_for),
                advice="it was stopped, or lacks CPU: check its limits and the load of the machine",
            )
        stalled = dict(self._stalled())
        for name, what in stalled.items():
            if name not in self._reported:
                log.error("no progress", part=name, what=what)
        for name in self._reported - stalled.keys():
            log.info("progress again", part=name)
        self._reported = set(stalled)

    def warn_if_late(self) -> None:
        """Logs, but not too often, that polls are overdue, why, and what would help; and once that
        they are no longer."""
        late = [
            account
            for account in self._accounts
            if account.lag >= max(_LATE, 4 * account.workflows.settings.poll.interval)
        ]
        if not late:
            if self._was_late:
                log.info("polls are on time again")
            self._was_late = False
            return
        if not self._throttle.may("late"):
            return
        self._was_late = True
        queues = {account.workflows.queue for account in late}
        needed = round(sum(map(self._watched.needed, queues)))
        allowed = round(sum(queue.budget.allowed for queue in queues))
        small = needed > allowed
        log.warning(
            f"{'the budget is too small' if small else 'requests are slow or refused'}; "
            "polls are overdue",
            lag=f"{max(account.lag for account in late):.0f}s",
            requests_needed_in_5m=needed,
            requests_allowed_in_5m=allowed,
            advice=(
                "raise poll.interval, watch fewer workflows or configured instances, raise "
                "api.requests_per_5m, or use a token whose rate limit no other tool uses"
                if small
                else "check Cloudflare's status page and the network, and whether other tools use "
                "up the token's rate limit"
            ),
        )
