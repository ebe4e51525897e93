"""Which discovered instances of a workflow have series: those that the selector takes, once they
have errored or are `min_age` old, but at most `max_instances`.

At the limit, errored instances rank before live ones, and live ones before ended ones. Last come
those that were deleted, or that the selector no longer takes. An instance that ranks higher takes
the place of the one that ranks lowest. What that does to the two, `lifecycle` decides.
"""

from bisect import insort
from typing import NamedTuple

from exporter.instances import lifecycle
from exporter.instances.instance import Instance, Scope
from exporter.statuses import ENDED
from exporter.watch.selector import Selector
from exporter.watch.watched_instances import WatchedInstances

_ERRORED, _LIVE, _ENDED, _LEAVING = range(4)
"""The ranks of instances, in the order in which they get series."""


class _Position(NamedTuple):
    """Where an instance stands in the order in which instances give way, the last one first. Of one
    rank, that is the newest."""

    rank: int
    created: float
    id: str


class SeriesLimit:
    """The limited number of places for series in one workflow. Configured instances take none.

    Args:
        watched: The instances.
        selector: Decides which instances are selected, and how many places there are.
    """

    def __init__(self, watched: WatchedInstances, selector: Selector) -> None:
        self._selector = selector
        self._limits = selector.discover
        self._watched = watched
        self._order: list[_Position] | None = None
        """The positions of discovered instances with series, sorted. None: the list is to be made
        when a place is needed."""
        self._dropped: set[str] = set()
        """Instances that have no series because there was no place."""
        self._taken = 0
        """Places that are taken."""

    def reselect(self) -> None:
        """Removes the series of restored instances that are not selected: they got them under
        another selector."""
        for instance in list(self._watched.instances.values()):
            if instance.scope is not Scope.DISCOVERED or instance.expires_at is not None:
                continue
            run = instance.run
            if run and not self._selector.takes(run.status, run.end, self._watched.now):
                self._give_up(instance)

    def recount(self) -> None:
        """Counts the taken places again, since instances have changed. If there are more than the
        limit, as after a change of settings, the last give way."""
        instances = self._watched.instances.values()
        self._taken = sum(i.scope is Scope.DISCOVERED for i in instances)
        self._dropped &= {i.id for i in instances if not i.has_series}
        self._order = None
        while self._taken > self._limits.max_instances and self._make_room(after=-1):
            pass

    def choose(self, instance: Instance) -> None:
        """Decides by status and age whether a discovered instance has series."""
        if instance.configured or instance.last_poll.not_found:
            return
        now, created = self._watched.now, instance.created
        run, status = instance.run, instance.status or ""
        selected = self._selector.takes(status, run.end if run else None, now)
        is_old = status == "errored" or created is None or now - created >= self._limits.min_age
        placed = selected and is_old and not instance.has_series and self._admit(instance)
        self._watched.apply(lifecycle.on_selected, instance, selected=selected, placed=placed)
        if self._order is not None and instance.has_series:
            position = self._position(instance)
            if position.rank == _LEAVING:
                insort(self._order, position)

    def _admit(self, instance: Instance) -> bool:
        """Takes a place for an instance, if there is one. That there is none is counted only once
        for each instance."""
        full = self._taken >= self._limits.max_instances
        if full and not self._make_room(after=self._position(instance).rank):
            if instance.id not in self._dropped:
                self._dropped.add(instance.id)
                self._watched.store.dropped()
            return False
        self._taken += 1
        return True

    def _make_room(self, *, after: int) -> bool:
        """Has the last instance give way if it ranks after the given rank. Returns whether it
        did."""
        if self._order is None:
            instances = self._watched.instances.values()
            shown = (i for i in instances if i.scope is Scope.DISCOVERED)
            self._order = sorted(map(self._position, shown))
        while self._order and self._order[-1].rank > after:
            last = self._order.pop()
            instance = self._watched.instances.get(last.id)
            if instance is None or not instance.has_series or self._position(instance) != last:
                continue  # it has changed since
            self._give_up(instance)
            return True
        return False

    def _give_up(self, instance: Instance) -> None:
        """Removes the series of an instance; from now on it is only counted."""
        self._watched.apply(lifecycle.on_series_given_up, instance)
        self._taken -= 1

    def _position(self, instance: Instance) -> _Position:
        status = instance.status or ""
        # An instance without series may expire for the very reason that it has none.
        leaves = instance.expires_at is not None or not self._selector.takes_status(status)
        if instance.has_series and leaves:
            rank = _LEAVING
        elif status == "errored":
            rank = _ERRORED
        elif status not in ENDED:
            rank = _LIVE
        else:
            rank = _ENDED
        return _Position(rank, instance.row.created or 0.0, instance.id)
