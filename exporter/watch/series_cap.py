"""Which discovered instances of a workflow have series: those that the selector takes, once they
have errored or are `min_age` old, and at most `max_instances`.

Where there are more, errored instances come before live ones, live ones before ended ones, and last
come those that the selector took once and no longer does. Who comes later gives way.
"""

from enum import IntEnum

from exporter.clock import Clock
from exporter.config.settings import Poll
from exporter.statuses import ENDED
from exporter.watch.instance import Instance
from exporter.watch.selector import Selector
from exporter.watch.sink import Sink
from exporter.watch.workflow_state import WorkflowState


class _Rank(IntEnum):
    """Who comes first."""

    ERRORED = 0
    LIVE = 1
    ENDED = 2
    LEAVING = 3


_Giver = tuple[_Rank, float, str]


class SeriesCap:
    """The places of one workflow; configured instances take none.

    Args:
        watched: The instances.
        selector: Which are to have series.
    """

    def __init__(
        self, watched: WorkflowState, selector: Selector, *, sink: Sink, poll: Poll, clock: Clock
    ) -> None:
        self.selector = selector
        self._state = watched
        self._sink = sink
        self._poll = poll
        self._clock = clock
        self._taken = 0
        self._givers: list[_Giver] | None = None
        """Instances with series by rank and age, those that give way first at the end; None: to be
        listed when somebody asks for a place."""
        self._dropped: set[str] = set()
        self._dropping: set[str] = set()

    def reselect(self) -> None:
        """Takes the series of restored instances that are not selected, or are too many: the
        selector is not the one by which they had them."""
        self.recount()
        for instance in list(self._state.instances.values()):
            if instance.configured or not instance.shown or instance.expires_at is not None:
                continue
            run = instance.run
            if run and not self.selector.takes(run.status, run.end, self._clock.steady()):
                self._hide(instance)
        while self._taken > self.selector.limit and self._make_room(None):
            pass

    def pass_begins(self) -> None:
        """A list pass begins."""
        self._dropping = set()
        self.recount()

    def pass_ends(self) -> None:
        """A list pass succeeded: all that ask for a place have asked."""
        self._dropped = self._dropping

    def recount(self) -> None:
        """Looks again at who has series: what is known of them has changed."""
        instances = self._state.instances.values()
        self._taken = sum(i.shown and not i.configured for i in instances)
        self._givers = None

    def choose(self, instance: Instance, now: float) -> None:
        """Decides by its status and age at a Unix time whether an instance has series from now
        on."""
        run = instance.run
        if instance.not_found:
            return
        status, end = (run.status, run.end) if run else (instance.row_status or "", None)
        before = instance.shown, instance.expires_at
        taken, live = self.selector.takes(status, end, now), status not in ENDED
        if taken and not instance.shown and self._is_old_enough(instance, status, now):
            instance.shown = self._admit(instance)
        if live or (taken and instance.shown):
            instance.expires_at = None
        elif instance.expires_at is None:
            instance.expires_at = self._clock.monotonic() + self._poll.forget_after
            if instance.shown and self._givers is not None:
                self._givers.append(_giver(instance))
        if (instance.shown, instance.expires_at) != before:
            self._state.changed.add(instance.id)

    def _is_old_enough(self, instance: Instance, status: str, now: float) -> bool:
        created = instance.created
        return status == "errored" or created is None or now - created >= self.selector.min_age

    def _admit(self, instance: Instance) -> bool:
        """Whether there is a place; that there is none is counted once as long as it is so."""
        if self._taken < self.selector.limit or self._make_room(_giver(instance)[0]):
            self._taken += 1
            return True
        self._drop(instance)
        return False

    def _make_room(self, rank: _Rank | None) -> bool:
        """Has one give way that comes after those of a rank; None: the last of all."""
        if self._givers is None:
            self._givers = sorted(
                _giver(i) for i in self._state.instances.values() if i.shown and not i.configured
            )
        while self._givers:
            giver = self._givers[-1]
            instance = self._state.instances.get(giver[2])
            if instance is None or not instance.shown or _giver(instance) != giver:
                self._givers.pop()  # it has moved since
                continue
            if rank is not None and giver[0] <= rank:
                return False
            self._givers.pop()
            if giver[0] is not _Rank.LEAVING:
                self._drop(instance)
            self._hide(instance)
            return True
        return False

    def _drop(self, instance: Instance) -> None:
        if instance.id not in self._dropped | self._dropping:
            self._sink.dropped()
        self._dropping.add(instance.id)

    def _hide(self, instance: Instance) -> None:
        """From now on it is only counted."""
        instance.shown = False
        self._taken -= 1
        if not instance.live and instance.run is not None and instance.expires_at is None:
            instance.expires_at = self._clock.monotonic() + self._poll.forget_after
        self._sink.forgotten(self._state.key, instance.id)
        self._state.changed.add(instance.id)


def _giver(instance: Instance) -> _Giver:
    """An instance's place in the order; of one rank, the newest gives way first."""
    status = instance.run.status if instance.run else instance.row_status
    if status == "errored" and instance.expires_at is None:
        rank = _Rank.ERRORED
    elif status not in ENDED:
        rank = _Rank.LIVE
    else:
        rank = _Rank.ENDED if instance.expires_at is None else _Rank.LEAVING
    return rank, instance.created or 0.0, instance.id
