"""Step names as labels: bounded in number, without the engine's counter."""

import re
from collections.abc import Callable, Iterable

OTHER = "other"

_COUNTER = re.compile(r"-[0-9]+\Z")


def without_counter(name: str) -> str:
    """A step's name as its author wrote it: the engine reports `step.do("pay")` as `pay-1`."""
    return _COUNTER.sub("", name)


class StepLabels:
    """The label `step` of one workflow: rewritten, and at most `limit` different values."""

    def __init__(self, rules: Iterable[tuple[str, str]] = (), *, limit: int = 200) -> None:
        self._rules = [(re.compile(regex), replacement) for regex, replacement in rules]
        self._limit = limit
        self._labels: set[str] = set()

    def __call__(self, name: str, *, on_other: Callable[[], None] = lambda: None) -> str:
        """The label for a step's full name; tells `on_other` when it is past the limit."""
        label = without_counter(name)
        for regex, replacement in self._rules:
            label = regex.sub(replacement, label)
        if label in self._labels:
            return label
        if len(self._labels) < self._limit:
            self._labels.add(label)
            return label
        on_other()
        return OTHER
