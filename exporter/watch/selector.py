"""Which instances of a workflow `discover` selects, by their id, status and end."""

import re
from collections.abc import Iterable
from fnmatch import translate

from exporter.config.accounts import Discover
from exporter.statuses import ENDED, STATUSES


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

    def takes(self, status: str, end: float | None, now: float) -> bool:
        """Whether an instance is selected that has this status and ended at `end` (Unix time).

        A status that isn't known today is selected, so that people see it.
        """
        if status in STATUSES and status not in self.discover.statuses:
            return False
        return status not in ENDED or end is None or now - end <= self.discover.max_age
