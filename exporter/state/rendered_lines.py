"""The lines of a workflow's instances in the state, as scrapes see them.

They are recorded when the exporter stops, so that the next start needn't render them, which takes
longer than all else. They stand for exactly what is recorded of the instances: whatever is written
of one of them later deletes them.
"""

from collections.abc import Mapping

import msgspec
from isal import isal_zlib

from exporter.metrics.exposition import Rendered
from exporter.state.backend import Batch, Owner
from exporter.state.record_codec import encode

_RENDERED = msgspec.msgpack.Decoder(Rendered)


def batch_of(rendered: Mapping[Owner, Rendered], leases: Mapping[Owner, int]) -> Batch:
    """What records the lines of the workflows whose leases are held.

    They begin with a checksum: nothing else shows that a bit of a compressed text has flipped.
    """
    lines = {owner: encode(each) for owner, each in rendered.items() if owner in leases}
    checked = {owner: _crc(data) + data for owner, data in lines.items()}
    return Batch({}, {}, {}, leases, rendered=checked)


def unpacked(data: bytes) -> Rendered:
    """Lines that were recorded.

    Raises:
        DecodeError: it is damaged.
    """
    if data[:4] != _crc(data[4:]):
        raise msgspec.DecodeError("the checksum is wrong")
    return _RENDERED.decode(data[4:])


def _crc(data: bytes) -> bytes:
    return isal_zlib.crc32(data).to_bytes(4, "little")
