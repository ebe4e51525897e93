"""Change detection: whether an answer says anything that wasn't known."""

from typing import NamedTuple

from exporter.cloudflare.models import Summary, unix
from exporter.watch.tracker import InstanceValues

Fingerprint = tuple[object, ...]


def fingerprint(answer: Summary) -> Fingerprint:
    """What of an answer moves when the instance does; equal fingerprints: nothing to fetch."""
    return (
        answer.status,
        answer.step_count,
        # As they are stored: not every time that has a time zone can be written in UTC.
        unix(answer.queued),
        unix(answer.start),
        unix(answer.end),
        answer.success,
        answer.version_id,
        answer.error.name if answer.error else None,
    )


# Between steps a long run waits, maybe thousands of times.
_UNDER_WAY = ("running", "waiting")


def _but_progress(known: Fingerprint) -> Fingerprint:
    """A fingerprint that stays as long as a run goes on from step to step."""
    status, _, *rest = known
    return (_UNDER_WAY if status in _UNDER_WAY else status, *rest)


class Change(NamedTuple):
    """A figure that moved."""

    figure: str
    """Its field of `InstanceValues`."""
    before: str | float | None
    """None: it wasn't known, or there was none. Of what holds several only whether: ``...``."""


def changes(
    before: InstanceValues | None, after: InstanceValues, *, along: tuple[Change, ...] = ()
) -> tuple[Change, ...]:
    """Which figures moved; none on first sight, when everything is new.

    Args:
        along: What moved before and belongs to the same change: a row told of it, and the full
            answer tells the rest.
    """
    if before is None:
        return ()
    pairs = (
        (name, getattr(before, name), getattr(after, name))
        for name in InstanceValues.__struct_fields__
    )
    known = {change.figure for change in along}
    return along + tuple(
        Change(name, old if old is None or isinstance(old, str | int | float) else "...")
        for name, old, new in pairs
        if old != new and name not in known
    )


class Fingerprints:
    """The fingerprints that stand for an instance as it is known.

    Normally one: a simple answer repeats the fields of the full one. Where an upstream's simple
    answers differ from its full ones for good, the full answer that follows brings nothing new;
    that simple answer's fingerprint then stands for the full one too, so that an instance at rest
    costs no full answers. Any news drops it again, so it never hides a change.
    """

    __slots__ = ("_alias", "_full")

    def __init__(self) -> None:
        self._full: Fingerprint | None = None
        self._alias: Fingerprint | None = None

    @property
    def seen(self) -> bool:
        return self._full is not None

    @property
    def fingerprints(self) -> tuple[Fingerprint | None, Fingerprint | None]:
        """What there is to keep."""
        return self._full, self._alias

    def restore(self, fingerprints: tuple[Fingerprint | None, Fingerprint | None]) -> None:
        """Takes what was kept."""
        self._full, self._alias = fingerprints

    def knows(self, simple: Summary, *, but_progress: bool = False) -> bool:
        """Whether a simple answer says nothing new; `but_progress`: at most that the run goes on,
        from step to step and from running to waiting and back."""
        known = [known for known in (self._full, self._alias) if known is not None]
        if but_progress:
            return _but_progress(fingerprint(simple)) in map(_but_progress, known)
        return fingerprint(simple) in known

    def update(self, full: Summary, *, after: Summary | None, moved: bool) -> None:
        """Takes note of a full answer, fetched after a simple answer that wasn't known.

        `moved` tells whether the full answer changed any figure.
        """
        known, self._full = self._full, fingerprint(full)
        if moved or known != self._full:
            self._alias = None
        elif after is not None:
            self._alias = fingerprint(after)
