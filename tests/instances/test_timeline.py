"""The steps that an instance's page shows."""

from datetime import timedelta

from hypothesis import given

from exporter.cloudflare.models import Attempt, Detail, Error, Step
from exporter.instances.timeline import LATEST, Entry, pack, unpack
from tests.instances.histories import Life, lives
from tests.instances.times import QUEUED

NOW = QUEUED.timestamp() + 1000


def at(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


def step(name: str, start: float, end: float | None = None) -> Step:
    """A step that succeeded, or is open without an end."""
    return Step(
        type="step",
        name=name,
        start=QUEUED + at(start),
        end=None if end is None else QUEUED + at(end),
        success=None if end is None else True,
        attempts=[Attempt(start=QUEUED + at(start))],
    )


def entries(*steps: Step) -> tuple[Entry, ...]:
    return unpack(pack(Detail(queued=QUEUED, steps=list(steps)), now=NOW)).entries


class TestEntries:
    def test_a_step_with_its_attempts_and_the_name_of_its_error(self) -> None:
        failed = Attempt(QUEUED, QUEUED + at(1), success=False, error=Error("Late", "secret"))
        charge = Step(
            type="step",
            name="charge-1",
            start=QUEUED,
            end=QUEUED + at(2.5),
            success=False,
            attempts=[failed, failed],
        )
        (entry,) = entries(charge)
        start = QUEUED.timestamp()
        assert entry == Entry("charge-1", "step", "failure", start, start + 2.5, 2, 2, "Late")
        assert entry.seconds == 2.5

    def test_an_open_step_took_nothing_yet(self) -> None:
        (entry,) = entries(step("charge-1", 3))
        assert (entry.outcome, entry.seconds) == ("running", None)

    def test_an_open_sleep_shows_until_when(self) -> None:
        (entry,) = entries(
            Step(type="sleep", name="nap-1", start=QUEUED, end=QUEUED + at(5000), finished=False)
        )
        assert (entry.end, entry.seconds) == (QUEUED.timestamp() + 5000, None)

    def test_a_sleep_that_was_ended_early_ends_now_at_the_latest(self) -> None:
        (entry,) = entries(
            Step(type="sleep", name="nap-1", start=QUEUED, end=QUEUED + at(5000), finished=True)
        )
        assert entry.seconds == 1000

    def test_they_stand_by_their_start(self) -> None:
        names = [entry.name for entry in entries(step("b", 2), step("c", 3, 4), step("a", 1, 9))]
        assert names == ["a", "b", "c"]

    def test_a_step_without_anything(self) -> None:
        assert entries(Step()) == (Entry("", "unknown", "running", None, None, 0, 0, None),)


class TestBounds:
    def test_it_holds_the_latest_and_all_that_are_open(self) -> None:
        steps = [step("open", 0), *(step(f"s-{n}", n, n + 0.5) for n in range(1, 1001))]
        timeline = unpack(pack(Detail(queued=QUEUED, steps=steps), now=NOW))
        names = [entry.name for entry in timeline.entries]
        assert names == ["open", *(f"s-{n}" for n in range(1001 - LATEST, 1001))]
        assert timeline.earlier == 1000 - LATEST

    def test_open_ones_take_no_place_of_the_latest_that_finished(self) -> None:
        steps = [step("first", 0, 1), *(step(f"o-{n}", n) for n in range(2, LATEST + 3))]
        assert [entry.name for entry in entries(*steps)][:2] == ["first", "o-3"]

    def test_open_ones_without_end_are_bounded_too(self) -> None:
        timeline = unpack(
            pack(Detail(queued=QUEUED, steps=[step("o", n) for n in range(1000)]), now=NOW)
        )
        assert (len(timeline.entries), timeline.earlier) == (LATEST, 1000 - LATEST)

    def test_names_are_cut(self) -> None:
        name = "\N{ROCKET}" * 100_000
        long = Step(type=name, name=name, error=Error(name), finished=True)
        assert len(pack(Detail(queued=QUEUED, steps=[long]), now=NOW)) < 4000

    def test_twenty_steps_fit_in_a_kibibyte_and_a_half(self) -> None:
        steps = [step(f"load-the-order-{n}", n, n + 0.25) for n in range(20)]
        assert len(pack(Detail(queued=QUEUED, steps=steps), now=NOW)) < 1536

    @given(lives())
    def test_every_step_of_a_short_life_is_there(self, life: Life) -> None:
        for response in life.responses:
            timeline = unpack(pack(response, now=NOW))
            assert len(timeline.entries) + timeline.earlier == len(response.steps or ())
