"""Change detection: whether a simple response shows anything that wasn't known.

The fingerprint of a response holds its fields that change when the instance does; equal
fingerprints mean that there is nothing to fetch.
"""

from hashlib import blake2b

from msgspec import Struct, msgpack

from exporter.cloudflare.models import Summary, unix

Fingerprint = bytes
"""Two digests of 8 bytes, the second without what changes while a run continues from step to step.
Tens of thousands are in memory."""

# Between steps a long run waits, maybe thousands of times.
_UNDER_WAY = ("running", "waiting")


def fingerprint(response: Summary) -> Fingerprint:
    """What of a response changes when the instance does."""
    status, _, *others = fields = _fields(response)
    progress = _UNDER_WAY if status in _UNDER_WAY else status
    return _digest(fields) + _digest((progress, *others))


def _fields(response: Summary) -> tuple[object, ...]:
    return (
        response.status,
        None if response.step_count is None else int(response.step_count),
        unix(response.queued),
        unix(response.start),
        unix(response.end),
        response.success,
        response.version_id,
        response.error.name if response.error else None,
    )


def _digest(values: tuple[object, ...]) -> bytes:
    return blake2b(msgpack.encode(values), digest_size=8).digest()


class Fingerprints(Struct, frozen=True, array_like=True, gc=False):
    """The fingerprints that stand for an instance as it is known; recorded in the state.

    Normally one: a simple response repeats the fields of the detail response. Where an upstream's
    simple responses lack some of them for good, the detail response that follows brings nothing
    new; that simple response then stands for the instance, too, so that an instance at rest costs
    no detail requests. Any news drops it, so it never hides a change.
    """

    detail: Fingerprint | None = None
    """Of the last detail response."""
    simple: Fingerprint | None = None
    """Of a simple response that brought nothing new and lacks fields."""

    @property
    def seen(self) -> bool:
        return self.detail is not None

    def knows(self, simple: Summary, *, but_progress: bool = False) -> bool:
        """Whether a simple response shows nothing new; with `but_progress`: at most that the run
        continues, from step to step and from running to waiting and back."""
        new, part = fingerprint(simple), slice(8, 16) if but_progress else slice(16)
        return any(new[part] == known[part] for known in (self.detail, self.simple) if known)

    def updated(self, detail: Summary, *, after: Summary | None, changed: bool) -> "Fingerprints":
        """With a detail response, which followed a simple one that wasn't known, if any.

        `changed` says whether the detail response changed any value.
        """
        new = fingerprint(detail)
        if changed or new != self.detail:
            return Fingerprints(new)
        if after is None or not _only_lacks(after, detail):
            return Fingerprints(new, self.simple)
        return Fingerprints(new, fingerprint(after))


def _only_lacks(simple: Summary, detail: Summary) -> bool:
    """Whether a simple response has nothing that the detail response after it contradicts; if it
    has, that may come from a replica that is behind."""
    pairs = zip(_fields(simple), _fields(detail), strict=True)
    return all(one is None or one == other for one, other in pairs)
