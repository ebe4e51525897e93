"""List rows: each kind of row of an instance of which each kind of thing is known."""

from datetime import datetime
from math import inf

import pytest
from msgspec.structs import replace

from exporter.cloudflare.models import Row
from exporter.instances.list_rows import has_times, news_of, take_row
from exporter.instances.run import FinishedRun, Observations, Run, Tracked
from exporter.instances.state_records import LastRow
from exporter.instances.values import InstanceValues, OpenStep
from exporter.statuses import BEFORE_END
from tests.instances.times import EPOCH, at

NOW = EPOCH + 3600


def row(status: str | None = "running", **fields: object) -> Row:
    """A row of an instance that started 2 s after it was created and, if ended, ended after 9."""
    ended = status in ("complete", "errored", "terminated")
    times = {"created_on": at(0), "started_on": at(2), "modified_on": at(9)}
    given = {**times, "ended_on": at(9) if ended else None, "version_id": "v1", **fields}
    return Row(id="a", status=status, **given)  # type: ignore[arg-type]


def known(status: str = "running", **fields: object) -> Run:
    """What a detail response of such an instance made known."""
    ended = status in ("complete", "errored", "terminated")
    run = Run(
        queued=EPOCH,
        status=status,
        start=EPOCH + 2,
        end=EPOCH + 9 if ended else None,
        step_count=3,
        queue_observed=True,
        end_observed=ended,
        newest=EPOCH + (9 if ended else 5),
    )
    return replace(run, **fields)


VALUES = InstanceValues(
    "running",
    "v1",
    "api",
    step_count=3,
    open_steps=(OpenStep("pay-1", "step", 2, EPOCH + 5),),
    queued=EPOCH,
    start=EPOCH + 2,
    queue_duration=2.5,
)
ERRORED = replace(VALUES, status="errored", error_name="Declined", error_step="pay-1", end=EPOCH)


def taken(run: Run | None, listed: Row, *, since: float = -inf, values: object = None) -> Tracked:
    tracked = take_row(run, values, listed, now=NOW, since=since)  # type: ignore[arg-type]
    assert tracked is not None
    return tracked


class TestTimes:
    @pytest.mark.parametrize(
        ("listed", "has"),
        [
            (row(), True),
            (row(started_on=None), True),
            (row(modified_on=None), True),
            (row(started_on=None, modified_on=None), False),
            (row("complete"), True),
            (row("complete", started_on=None, modified_on=None), True),
            (row("complete", ended_on=None), False),
        ],
    )
    def test_that_show_a_run(self, listed: Row, *, has: bool) -> None:
        assert has_times(listed) is has


class TestNews:
    LAST = LastRow("running", EPOCH, EPOCH + 9)

    @pytest.mark.parametrize(
        ("listed", "news"),
        [
            (row(), None),
            (row(modified_on=at(10)), LastRow("running", EPOCH, EPOCH + 10)),
            (row("errored"), LastRow("errored", EPOCH, EPOCH + 9)),
            (row("errored", modified_on=at(8)), None),
            (row(created_on=at(1)), LastRow("running", EPOCH + 1, EPOCH + 9)),
            (row(created_on=None, modified_on=None), None),
            (row("errored", created_on=None), LastRow("errored", EPOCH, EPOCH + 9)),
            (row("errored", modified_on=None), LastRow("errored", EPOCH, EPOCH + 9)),
        ],
    )
    def test_are_what_the_last_row_did_not_show(self, listed: Row, news: LastRow | None) -> None:
        assert news_of(listed, self.LAST) == news

    @pytest.mark.parametrize("modified", [None, at(9)])
    def test_are_all_that_the_first_row_shows(self, modified: datetime | None) -> None:
        listed = row(modified_on=modified)
        after = None if modified is None else EPOCH + 9
        assert news_of(listed, LastRow()) == LastRow("running", EPOCH, after)
        assert news_of(listed, LastRow("queued", EPOCH)) == LastRow("running", EPOCH, after)


