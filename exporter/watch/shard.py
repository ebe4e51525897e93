"""Which instances one process watches where several share the work.

A hash of account, workflow and instance id names the shard: a jump consistent hash (Lamping and
Veach, "A Fast, Minimal Memory, Consistent Hash Algorithm", 2014), the same in every process. From
n shards to n + 1, one instance in n + 1 moves, always to the new shard; back again, only those of
the shard that goes.
"""

import re
from dataclasses import dataclass
from hashlib import blake2b
from math import inf
from typing import NamedTuple, Self

from exporter.config.settings import Shard as Settings

_BITS = (1 << 64) - 1


def shard_of(count: int, *key: str) -> int:
    """The shard, from 0 to `count` - 1, that a key falls to."""
    state = int.from_bytes(blake2b("\0".join(key).encode(), digest_size=8).digest(), "big")
    shard, jump = 0, 0
    while jump < count:
        shard = jump
        state = (state * 2862933555777941757 + 1) & _BITS
        jump = ((shard + 1) << 31) // ((state >> 33) + 1)
    return shard


@dataclass(frozen=True)
class Shard:
    """One process among `count`.

    Attributes:
        previous_count: How many there were before; None: as many.
    """

    index: int
    count: int
    previous_count: int | None

    @classmethod
    def of(cls, settings: Settings, *, hostname: str) -> Self:
        """The shard that settings mean on the machine of that name.

        Raises:
            ValueError: `auto` finds no number there, or one that is too high.
        """
        index = settings.index
        if index == "auto":
            match = re.search(r"-(\d{1,9})$", hostname.partition(".")[0])
            if match is None or int(match[1]) >= settings.count:
                raise ValueError(
                    f"auto takes a number from 0 to {settings.count - 1} from the end of the host "
                    f"name, as in exporter-0, and this host is called {hostname!r}"
                )
            index = int(match[1])
        return cls(index, settings.count, settings.previous_count)


class Share(NamedTuple):
    """What of one workflow falls to a shard."""

    shard: Shard
    account: str
    """Its id where that is given: a name may change."""
    workflow: str
    began: float = -inf
    """Unix time since when there are so many shards, as far as this one knows."""

    @property
    def leads(self) -> bool:
        """Whether this shard alone shows what the platform says of the workflow as a whole."""
        return shard_of(self.shard.count, self.account, self.workflow) == self.shard.index

    def has(self, instance_id: str) -> bool:
        """Whether this shard watches an instance."""
        return self._shard(self.shard.count, instance_id) == self.shard.index

    def since(self, instance_id: str) -> float:
        """Unix time; what ended of an instance before it was another shard's to count."""
        before = self.shard.previous_count
        stayed = before is None or self._shard(before, instance_id) == self.shard.index
        return -inf if stayed else self.began

    def _shard(self, count: int, instance_id: str) -> int:
        return 0 if count == 1 else shard_of(count, self.account, self.workflow, instance_id)
