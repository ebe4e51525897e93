"""Encodes and decodes what the state holds: records of workflows, instances and series."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from exporter.instances.state_records import UNWATCHED_FOR, InstanceRecord, WorkflowRecord
from exporter.metrics.catalogue import FAMILIES, WorkflowKey
from exporter.metrics.series import Changes, SeriesData, SeriesKey
from exporter.state.backend import Batch, Owner, RecordKey, StoredRow, Table

Record = WorkflowRecord | InstanceRecord | SeriesData
Records = Mapping[RecordKey, Record | None]
"""Records by key; None: it is to be deleted, or doesn't exist."""

_BY_NAME = {family.name: family for family in FAMILIES}
_encode = msgspec.msgpack.Encoder().encode


DECODE: Mapping[Table, Callable[[bytes], Any]] = {
    "workflows": msgspec.msgpack.Decoder(WorkflowRecord).decode,
    "instances": msgspec.msgpack.Decoder(InstanceRecord).decode,
    "series": msgspec.msgpack.Decoder(SeriesData).decode,
}
"""For each table, the function that makes a record of a row's data, or raises
`msgspec.DecodeError`."""


def _row(record: Record) -> StoredRow:
    if isinstance(record, SeriesData):
        return StoredRow(_encode((record.value, record.created)))
    removed_at = record.removed_at if isinstance(record, InstanceRecord) else None
    return StoredRow(_encode(record), removed_at)


def batch_of(records: Records, leases: Mapping[Owner, int], now: float) -> Batch:
    """The batch that writes these records at Unix time `now`."""
    rows = {key: None if record is None else _row(record) for key, record in records.items()}
    horizons = {
        owner: min(record.horizon, now - UNWATCHED_FOR)
        for (_, owner, _), record in records.items()
        if isinstance(record, WorkflowRecord)
    }
    return Batch(rows, leases, horizons)


def series_by_key(
    changes: Changes, owners: Mapping[WorkflowKey, Owner]
) -> Iterator[tuple[RecordKey, SeriesData]]:
    """The records of the changed series that belong to workflows. Other series begin again with
    each process."""
    for (family, labels), data in changes.series.items():
        if family.of_workflow and data is not None:
            account, workflow, *others = labels
            owner, id_ = owners[WorkflowKey(account, workflow)], json.dumps([family.name, *others])
            yield ("series", owner, id_), SeriesData(data.value, data.created)


def series_key(id_: str, workflow: WorkflowKey) -> SeriesKey | None:
    """The series that a record with this id is about; None: the id was damaged, or this version of
    the exporter has no such series."""
    try:
        name, *others = json.loads(id_)
    except ValueError:
        return None
    family, labels = _BY_NAME.get(name), (*workflow, *others)
    return (family, labels) if family and len(labels) == len(family.labels) else None