class TestFirstSight:
    def test_of_a_live_instance(self) -> None:
        run, values, new = taken(None, row())
        assert new == Observations(queue_duration=2.0)
        assert run == Run(None, "running", EPOCH + 2, queue_observed=True)
        assert values == InstanceValues(
            "running", "v1", "unknown", start=EPOCH + 2, queue_duration=2.0
        )

    def test_of_an_ended_instance(self) -> None:
        run, values, new = taken(None, row("complete", trigger_source="cron"))
        assert new == Observations(FinishedRun("complete", 7.0), 2.0)
        assert run == Run(
            None,
            "complete",
            EPOCH + 2,
            EPOCH + 9,
            queue_observed=True,
            end_observed=True,
            ended_by_row=True,
        )
        assert (values.trigger, values.end, values.run_duration) == ("cron", EPOCH + 9, 7.0)

    @pytest.mark.parametrize("status", ["queued", "surprising", None])
    def test_of_one_that_has_not_started(self, status: str | None) -> None:
        run, values, new = taken(None, row(status, started_on=None))
        assert new == Observations()
        assert run == Run(None, status or "unknown")
        assert (values.status, values.queue_duration) == (status or "unknown", None)

    @pytest.mark.parametrize(
        ("since", "new"),
        [
            (EPOCH - 1, Observations(FinishedRun("errored", 7.0), 2.0)),
            (EPOCH, Observations(FinishedRun("errored", 7.0), 2.0)),
            (EPOCH + 1, Observations(FinishedRun("errored", 7.0))),
            (EPOCH + 9, Observations(FinishedRun("errored", 7.0))),
            (EPOCH + 10, Observations()),
        ],
    )
    def test_what_ended_before_is_history(self, since: float, new: Observations) -> None:
        tracked = taken(None, row("errored"), since=since)
        assert tracked.observations == new
        assert tracked.run.end_observed

    @pytest.mark.parametrize(("since", "counts"), [(NOW - 1, True), (NOW + 1, False)])
    def test_an_end_without_a_time_is_as_of_now(self, since: float, *, counts: bool) -> None:
        tracked = taken(None, row("errored", ended_on=None), since=since)
        assert (tracked.observations.run == FinishedRun("errored", None)) is counts


class TestOfTheKnownRun:
    @pytest.mark.parametrize(
        ("run", "listed", "ending"),
        [
            (known(), row("complete"), FinishedRun("complete", 7.0)),
            (known("errored"), row("errored"), None),
            (known("errored"), row("errored", ended_on=at(9.5)), None),
            (known("errored"), row("rollingBack"), None),
            (known("rollingBack", end_observed=True), row("errored", ended_on=at(20)), None),
            (known("queued", start=None), row(), None),
        ],
    )
    def test_its_end_counts_once(self, run: Run, listed: Row, ending: FinishedRun | None) -> None:
        tracked = taken(run, listed, values=VALUES)
        assert tracked.observations == Observations(ending)
        assert tracked.run.status == listed.status
        assert tracked.run.end_observed == (run.end_observed or ending is not None)

    def test_a_live_one_keeps_its_steps(self) -> None:
        run, values, _ = taken(known(), row("paused"), values=VALUES)
        assert run == known("paused")
        assert values == replace(VALUES, status="paused")

    def test_an_end_closes_its_steps_whose_number_is_not_known_any_more(self) -> None:
        run, values, _ = taken(known(), row("complete", version_id=None), values=VALUES)
        assert (run.step_count, run.ended_by_row, run.queued) == (0, True, EPOCH)
        assert values == replace(
            VALUES, status="complete", open_steps=(), end=EPOCH + 9, run_duration=7.0
        )
        again = taken(run, row("complete"), values=values)
        assert again == Tracked(run, values, Observations())

    def test_an_end_that_a_response_has_shown_keeps_the_number_of_its_steps(self) -> None:
        run = taken(known("errored"), row("errored"), values=ERRORED).run
        assert (run.step_count, run.ended_by_row) == (3, False)

    @pytest.mark.parametrize("status", ["errored", "rollingBack"])
    def test_its_error_stays_until_it_is_live(self, status: str) -> None:
        values = taken(known("errored"), row(status), values=ERRORED).values
        assert (values.error_name, values.error_step) == ("Declined", "pay-1")
        live = taken(known("errored"), row(modified_on=at(30)), values=ERRORED).values
        assert (live.error_name, live.error_step) == (None, None)

    def test_an_end_of_a_live_one_is_none(self) -> None:
        for run in (None, known()):
            tracked = taken(run, row(ended_on=at(9)), values=run and VALUES)
            assert (tracked.run.end, tracked.values.end) == (None, None)
            assert tracked.values.run_duration is None
            assert not tracked.observations.run

    def test_a_start_that_is_new_may_be_that_of_another_run(self) -> None:
        """It may have been restarted before it began."""
        waiting = known("queued", start=None, queue_observed=False)
        run, _, new = taken(waiting, row())
        assert (run.queued, run.start, run.queue_observed) == (None, EPOCH + 2, False)
        assert new.queue_duration is None
        assert taken(waiting, row("terminated", started_on=None)).run.queued is None
        assert taken(waiting, row("queued", started_on=None)).run.queued == EPOCH

    def test_its_version_may_be_another(self) -> None:
        assert taken(known(), row(version_id="v2"), values=VALUES).values.version_id == "v2"
        assert taken(None, row(version_id=None)).values.version_id == ""

    def test_the_first_run_waited_since_the_instance_was_created(self) -> None:
        listed = taken(None, row("queued", started_on=None))
        tracked = taken(listed.run, row(), values=listed.values)
        assert tracked.observations == Observations(queue_duration=2.0)
        assert tracked.values.queue_duration == 2.0
        again = taken(tracked.run, row(modified_on=at(20)), values=tracked.values)
        assert again.observations == Observations()

    def test_how_long_a_later_run_waited_no_row_shows(self) -> None:
        waiting = known("queued", queued=EPOCH + 60, start=None, queue_observed=False)
        values = replace(VALUES, status="queued", queued=EPOCH + 60, queue_duration=None)
        started = taken(waiting, row(started_on=at(62), modified_on=at(62)), values=values)
        end = row("complete", started_on=at(62), ended_on=at(69), modified_on=at(69))
        ended = taken(started.run, end, values=started.values)
        assert ended.observations == Observations(FinishedRun("complete", 7.0))
        assert not ended.run.queue_observed

    @pytest.mark.parametrize("created", [None, at(-5)])
    def test_without_a_time_of_creation_the_wait_is_not_known(
        self, created: datetime | None
    ) -> None:
        tracked = taken(None, row(created_on=created), since=EPOCH)
        assert tracked.observations == Observations()
        assert not tracked.run.queue_observed


