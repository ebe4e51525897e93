"""The values of the labels `step` and `error_name`, which are rewritten and limited in number. Step
names lose the engine's counter."""

import re
from collections.abc import Callable
from typing import NamedTuple

from exporter.config.metrics import Names

OTHER = "other"
MAX_LENGTH = 256
"""Characters of a name that are shown; Cloudflare's limit for a step's name."""

# The engine reports `step.do("pay")` as `pay-1`.
_COUNTER = re.compile(r"-[0-9]+\Z")


def _replaced(regex: re.Pattern[str], replacement: str, name: str) -> str:
    """Replaces all matches, as Go does: unlike in Python, `.*` doesn't match once more, emptily, at
    the end of what it matched."""
    end = -1

    def replace(match: re.Match[str]) -> str:
        nonlocal end
        again, end = match.span() == (end, end), match.end()
        return "" if again else match.expand(replacement)

    return regex.sub(replace, name)


class LimitedLabel:
    """The values of one label of one workflow.

    Args:
        names: How names become values.
    """

    def __init__(self, names: Names) -> None:
        self._rules = [(re.compile(rule.regex), rule.replacement) for rule in names.rewrite]
        self._limit = names.limit
        self.labels: set[str] = set()
        """The values so far."""

    def add(self, label: str) -> None:
        """Adds a value that a restored series has. It takes no place if the rules wouldn't make
        it."""
        if label != OTHER and label == self._rewritten(label):
            self.labels.add(label)

    def _rewritten(self, name: str) -> str:
        label = name[:MAX_LENGTH]
        for regex, replacement in self._rules:
            label = _replaced(regex, replacement, label)[:MAX_LENGTH]
        return label

    def __call__(self, name: str, *, on_other: Callable[[], None] = lambda: None) -> str:
        """The label for a name; calls `on_other` if it is `other` because of the limit."""
        label = self._rewritten(name)
        if label in self.labels:
            return label
        if len(self.labels) < self._limit:
            self.labels.add(label)
            return label
        on_other()
        return OTHER


class StepLabel(LimitedLabel):
    """The label `step`, from a step's full name."""

    def __call__(self, name: str, *, on_other: Callable[[], None] = lambda: None) -> str:
        return super().__call__(_COUNTER.sub("", name), on_other=on_other)


class InstanceLabels(NamedTuple):
    """The labels of a workflow's instances whose values are limited."""

    step: StepLabel
    error_name: LimitedLabel
    word: LimitedLabel
    """Used for statuses and for types of steps."""
