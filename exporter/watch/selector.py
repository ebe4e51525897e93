"""Which entry of the configuration a workflow takes, by its name, and which of its instances that
selects, by their id, status and end."""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase, translate

from exporter.config.accounts import Discover, Workflow, is_glob
from exporter.statuses import ENDED, STATUSES


def match_of(name: str, entries: Iterable[Workflow]) -> Workflow | None:
    """The entry for a workflow: the one with its name or, without that, the first matching glob."""
    globs = (e for e in entries if is_glob(e.name) and fnmatchcase(name, e.name))
    return next((e for e in entries if e.name == name), None) or next(globs, None)


def _globs(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(translate, patterns)) or r"(?!)")


class Selector:
    """What a workflow's `discover` selects.

    Args:
        discover: The settings.
    """

    def __init__(self, discover: Discover) -> None:
        self.discover = discover
        self._include = _globs(discover.include)
        self._exclude = _globs(discover.exclude)

    def takes_id(self, instance_id: str) -> bool:
        """Whether an instance of this id may be selected."""
        return bool(self._include.match(instance_id)) and not self._exclude.match(instance_id)

    def takes_status(self, status: str) -> bool:
        """Whether instances of this status may be selected. A status that isn't known today is, so
        that people see it."""
        return status in self.discover.statuses or status not in STATUSES

    def takes(self, status: str, end: float | None, now: float) -> bool:
        """Whether an instance is selected that has this status and ended at `end` (Unix time)."""
        recent = status not in ENDED or end is None or now - end <= self.discover.max_age
        return recent and self.takes_status(status)
