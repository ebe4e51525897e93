"""Which step an instance failed at, and the name of its error: each rule with its bounds."""

import pytest

from exporter.cloudflare.models import Attempt, Error, Step
from exporter.instances.failed_step import error_name, failed_step, step_error
from tests.instances.times import at

BOOM = Error("Error", "boom")
END = 20.0


def step(
    name: str,
    start: float | None,
    end: float | None,
    error: Error | None = BOOM,
    *,
    success: bool | None = False,
    kind: str = "step",
) -> Step:
    return Step(kind, name, at(start), at(end), success, error=error)


def found(*steps: Step, error: Error = BOOM, end: float | None = END) -> str | None:
    failed = failed_step(list(steps), error, at(end))
    return failed.name if failed else None


@pytest.mark.parametrize(
    ("steps", "name"),
    [
        ([step("a", 1, 5), step("b", 6, 9)], "b"),
        ([step("b", 6, 9), step("a", 1, 5)], "b"),
        ([step("a", 1, 9), step("b", 2, 5)], "a"),
        ([step("a", 1, 5), step("b", 5, 9, None, success=True)], "a"),
        ([step("a", 1, 5), step("b", 5.1, 9, None, success=True)], None),
        ([step("a", 1, 5), step("b", 5.1, None, None, success=None)], None),
        ([step("a", 1, 5), step("b", None, 9, None, success=True)], "a"),
        ([step("a", 1, 5), step("b", END, 30, None, success=True)], None),
        ([step("a", 1, 5), step("b", END + 1, 30, None, success=True)], "a"),
        ([step("a", 1, 5), step("undo", 6, 9, kind="rollback")], "a"),
        ([step("a", 1, 5), step("stop", 6, 9, kind="termination")], "a"),
        ([step("undo", 6, 9, kind="rollback")], None),
        ([step("a", 1, END)], "a"),
        ([step("a", 1, END + 1)], None),
        ([step("a", 1, None)], None),
        ([step("a", 1, 5, None, success=True)], None),
        ([step("nap", 1, 5, None, success=False, kind="sleep")], "nap"),
        ([step("a", 1, 9), step("b", 2, 9, Error("Error", "other"))], "a"),
        ([], None),
    ],
    ids=[
        "the last",
        "listed in any order",
        "the one that ended last",
        "another began at that moment",
        "another began after it",
        "another is open",
        "another has no start",
        "another began as the run ended",
        "another began after the run ended",
        "rollback",
        "termination",
        "only a rollback",
        "as the run ended",
        "after the run ended",
        "no end",
        "none failed",
        "without an error of its own",
        "the one of two with that error",
        "no steps",
    ],
)
def test_which_step_failed(steps: list[Step], name: str | None) -> None:
    assert found(*steps) == name


def test_of_a_run_whose_end_is_not_known_any_failure_may_be_the_cause() -> None:
    assert found(step("a", 1, 5000), end=None) == "a"


@pytest.mark.parametrize(
    ("cause", "error", "is_it"),
    [
        (Error("Error", "boom"), BOOM, True),
        (Error("RangeError", "boom"), BOOM, True),
        (Error("RangeError", "boom"), Error("Error", "RangeError: boom"), True),
        (Error("Error", "bang"), BOOM, False),
        (Error("Error", "boom"), Error("Error", None), False),
        (None, Error("TypeError", "anything"), True),
        (Error("Error", None), BOOM, True),
        (Error(None, None), BOOM, True),
        (Error("", ""), BOOM, True),
        (Error("RangeError", None), BOOM, False),
        (Error("RangeError", None), Error("Error", "RangeError: boom"), True),
        (Error("RangeError", None), Error("RangeError", None), False),
        (Error("WorkflowFatalError", "a"), Error("WorkflowFatalError", "b"), True),
        (Error("WorkflowTimeoutError", "a"), Error("WorkflowFatalError", "b"), False),
        (Error("TypeError", "a"), Error("TypeError", "b"), False),
        (Error(None, "a"), Error(None, "b"), False),
        (Error("Error", "x" * 99 + "yz"), Error("Error", "x" * 99 + "y"), True),
        (Error("Error", "x" * 99 + "z"), Error("Error", "x" * 99 + "y"), False),
    ],
)
def test_whose_error_it_is(cause: Error | None, error: Error, *, is_it: bool) -> None:
    assert found(step("a", 1, 5, cause), error=error) == ("a" if is_it else None)


@pytest.mark.parametrize(
    ("error", "cause", "name"),
    [
        (Error("Error", "RangeError: no"), Error("RangeError", "no"), "RangeError"),
        (Error("", "no"), Error("RangeError", "no"), "RangeError"),
        (Error(None, "no"), Error("RangeError", "no"), "RangeError"),
        (Error("TypeError", "no"), Error("RangeError", "no"), "TypeError"),
        (Error("Error", "no"), Error("", "no"), "Error"),
        (Error("Error", "no"), Error(None, "no"), "Error"),
        (Error("Error", "no"), None, "Error"),
        (Error("", "no"), None, "Error"),
        (Error(None, "no"), None, "Error"),
    ],
)
def test_the_name(error: Error, cause: Error | None, name: str) -> None:
    assert error_name(error, step("a", 1, 5, cause)) == name
    if cause is None:
        assert error_name(error, None) == name


class TestAttempts:
    FIRST, SECOND = (Attempt(at(start), at(start + 1), False, BOOM) for start in (1.0, 5.0))
    NO_START = Attempt(None, at(9), False, Error("Error", "last"))

    @pytest.mark.parametrize(
        ("attempts", "ordered"),
        [
            (None, ()),
            ([SECOND], [SECOND]),
            ([SECOND, FIRST], [FIRST, SECOND]),
            ([SECOND, FIRST, NO_START], [SECOND, FIRST, NO_START]),
        ],
    )
    def test_are_in_the_order_of_their_starts(
        self, attempts: list[Attempt] | None, ordered: list[Attempt]
    ) -> None:
        tried = Step("step", "a", attempts=attempts)
        assert list(tried.ordered_attempts) == list(ordered)

    def test_the_latest_tells_the_error_of_a_step_that_has_none(self) -> None:
        last = Error("Error", "bang")
        second = Attempt(at(5), at(6), False, last)
        tried = Step("step", "a", attempts=[second, self.FIRST])
        assert step_error(tried) is last
        tried.error = BOOM
        assert step_error(tried) is BOOM
        assert step_error(Step("step", "a")) is None
