"""Which instances of a workflow `discover` selects, by their id, status and end."""

import re
from collections.abc import Iterable
from fnmatch import translate

from exporter.config.accounts import Discover
from exporter.statuses import ENDED, STATUSES


def _globs(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(translate, patterns)) or r"(?!)")


class Selector:
    """The `discover` of a workflow."""

    def __init__(self, settings: Discover) -> None:
        self.limit = settings.max_instances
        self.statuses = frozenset[str](settings.statuses)
        self.min_age = settings.min_age
        """Seconds after its creation until an instance has series, unless it errors before."""
        self._max_age = settings.max_age
        self._include = _globs(settings.include)
        self._exclude = _globs(settings.exclude)

    def takes_id(self, instance_id: str) -> bool:
        """Whether an instance of this id may be selected."""
        return bool(self._include.match(instance_id)) and not self._exclude.match(instance_id)

    def takes(self, status: str, end: float | None, now: float) -> bool:
        """Whether an instance is selected that has this status and ended at `end` (Unix time).

        A status that isn't known today is selected, so that people see it.
        """
        if status in STATUSES and status not in self.statuses:
            return False
        return status not in ENDED or end is None or now - end <= self._max_age
