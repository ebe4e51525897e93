"""What holds for any script, intervention and moment."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import (
    LOCAL_ENGINE,
    Attempt,
    Error,
    Instance,
    ManualClock,
    Parallel,
    Script,
    Sleep,
    Step,
    Style,
    Wait,
    Workflow,
    World,
)
from simulator.api_results import instance_detail, instance_row
from simulator.list_pages import instances_page
from simulator.run_script import Piece

from .sdk import check_instance

ENDED = {"complete", "errored", "terminated"}

times = st.integers(0, 200).map(lambda tenths: tenths / 10)
names = st.sampled_from(["a", "b", "c"])
# None, a piece that never ends, hides all that would come after it: let it be rare.
durations = st.integers(0, 200).map(lambda tenths: None if tenths == 199 else tenths / 10)
errors = st.builds(Error, st.sampled_from(["Error", "TypeError"]), st.just("boom"))
attempts = st.builds(Attempt, durations, st.none() | errors)
play_steps = st.builds(
    Step,
    names,
    st.lists(attempts, min_size=1, max_size=4).map(tuple),
    backoff=durations,
    caught=st.booleans(),
)
pieces = (
    play_steps
    | st.builds(Sleep, names, durations)
    | st.builds(Wait, names, st.sampled_from(["x", "y"]), times, st.booleans())
)
branches = st.lists(pieces, max_size=3).map(tuple)
groups = st.builds(Parallel, st.lists(branches, max_size=3).map(tuple))
scripts = st.builds(
    Script,
    st.lists(pieces | groups, max_size=5).map(tuple),
    queued=durations,
    throws=st.none() | errors,
    rollback=st.lists(play_steps, max_size=2).map(tuple),
)
styles = st.sampled_from([Style(), LOCAL_ENGINE]) | st.builds(
    Style,
    planned_ends=st.booleans(),
    running_attempts=st.booleans(),
    modified_on=st.sampled_from(["status", "step"]),
)
interventions = st.sampled_from(
    ["pause", "resume", "terminate", "roll back", "event x", "event y", "restart"]
)


def intervene(instance: Instance, what: str) -> None:
    match what.split():
        case ["event", kind]:
            instance.send_event(kind)
        case ["roll", _]:
            instance.terminate(rollback=True)
        case [verb]:
            getattr(instance, verb)()


def answer(instance: Instance, **how: bool) -> dict[str, Any]:
    result: dict[str, Any] = instance_detail(instance, instance.workflow.world.settle(), **how)
    return result


def start(script: Script, style: Style) -> tuple[ManualClock, Instance]:
    clock = ManualClock()
    return clock, World(clock, style=style).account("a").workflow("w").create("i", script)


def finished(step: dict[str, Any]) -> bool:
    return bool(step.get("finished", step.get("end") is not None or step["type"] == "termination"))


def agrees_with_itself(shown: dict[str, Any]) -> None:
    steps = shown["steps"]
    assert shown["step_count"] == len(steps)
    assert (shown["status"] in ENDED) == (shown["end"] is not None)
    assert (shown["error"] is not None) == (shown["status"] == "errored")
    if shown["status"] == "queued":
        assert (shown["start"], steps) == (None, [])
    if shown["status"] == "complete":
        assert all(finished(step) for step in steps)
    starts = [step["start"] for step in steps if "start" in step]
    assert starts == sorted(starts)
    # The counter of a sleep is also that of its duration, which isn't shown.
    named = [(s["type"], s["name"]) for s in steps if "name" in s and s["type"] != "sleep"]
    assert len(set(named)) == len(named)
    for step in steps:
        for attempt in step.get("attempts", []):
            assert (attempt["end"] is None) == (attempt["success"] is None)
            assert step["start"] <= attempt["start"]
            assert step["end"] is None or (attempt["end"] or "") <= step["end"]


def continues_from(now: dict[str, Any], before: dict[str, Any]) -> None:
    """What was finished is still there, unchanged; steps may outlive a run."""
    if now["queued"] != before["queued"]:
        return
    unchanged = now["steps"]
    for index, step in enumerate(before["steps"]):
        assert unchanged[index].get("name") == step.get("name")
        if finished(step):
            assert unchanged[index] == step
        ended = [a for a in step.get("attempts", []) if a["end"] is not None]
        assert unchanged[index].get("attempts", [])[: len(ended)] == ended
    if before["end"] is not None:
        assert {**now, "steps": None} == {**before, "steps": None}
        assert len(now["steps"]) == len(before["steps"])


@pytest.mark.slow
@given(scripts, styles, st.lists(st.tuples(times, st.none() | interventions), max_size=12))
@settings(deadline=None)
def test_responses_are_consistent_and_only_ever_continue(
    script: Script, style: Style, course: list[tuple[float, str | None]]
) -> None:
    """Whatever is done to an instance, and whenever it is polled."""
    clock, instance = start(script, style)
    before = answer(instance)
    for gap, what in course:
        clock.advance(gap)
        shown = answer(instance)
        agrees_with_itself(shown)
        continues_from(shown, before)
        if what is not None:
            intervene(instance, what)
        before = answer(instance)
        agrees_with_itself(before)
        if what is None:
            assert before == shown


@pytest.mark.slow
@given(scripts, st.lists(st.tuples(times, st.none() | interventions), max_size=8))
@settings(deadline=None)
def test_simple_full_turned_and_listed_answers_tell_the_same(
    script: Script, course: list[tuple[float, str | None]]
) -> None:
    clock, instance = start(script, Style())
    for gap, what in course:
        clock.advance(gap)
        if what is not None:
            intervene(instance, what)
        full = answer(instance)
        check_instance(full)
        assert answer(instance, simple=True) == {k: v for k, v in full.items() if k != "steps"}
        assert answer(instance, descending=True)["steps"] == full["steps"][::-1]
        row = instance_row(instance, instance.workflow.world.settle())
        assert row["status"] == full["status"]
        assert (row["started_on"], row["ended_on"]) == (full["start"], full["end"])
        assert row["modified_on"] >= full["queued"]
        assert instance.workflow.by_status[full["status"]] == [instance]


@pytest.mark.slow
@given(scripts, st.lists(times, min_size=1, max_size=6), times, interventions)
@settings(deadline=None)
def test_an_intervention_leaves_the_past_as_it_was(
    script: Script, moments: list[float], at: float, what: str
) -> None:
    clock, instance = start(script, Style())
    begin = clock()
    earlier = [round((begin + moment) * 1000) for moment in moments if moment < at]
    seen = [instance_detail(instance, moment) for moment in earlier]
    clock.advance(at)
    intervene(instance, what)
    after = [instance_detail(instance, moment) for moment in earlier]
    for planned in (*seen, *after):
        # An end that is merely planned may change.
        for step in planned["steps"]:
            step.pop("end" if step.get("finished") is False else "", None)
    assert after == seen


@pytest.mark.slow
@given(
    st.lists(st.tuples(times, scripts), min_size=1, max_size=12),
    st.lists(st.tuples(times, st.integers(0, 20), interventions | st.just("delete")), max_size=8),
    st.sampled_from(["asc", "desc"]),
    st.integers(1, 5),
)
@settings(deadline=None, max_examples=50)
def test_lists_hold_every_instance_once_under_its_status(
    planned: list[tuple[float, Script]],
    course: list[tuple[float, int, str]],
    direction: str,
    per_page: int,
) -> None:
    clock = ManualClock()
    workflow = World(clock).account("a").workflow("w")
    instances = [
        workflow.create(f"i-{n}", script, at=clock() + gap)
        for n, (gap, script) in enumerate(planned)
    ]
    for gap, index, what in (*course, (0.0, 0, "resume")):
        clock.advance(gap)
        now = workflow.world.settle()
        instance = instances[index % len(instances)]
        if instance.exists(now):
            intervene(instance, what)
        now = workflow.world.settle()
        present = [i for i in instances if i.exists(now)]
        expected = sorted(present, key=lambda i: i.key, reverse=direction == "desc")
        assert pass_done(workflow, per_page, direction) == [i.id for i in expected]
        for status in {i.status(now) for i in present}:
            ids = [i.id for i in expected if i.status(now) == status]
            assert pass_done(workflow, per_page, direction, status=status) == ids
        counts = {s: n for s, n in workflow.counts(now).items() if n}
        assert sum(counts.values()) == len(present)


def pass_done(workflow: Workflow, per_page: int, direction: str, **query: str) -> list[str]:
    """The ids of a whole list, by cursor."""
    query |= {"per_page": str(per_page), "direction": direction}
    ids: list[str] = []
    for _ in range(20):
        rows, info = instances_page(workflow.world, workflow, query, workflow.world.settle())
        ids += [row["id"] for row in rows]
        if "cursor" not in info:
            return ids
        query["cursor"] = info["cursor"]
    raise AssertionError("the list doesn't end")


def flat(pieces: tuple[Piece, ...]) -> list[Piece]:
    """All pieces, those in groups too."""
    found: list[Piece] = []
    for piece in pieces:
        inner = [flat(b) for b in piece.branches] if isinstance(piece, Parallel) else [[piece]]
        found += [p for branch in inner for p in branch]
    return found


@pytest.mark.slow
@given(scripts)
@settings(deadline=None)
def test_no_run_has_more_steps_than_its_script(script: Script) -> None:
    clock, instance = start(script, Style())
    clock.advance(1e6)
    most = len(flat(script.pieces)) + len(script.rollback)
    assert answer(instance)["step_count"] <= most
