"""What the state holds is read by every later version: a new field of a record goes to its end."""

import msgspec

from exporter.instances.run import Run
from exporter.instances.state_records import InstanceRecord, LastRow, WorkflowRecord
from exporter.instances.values import InstanceValues, OpenStep
from exporter.metrics.series import Histogram, SeriesData
from exporter.state.backend import Table
from exporter.state.record_codec import DECODE

RUN = [1.5, "running", 2.5, 3.5, 4, True, False, {("step", "pay-1", 5.5): 6}, 7.5, True, 8.5]
OPEN_STEP = ["pay-1", "step", 2, 9.5, 10.5]
VALUES = [
    "running",
    "version",
    "api",
    "Boom",
    "charge-1",
    3,
    {("step", "failure"): 1},
    {"success": 1},
    2,
    [OPEN_STEP],
    *(11.5, 12.5, 13.5, 14.5, 15.5),
]
ROW = ["running", 16.5, 17.5]
INSTANCE = [18.5, True, RUN, VALUES, 19.5, 20.5, True, 1, 21.5, ROW, 22.5]
WORKFLOW = [1.5, 2.5, 3.5, 4.5, 5.5, True]
HISTOGRAM = [[1.0, 2.0], [3, 4, 5], 6.5]


def decoded(table: Table, record: object) -> object:
    return DECODE[table](msgspec.msgpack.encode(record))


def test_an_instance() -> None:
    run = Run(
        queued=1.5,
        status="running",
        start=2.5,
        end=3.5,
        step_count=4,
        queue_observed=True,
        end_observed=False,
        marks={("step", "pay-1", 5.5): 6},
        sealed=7.5,
        ended_by_row=True,
        newest=8.5,
    )
    values = InstanceValues(
        status="running",
        version_id="version",
        trigger="api",
        error_name="Boom",
        error_step="charge-1",
        step_count=3,
        steps={("step", "failure"): 1},
        attempts={"success": 1},
        retries=2,
        open_steps=(OpenStep(name="pay-1", type="step", attempts=2, start=9.5, retry_limit=10.5),),
        queued=11.5,
        start=12.5,
        end=13.5,
        queue_duration=14.5,
        run_duration=15.5,
    )
    assert decoded("instances", INSTANCE) == InstanceRecord(
        since=18.5,
        shown=True,
        run=run,
        values=values,
        last_change=19.5,
        detailed_at=20.5,
        wants_detail=True,
        not_found=1,
        expires_at=21.5,
        row=LastRow(status="running", created=16.5, modified=17.5),
        removed_at=22.5,
    )


def test_a_workflow() -> None:
    assert decoded("workflows", WORKFLOW) == WorkflowRecord(
        since=1.5,
        last_pass=2.5,
        horizon=3.5,
        discovered_since=4.5,
        newest_unwatched=5.5,
        deleted=True,
    )


def test_a_series() -> None:
    histogram = Histogram(bounds=(1.0, 2.0), counts=[3, 4, 5], sum=6.5)
    assert decoded("series", [HISTOGRAM, 7.5]) == SeriesData(value=histogram, created=7.5)
    assert decoded("series", [8.5, None]) == SeriesData(value=8.5)
