"""What is persisted, as the state holds it: records of instances, workflows and series, rendered
lines, and the name of each account."""

import json
from collections.abc import Iterable, Iterator, Mapping

import msgspec
from isal import isal_zlib

from exporter.config.accounts import Account
from exporter.instances.state_records import InstanceRecord, WorkflowRecord
from exporter.metrics import catalogue
from exporter.metrics.catalogue import FAMILIES
from exporter.metrics.exposition import Rendered
from exporter.metrics.series import Changes, Histogram, SeriesData, SeriesKey
from exporter.state.backend import Batch, InstanceRow, Owner, SeriesPlace

_BY_NAME = {family.name: family for family in FAMILIES}
_OF_NOW = frozenset(
    {
        catalogue.BUILD_INFO,
        catalogue.CONFIG_SUCCESSFUL,
        catalogue.CONFIG_SUCCESS_TIME,
        catalogue.LEASES_LOST,
        catalogue.STATE_WRITE_ERRORS,
    }
)
"""Families that mean nothing after a restart."""

_SERIES = msgspec.msgpack.Decoder(tuple[float | Histogram, float | None])
_RENDERED = msgspec.msgpack.Decoder(Rendered)
decode_instance = msgspec.msgpack.Decoder(InstanceRecord).decode
decode_workflow = msgspec.msgpack.Decoder(WorkflowRecord).decode
encode = msgspec.msgpack.Encoder().encode


def instance_row(record: InstanceRecord | None) -> InstanceRow | None:
    """The row of an instance; None: it has none."""
    return None if record is None else InstanceRow(encode(record), record.removed_at)


def series_by_place(
    changes: Changes, names: Mapping[str, str]
) -> Iterator[tuple[SeriesPlace, SeriesData]]:
    """The series that changed, as they are persisted, without exemplars; `names`: of accounts in
    the state, by label."""
    for (family, labels), data in changes.series.items():
        if family in _OF_NOW or data is None:
            continue
        named = 2 if family.of_workflow else 1 if family.labels[:1] == ("account",) else 0
        account, workflow = (*labels[:named], "", "")[:2]
        account = names.get(account, account)
        place = account, workflow, family.name, json.dumps(labels[named:])
        yield place, SeriesData(data.value, data.created)


def series_key(place: SeriesPlace, account: str, workflow: str) -> SeriesKey | None:
    """The series that a record is of, shown under an account's label and a workflow; None: this
    version of the exporter has none."""
    prefix = tuple(filter(None, (account, workflow)))
    family, labels = _BY_NAME.get(place[2]), (*prefix, *json.loads(place[3]))
    return (family, labels) if family and len(labels) == len(family.labels) else None


def encode_series(series: SeriesData) -> bytes:
    return encode((series.value, series.created))


def decode_series(data: bytes) -> SeriesData:
    return SeriesData(*_SERIES.decode(data))


def batch_of(rendered: Mapping[Owner, Rendered], leases: Mapping[Owner, int]) -> Batch:
    """What records the lines of the workflows whose leases are held.

    They begin with a checksum: nothing else shows that a bit of a compressed text has flipped.
    """
    lines = {owner: encode(each) for owner, each in rendered.items() if owner in leases}
    checked = {owner: _crc(data) + data for owner, data in lines.items()}
    return Batch({}, {}, {}, leases, rendered=checked)


def decode_rendered(data: bytes) -> Rendered:
    """Lines that were recorded.

    Raises:
        DecodeError: they are damaged.
    """
    if data[:4] != _crc(data[4:]):
        raise msgspec.DecodeError("the checksum is wrong")
    return _RENDERED.decode(data[4:])


def _crc(data: bytes) -> bytes:
    return isal_zlib.crc32(data).to_bytes(4, "little")


def without_counts(changes: Changes) -> tuple[Changes, Changes]:
    """What may be shown before it is committed, and what is counted of workflows."""
    at_once, counts = Changes(instances=changes.instances), Changes()
    for (family, labels), data in changes.series.items():
        part = counts if family.counts_of_workflow and data is not None else at_once
        part.series[family, labels] = data
    return at_once, counts


def stored_names(accounts: Iterable[Account]) -> dict[str, str]:
    """By label, the name of each account in the state: its id, so that it may be renamed. Of
    several with the same id the first; the others, by id and label."""
    names: dict[str, str] = {}
    for account in accounts:
        taken = account.key in names.values()
        names[account.label] = f"{account.key}/{account.label}" if taken else account.key
    return names
