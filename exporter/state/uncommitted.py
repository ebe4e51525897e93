"""What isn't committed to the state yet: the newest record of each."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from exporter.instances.state_records import InstanceRecord, WorkflowRecord
from exporter.metrics.labels import WorkflowKey
from exporter.metrics.series import Changes
from exporter.state.backend import Key, Owner, Place
from exporter.state.record_codec import Record, Records, series_by_key


class Watched(Protocol):
    """What is persisted of an attached workflow (`exporter.watch.watched_instances`)."""

    key: WorkflowKey
    record: WorkflowRecord

    def take_changes(self) -> Mapping[str, InstanceRecord | None]:
        """The records of instances that changed since the last call; None: there is none now."""

    def record_progress(self) -> None:
        """Has all that scrapes see of instances recorded."""

    def record_all(self) -> None:
        """Has everything recorded again: it was lost."""


class Uncommitted:
    """Records, None for those to delete, and what scrapes see once they are committed."""

    def __init__(self) -> None:
        self.records: dict[Key, Record | None] = {}
        self.shown = Changes()

    def take(self, changes: Changes, accounts: Mapping[str, str]) -> None:
        """Adds what changed; `accounts`: the name of each in the state, by label."""
        self.shown.update(changes)
        # What is no longer shown stays in the state: the workflow may be attached again.
        self.records.update(series_by_key(changes, accounts))

    @contextmanager
    def committing(self) -> Iterator[tuple[Records, Changes]]:
        """The records to commit meanwhile, and what to show then. They stay here until that has
        succeeded, and where newer ones have come."""
        records, shown = self.records.copy(), self.shown
        self.shown = Changes()
        try:
            yield records, shown
        except BaseException:
            shown.update(self.shown)
            self.shown = shown
            raise
        self.records = {
            key: record
            for key, record in self.records.items()
            if key not in records or record is not records[key]
        }

    def record(self, owner: Owner, records: Records) -> None:
        """Adds records of a workflow and its instances."""
        if records:
            self.records.update(records)
            self.records["rendered", *owner, ""] = None  # lines of the instances as they were

    def of(self, place: Place) -> dict[str, Record | None]:
        """The records of a place, by id."""
        return {key[3]: record for key, record in self.records.items() if key[:3] == place}

    @property
    def owners(self) -> set[Owner]:
        """Of which workflows these are."""
        return {key[1:3] for key in self.records}

    def discard(self, owners: Collection[Owner]) -> None:
        """Drops the records of these, which are another replica's to write."""
        self.records = {k: r for k, r in self.records.items() if k[1:3] not in owners}