class TestOfWhichRun:
    @pytest.mark.parametrize(
        ("run", "listed"),
        [
            (known(), row(started_on=at(3))),
            (known("errored"), row("errored", ended_on=at(8))),
            (known(newest=EPOCH + 10), row("complete")),
            (known(queued=EPOCH + 3, start=None), row()),
        ],
    )
    def test_times_a_second_apart_mean_one_moment(self, run: Run, listed: Row) -> None:
        assert take_row(run, VALUES, listed, now=NOW) is not None

    @pytest.mark.parametrize(
        ("run", "listed"),
        [
            (known(), row(started_on=at(4))),
            (known(), row(started_on=None)),
            (known("errored"), row("errored", ended_on=at(11))),
            (known("errored", end=None), row("errored", ended_on=at(7))),
            (known(newest=EPOCH + 30), row("complete")),
            (known(queued=EPOCH + 60, start=None), row()),
            (known(queued=EPOCH + 60, start=None), row("complete", started_on=None)),
        ],
        ids=[
            "start moved",
            "start missing",
            "end moved",
            "ended before what is known",
            "ended before its newest step",
            "started before it was queued",
            "ended before it was queued",
        ],
    )
    def test_only_a_detail_response_can_tell(self, run: Run, listed: Row) -> None:
        assert take_row(run, VALUES, listed, now=NOW) is None

    @pytest.mark.parametrize("status", sorted(BEFORE_END))
    def test_an_ended_run_that_is_live_again_was_restarted_from_a_step(self, status: str) -> None:
        run, values, new = taken(known("errored"), row(status, modified_on=at(30)), values=ERRORED)
        assert new == Observations()
        assert run == known(
            status, step_count=3, end_observed=False, newest=EPOCH + 29, queue_observed=True
        )
        assert (values.status, values.end, values.run_duration) == (status, None, None)
        ended = row("errored", modified_on=at(40), ended_on=at(40))
        assert taken(run, ended).observations == Observations(FinishedRun("errored", 38.0))

    @pytest.mark.parametrize(
        ("run", "modified"),
        [
            (known("errored"), at(10)),
            (known("errored", newest=-inf), at(10)),
            (known("errored", newest=EPOCH + 30), at(31)),
            (known("errored"), None),
            (known("errored", start=None), at(30)),
        ],
        ids=["as its end", "end of a row", "as its newest step", "no time", "start not known"],
    )
    def test_that_row_may_be_older_than_the_end(self, run: Run, modified: datetime | None) -> None:
        assert take_row(run, ERRORED, row(modified_on=modified), now=NOW) is None
