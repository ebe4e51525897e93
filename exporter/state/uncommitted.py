"""What isn't committed to the state yet: the newest records, and what scrapes don't see yet."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from exporter.metrics.catalogue import WorkflowKey
from exporter.metrics.series import Changes
from exporter.state.backend import Owner, RecordKey, Table
from exporter.state.record_codec import Record, Records, series_by_key


class Uncommitted:
    """The newest records (None: to be deleted), and the changes that scrapes see once those are
    committed."""

    def __init__(self) -> None:
        self.records: dict[RecordKey, Record | None] = {}
        self.shown = Changes()

    def take(self, changes: Changes, owners: Mapping[WorkflowKey, Owner]) -> None:
        """Adds what changed of these workflows."""
        self.shown.update(changes)
        # Removed series stay in the state, since their workflow may be attached again.
        self.records.update(series_by_key(changes, owners))

    def take_uncounted(self) -> Changes:
        """Removes, and returns, what scrapes may see before it is committed: all but the counts of
        workflows, which a restart would take back."""
        at_once, counts = Changes(instances=self.shown.instances), Changes()
        for (family, labels), data in self.shown.series.items():
            part = counts if family.counts_of_workflow and data is not None else at_once
            part.series[family, labels] = data
        self.shown = counts
        return at_once

    @contextmanager
    def committing(self) -> Iterator[tuple[Records, Changes]]:
        """The records to commit within this context, and the changes to show after that.

        If that succeeds, they are removed from here, except where newer records have come. If it
        raises, they all stay.
        """
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

    def of(self, table: Table, owner: Owner) -> dict[str, Record | None]:
        """An owner's records in a table, by id."""
        return {i: r for (t, o, i), r in self.records.items() if (t, o) == (table, owner)}

    @property
    def owners(self) -> set[Owner]:
        """The workflows that have records here."""
        return {owner for _, owner, _ in self.records}

    def discard(self, owners: Collection[Owner]) -> None:
        """Drops the records of workflows that another replica writes now."""
        self.records = {k: r for k, r in self.records.items() if k[1] not in owners}
