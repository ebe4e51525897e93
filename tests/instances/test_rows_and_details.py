"""Rows and detail responses of one instance, as they come in turn: what they count is true."""

from hypothesis import given
from hypothesis import strategies as st

from exporter.cloudflare.models import Detail, Row
from exporter.instances.list_rows import take_row
from exporter.instances.run_tracker import track
from exporter.statuses import ENDED
from tests.instances.times import EPOCH, at

SECONDS = st.integers(2, 500)
RUN = st.tuples(SECONDS, SECONDS, SECONDS | st.none(), st.sampled_from(sorted(ENDED)))
"""Seconds before it is queued, in the queue, and of its work, and how it ends; without work, it is
terminated in the queue."""
COMES = st.lists(st.sampled_from(["row", "detail"]), min_size=1, max_size=2)


@given(st.lists(RUN, min_size=1, max_size=4), st.data())
def test_each_wait_and_each_end_counts_once_and_as_it_was(
    runs: list[tuple[int, int, int | None, str]], data: st.DataObject
) -> None:
    """Of an instance that is restarted from the start each time."""
    run, values, now = None, None, 0
    created = runs[0][0]
    for before, waits, works, ending in runs:
        queued = now + before
        start = None if works is None else queued + waits
        end = queued + waits + (works or 0)
        true: list[tuple[str, float | None]] = [("terminated", None)]
        moments = {queued: "queued", end: "terminated"}
        if start is not None:
            true = [("queue", waits), (ending, works)]
            moments = {queued: "queued", start: "running", end: ending}
        for now, status in moments.items():
            began = None if start is None or start > now else start
            ended = end if end == now else None
            detail = Detail(status=status, queued=at(queued), start=at(began), end=at(ended))
            row = Row("a", status, at(created), at(began), at(ended), at(now))
            come = data.draw(COMES)
            for kind in come:
                if kind == "row":
                    taken = take_row(run, values, row, now=EPOCH + now)
                else:
                    taken = track(run, detail, now=EPOCH + now)
                if taken is None:
                    continue
                run, values, new = taken
                if new.queue_duration is not None:
                    true.remove(("queue", new.queue_duration))
                if new.run is not None:
                    true.remove((new.run.status, new.run.duration))
        # Without a detail response, it may not be known which run the rows are of.
        assert not true or "detail" not in come
