"""What identifies a step of a run, also where a response lacks a part of that. Pure."""

from collections.abc import Collection, Iterable, Mapping
from sys import intern

from exporter.cloudflare.models import Step
from exporter.cloudflare.times import unix

StepKey = tuple[str, str, float]
"""A step's type, full name, and start in Unix time; each empty or 0 where it is missing."""
_Pair = tuple[int, tuple[str | float, ...]]


def step_keys(steps: Iterable[Step], known: Collection[StepKey]) -> list[StepKey]:
    """The key of each step. If a part of it is missing, here or in a known key, it is taken for the
    known step whose other two parts are the same."""
    keys = [(step.type or "", step.name or "", unix(step.start) or 0.0) for step in steps]
    unlisted = {pair: key for key in {*known}.difference(keys) for pair in _pairs(key)}
    if not unlisted:
        return keys
    return [key if key in known else _known_as(key, unlisted) for key in keys]


def _known_as(key: StepKey, unlisted: Mapping[_Pair, StepKey]) -> StepKey:
    for n, others in _pairs(key):
        known = unlisted.get((n, others), key)
        if not (key[n] and known[n]):
            return known
    return key


def _pairs(key: StepKey) -> list[_Pair]:
    """The parts of a key without each one of them in turn, whose place is given too."""
    return [(n, (*key[:n], *key[n + 1 :])) for n in range(len(key))]


def shared(key: StepKey) -> StepKey:
    """A key whose texts take memory once for all instances of a workflow."""
    return intern(key[0]), intern(key[1]), key[2]
