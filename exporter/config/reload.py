"""Reloads the configuration on demand, or when the contents of its file have changed."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from math import ceil
from operator import attrgetter
from pathlib import Path

import structlog

from exporter.clock import wait_at_most
from exporter.config.errors import ConfigError
from exporter.config.files import read_file
from exporter.config.settings import Settings, leaves

log = structlog.get_logger(__name__)


@dataclass(eq=False)
class Reloader:
    """Has the exporter use the configuration as it is now; if that can't be done, nothing changes.

    Attributes:
        load: Reads the configuration, or raises `ConfigError`.
        path: The file to watch; None: there is none.
        settings: The settings in use.
        apply: Has the exporter use other settings, or raises `ConfigError`.
        on_failure: Called when a reload has failed.
        asked: To be set for a reload on demand.
    """

    load: Callable[[], Settings]
    path: Path | None
    settings: Settings
    apply: Callable[[Settings], Awaitable[None]]
    on_failure: Callable[[], Awaitable[None]]

    def __post_init__(self) -> None:
        self.asked = asyncio.Event()
        self._seen = self._content()
        self._problems: list[str] = []
        """What the last reload found wrong with the configuration."""
        self._reloading = asyncio.Lock()
        """Held during a reload: the file, SIGHUP and requests may each ask for one."""

    async def reload(self, *, retry: bool = False) -> list[str]:
        """Reloads the configuration. Returns everything that is wrong with it; if anything is, it
        is not used.

        Args:
            retry: Whether the last reload of the same file failed; its problems are logged already.
        """
        async with self._reloading:
            self._seen = self._content()
            logged, self._problems = self._problems if retry else [], []
            try:
                wanted = self.load()
                settings = _with_fixed(wanted, self.settings)
                await self.apply(settings)
            except ConfigError as error:
                self._problems = error.problems
                await self.on_failure()
                if error.problems != logged:
                    log.error(
                        "failed to reload the configuration; continuing with the former one",
                        file=str(self.path or ""),
                        problems="; ".join(error.problems),
                        advice="fix what is wrong and reload; the exporter could not start with it",
                    )
                return error.problems
            except Exception:
                await self.on_failure()
                log.exception("failed to reload the configuration: a fault of the exporter")
                return ["a fault of the exporter; the log has the traceback"]
            self.settings = settings
            log.info("configuration reloaded", file=str(self.path or ""))
            keys = [".".join(key) for key, _ in leaves()]
            if fixed := [k for k in keys if attrgetter(k)(wanted) != attrgetter(k)(settings)]:
                log.warning(
                    "some settings change only with a restart; they stay as they were",
                    settings=", ".join(fixed),
                )
            return []

    async def run(self) -> None:
        """Reloads on demand, when the contents of the file have changed, and again where that
        failed, since what was wrong may be elsewhere. Never returns.

        Contents are compared, not modification times: the files of a ConfigMap are symbolic links,
        which Kubernetes swaps.
        """
        for seconds in count(1):
            await wait_at_most(1, self.asked)  # not longer, since the interval may change
            interval = ceil(self.settings.config.auto_reload_interval)
            due = interval > 0 and seconds % interval == 0
            changed = due and self._content() != self._seen
            if self.asked.is_set() or changed:
                self.asked.clear()
                await self.reload()
            elif due and self._problems:
                await self.reload(retry=True)

    def _content(self) -> bytes:
        try:
            return read_file(self.path) if self.path else b""
        except OSError:
            return b"unreadable"


def _with_fixed(wanted: Settings, used: Settings) -> Settings:
    """The wanted settings, except those that only a restart can change: these stay as used."""
    return wanted.model_copy(
        update={
            "state": used.state,
            "replica": used.replica,
            "web": used.web.model_copy(update={"enable_lifecycle": wanted.web.enable_lifecycle}),
        }
    )
