"""Which instance gives way to another when instances change while one pass is made."""

from msgspec.structs import replace

from exporter.clock import Clock
from exporter.config.accounts import Discover
from exporter.config.metrics import Metrics
from exporter.config.settings import Poll
from exporter.instances.instance import Instance, Scope
from exporter.instances.run import Run
from exporter.instances.state_records import InstanceRecord, LastRow, WorkflowRecord
from exporter.instances.values import InstanceValues
from exporter.metrics.catalogue import WorkflowKey
from exporter.metrics.store import Store
from exporter.watch.selector import Selector
from exporter.watch.series_limit import SeriesLimit
from exporter.watch.watched_instances import WatchedInstances
from tests.instances.times import EPOCH

NOW = EPOCH + 1000
OLD = NOW - 90_000
"""An end longer ago than `discover.max_age`."""
KEY = WorkflowKey("acc", "orders")


class Pass:
    """A pass over a workflow in which two instances, or as many as given, may have series."""

    def __init__(self, places: int = 2) -> None:
        statuses = ["running", "errored", "complete"]
        discover = {"max_instances": places, "min_age": "0s", "statuses": statuses}
        selector = Selector(Discover.model_validate(discover))
        store = Store(Metrics())
        store.attached(KEY)
        self.watched = WatchedInstances(
            key=KEY,
            owner=("acc", "orders"),
            record=WorkflowRecord(0.0),
            configured_ids=frozenset(),
            selector=selector,
            backfill=None,
            poll=Poll(),
            store=store,
            clock=Clock(wall=lambda: NOW, monotonic=lambda: 1000.0),
        )
        self.limit = SeriesLimit(self.watched, selector)
        self.limit.recount()

    def found(self, instance_id: str, status: str, created: float, end: float = NOW) -> Instance:
        """An instance that is found, and then chosen if there is a place for its series."""
        record = InstanceRecord(
            since=EPOCH,
            run=Run(EPOCH, status, end=end),
            values=InstanceValues(status, "v1", "api"),
            row=LastRow(status, EPOCH + created),
        )
        instance = self.watched.begin(instance_id, Scope.COUNTED, record)
        self.limit.choose(instance)
        return instance

    @property
    def shown(self) -> set[str]:
        return {i.id for i in self.watched.instances.values() if i.has_series}


def change(instance: Instance, status: str, end: float) -> None:
    assert instance.run
    assert instance.values
    instance.run = replace(instance.run, status=status, end=end)
    instance.values = replace(instance.values, status=status)


def test_one_that_has_errored_meanwhile_keeps_its_place() -> None:
    listed = Pass()
    old = listed.found("old", "running", 1)
    listed.found("new", "running", 2)
    listed.found("errored", "errored", 3)
    assert listed.shown == {"old", "errored"}
    change(old, "errored", NOW)
    listed.found("errored too", "errored", 4)
    assert listed.shown == {"old", "errored"}


def test_one_that_begins_to_expire_gives_way_first_and_once() -> None:
    listed = Pass()
    listed.found("live", "running", 1)
    ended = listed.found("ended", "complete", 2)
    listed.found("ended too", "complete", 3)
    assert listed.shown == {"live", "ended"}
    change(ended, "complete", OLD)
    listed.limit.choose(ended)
    listed.found("errored", "errored", 4)
    assert listed.shown == {"live", "errored"}
    listed.found("errored too", "errored", 5)
    assert listed.shown == {"errored", "errored too"}


def test_of_those_that_expire_the_newest_gives_way_first_whichever_was_chosen_last() -> None:
    listed = Pass(places=3)
    ended = [listed.found(f"ended {number}", "complete", number) for number in range(3)]
    for instance in ended:
        change(instance, "complete", OLD)
        listed.limit.choose(instance)
    listed.found("errored", "errored", 4)
    assert listed.shown == {"ended 0", "ended 1", "errored"}
    listed.limit.choose(ended[0])
    listed.found("errored too", "errored", 5)
    assert listed.shown == {"ended 0", "errored", "errored too"}


def test_one_that_has_no_series_makes_no_room_and_is_in_nobodys_way() -> None:
    listed = Pass()
    for number in range(3):
        listed.found(f"live {number}", "running", number)
    listed.found("old", "errored", 4, end=OLD)
    listed.found("errored", "errored", 5)
    assert listed.shown == {"live 0", "errored"}
