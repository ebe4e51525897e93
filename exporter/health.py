"""Whether the exporter does its work: what Kubernetes restarts it for, and when it is ready."""

import asyncio
from collections.abc import Iterator, Sequence

import structlog

from exporter.clock import Clock
from exporter.cloudflare.budget import WINDOW
from exporter.config.settings import Settings
from exporter.log_dedup import Throttle
from exporter.state.writer import StateWriter
from exporter.watch.account import Account

log = structlog.get_logger(__name__)

_EVERY = 1.0
_STALL = 5.0
"""Seconds that the event loop may be busy with one thing, or the process be stopped, unremarked."""
_CALLS = 2 * WINDOW
"""Seconds without any call being made, with calls to make and nothing that forbids them."""
_WRITE = 60.0
"""Seconds that a write to the disk may take."""


class Health:
    """What has made no progress for longer than it should.

    Args:
        settings: Of the exporter.
        accounts: What is watched.
        keeper: Of the state, if one is kept.
    """

    def __init__(
        self,
        settings: Settings,
        accounts: Sequence[Account],
        writer: StateWriter | None,
        clock: Clock,
    ) -> None:
        self.configure(settings)
        self._accounts = accounts
        self._writer = writer
        self._clock = clock
        self._told: set[str] = set()
        self._seldom = Throttle(clock)
        self._was_ready = False
        if writer is not None:
            writer.first_looks_over = lambda: not self._untried()

    def configure(self, settings: Settings) -> None:
        self._round = 3 * settings.poll.interval + settings.api.timeout
        self._interval = settings.poll.interval

    def unhealthy(self) -> list[str]:
        """What has stalled, a line each that begins with its name."""
        return [f"{name}: {what}" for name, what in self._stalled()]

    def unready(self) -> list[str]:
        """What wasn't tried yet, that nothing could be read, or that what came of it isn't to be
        seen on `/metrics` yet.

        Once ready, it stays so: what is watched from later on takes nothing from the rest.
        """
        if self._was_ready:
            return []
        if untried := self._untried():
            return untried
        if not any(account.readable for account in self._accounts):
            return [f"{account.label}: nothing could be read yet" for account in self._accounts]
        if self._writer is not None and not self._writer.first_looks_shown:
            return ["state: what the first looks brought isn't on the disk yet"]
        self._was_ready = True
        return []

    def _untried(self) -> list[str]:
        """Configured instances, and the first sweep over each account."""
        return [
            f"{poller.key.account}/{poller.key.workflow}: the first round isn't over"
            for account in self._accounts
            for poller in account.pollers.values()
            if not poller.tried
        ] + [
            f"{account.label}: the first sweep over its workflows isn't over"
            for account in self._accounts
            if not account.pass_done
        ]

    def _stalled(self) -> Iterator[tuple[str, str]]:
        now = self._clock.monotonic()
        for account in self._accounts:
            for poller in account.pollers.values():
                since = now - poller.round_started
                if since > self._round:
                    about = f"{account.label}/{poller.key.workflow}"
                    due = f"one is due every {self._interval}"
                    yield "scheduler", f"no round over {about} for {since:.0f} s; {due}"
            # While Cloudflare allows no calls, and right after that, nothing can have been done.
            looks, blocked_until = account.queue, account.budget.blocked_until
            since = now - max(looks.progress, blocked_until)
            if (len(looks) or looks.under_way) and since > _CALLS:
                left = f"{looks.under_way} are under way, {len(looks)} wait"
                yield "poller", f"no look at {account.label} ended for {since:.0f} s; {left}"
            since = now - max(account.progress, blocked_until)
            if account.lag and since > _CALLS:
                yield "sweeps", f"no list of {account.label} was read for {since:.0f} s"
        writer = self._writer
        if writer is not None and now - writer.progress > _WRITE:
            yield "state", f"no write to the disk ended for {now - writer.progress:.0f} s"

    async def watch(self) -> None:
        """Logs once what has stalled, and when the whole process stood still; without end."""
        while True:
            before = self._clock.monotonic()
            await asyncio.sleep(_EVERY)
            self.check(stood_still=self._clock.monotonic() - before - _EVERY)

    def check(self, *, stood_still: float = 0.0) -> None:
        """Logs what is news; the process did nothing at all for `stood_still` seconds."""
        if stood_still > _STALL and self._seldom.may("stood still"):
            log.warning(
                "the exporter stood still; it goes on now",
                seconds=round(stood_still),
                advice="it was stopped, or lacks CPU: see its limits and the load of the machine",
            )
        stalled = dict(self._stalled())
        for name, what in stalled.items():
            if name not in self._told:
                log.error("no progress", part=name, what=what)
        for name in self._told - stalled.keys():
            log.info("progress again", part=name)
        self._told = set(stalled)
