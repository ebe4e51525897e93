"""Names of customers' own as labels: bounded in number, steps without the engine's counter."""

import re
from collections.abc import Callable, Iterable

OTHER = "other"
LONGEST = 256
"""Characters of a name that are shown: as many as Cloudflare allows a step's name."""

_COUNTER = re.compile(r"-[0-9]+\Z")


def without_counter(name: str) -> str:
    """A step's name as its author wrote it: the engine reports `step.do("pay")` as `pay-1`."""
    return _COUNTER.sub("", name)


class LimitedLabel:
    """The values of one label of one workflow: rewritten, and at most `limit` different ones."""

    def __init__(self, rules: Iterable[tuple[str, str]] = (), *, limit: int = 200) -> None:
        self._rules = [(re.compile(regex), replacement) for regex, replacement in rules]
        self._limit = limit
        self._labels: set[str] = set()

    def add(self, label: str) -> None:
        """Takes a label for one of those there are: a series has it already."""
        if label != OTHER:
            self._labels.add(label)

    def __call__(self, name: str, *, on_other: Callable[[], None] = lambda: None) -> str:
        """The label for a name; tells `on_other` when it is past the limit."""
        label = name[:LONGEST]
        for regex, replacement in self._rules:
            label = regex.sub(replacement, label)[:LONGEST]
        if label in self._labels:
            return label
        if len(self._labels) < self._limit:
            self._labels.add(label)
            return label
        on_other()
        return OTHER


class StepLabel(LimitedLabel):
    """The label `step`, from a step's full name."""

    def __call__(self, name: str, *, on_other: Callable[[], None] = lambda: None) -> str:
        return super().__call__(without_counter(name), on_other=on_other)
