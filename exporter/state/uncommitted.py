"""What isn't committed to the state yet: the newest record of each."""

from collections.abc import Collection, Mapping
from typing import Protocol

from exporter.instances.state_records import UNWATCHED_FOR, InstanceRecord, WorkflowRecord
from exporter.metrics.labels import WorkflowKey
from exporter.metrics.series import Changes, SeriesData
from exporter.state.backend import Batch, InstanceKey, Owner, SeriesPlace
from exporter.state.record_codec import encode, encode_series, instance_row, series_by_place


class Watched(Protocol):
    """What is persisted of an attached workflow (`exporter.watch.watched_instances`)."""

    key: WorkflowKey
    record: WorkflowRecord

    def take_changes(self) -> Mapping[str, InstanceRecord | None]:
        """The records of instances that changed since the last call; None: there is none now."""

    def record_all(self) -> None:
        """Has everything recorded again: it was lost."""


class Uncommitted:
    """Records of series, instances and workflows, and what scrapes see once they are committed."""

    def __init__(self) -> None:
        self.shown = Changes()
        self.series: dict[SeriesPlace, SeriesData] = {}
        self.instances: dict[InstanceKey, InstanceRecord | None] = {}
        self.workflows: dict[Owner, WorkflowRecord] = {}

    def take(self, changes: Changes, accounts: Mapping[str, str]) -> None:
        """Adds what changed; `accounts`: the name of each in the state, by label."""
        self.shown.update(changes)
        # What is no longer shown stays in the state: the workflow may be attached again.
        self.series.update(series_by_place(changes, accounts))

    def add(self, newer: "Uncommitted") -> None:
        """Adds newer records."""
        self.shown.update(newer.shown)
        self.series.update(newer.series)
        self.instances.update(newer.instances)
        self.workflows.update(newer.workflows)

    @property
    def owners(self) -> set[Owner]:
        """Of which workflows these are."""
        series, instances = (key[:2] for key in self.series), (key[:2] for key in self.instances)
        return {owner for owner in (*series, *instances, *self.workflows) if owner[1]}

    def discard(self, owners: Collection[Owner]) -> None:
        """Drops the records of these, which are another replica's to write."""
        self.series = {p: s for p, s in self.series.items() if p[:2] not in owners}
        self.instances = {p: i for p, i in self.instances.items() if p[:2] not in owners}
        self.workflows = {o: w for o, w in self.workflows.items() if o not in owners}

    def batch(
        self, workflows: Mapping[Owner, WorkflowRecord], leases: Mapping[Owner, int], now: float
    ) -> Batch:
        """All of it for one transaction at Unix time `now`, with these records of workflows."""
        old = now - UNWATCHED_FOR
        return Batch(
            {owner: encode(record) for owner, record in workflows.items()},
            {key: instance_row(record) for key, record in self.instances.items()},
            {place: (encode_series(series),) for place, series in self.series.items()},
            leases,
            {owner: min(record.horizon, old) for owner, record in workflows.items()},
        )
