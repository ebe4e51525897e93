"""What a backend of the state does: few operations on bytes, whose meaning it doesn't know.

An owner is an account and a workflow; either is empty for what belongs to none.
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

Owner = tuple[str, str]


class InUse(Exception):  # noqa: N818 - reads as what is wrong
    """Another exporter uses the state."""


class Unusable(Exception):  # noqa: N818 - reads as what is wrong
    """The state can't be used, and is left as it is; the message says why."""


class Batch(NamedTuple):
    """What one transaction writes; None deletes."""

    workflows: dict[Owner, bytes]
    instances: dict[tuple[Owner, str], bytes | None]
    series: dict[tuple[Owner, str, str], bytes | None]
    """By owner, family, and the other labels in JSON."""

    def __bool__(self) -> bool:
        return bool(self.workflows or self.instances or self.series)


class Backend(Protocol):
    """An open state. Its methods may be called from any thread, one at a time."""

    @property
    def set_aside(self) -> Path | None:
        """Where a damaged file was moved, if there was one."""

    @property
    def is_there(self) -> bool:
        """Whether what was opened is still there."""

    def workflow(self, owner: Owner) -> Iterator[tuple[Owner, bytes]]:
        """The record of a workflow, if there is one."""

    def series(self, owner: Owner) -> Iterator[tuple[tuple[str, str], bytes]]:
        """The series of an owner, each by its family and other labels."""

    def instances(self, owner: Owner, *, after: str, limit: int) -> Iterator[tuple[str, bytes]]:
        """The records of a workflow's instances by id: at most `limit` of those after an id."""

    def holds(self, owner: Owner, instance_id: str) -> bool:
        """Whether there is a record of an instance."""

    def write(self, batch: Batch, *, now: float) -> None:
        """Commits all of a batch, at Unix time `now`, or, when it raises, nothing."""

    def expire(self, *, before: float, accounts: Collection[str]) -> None:
        """Deletes workflows last watched before a Unix time, and all that is theirs; and the series
        of accounts without workflows, but of those that are named."""

    def is_damage(self, error: Exception) -> bool:
        """Whether an error of a method means that the content is broken."""

    def renew(self) -> None:
        """Begins an empty state in place of a damaged one."""

    def close(self) -> None:
        """Closes it."""
