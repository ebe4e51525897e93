"""What is read from responses, those of Cloudflare's real engine among them."""

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import httpx
import pytest

from exporter.cloudflare.errors import RequestFailed
from exporter.cloudflare.models import Attempt, Detail, Error, Row, Step
from exporter.cloudflare.times import seconds, unix

from .conftest import client_of

CAPTURES: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "simulator" / "captures.json").read_text()
)
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
INSTANCES = [name for name, c in CAPTURES.items() if "queued" in (c["body"]["result"] or {})]


def response(name: str) -> httpx.Response:
    return httpx.Response(CAPTURES[name]["http_status"], json=CAPTURES[name]["body"])


async def read(name: str) -> Detail:
    async with client_of(response(name)) as client:
        detail, _ = await client.instance_detail("orders", "order-1")
        return detail


class TestRealResponses:
    @pytest.mark.parametrize("name", INSTANCES)
    async def test_everything_is_read_as_it_stands(self, name: str) -> None:
        raw = CAPTURES[name]["body"]["result"]
        detail = await read(name)
        assert detail.status == raw["status"]
        for key in ("queued", "start", "end"):
            expected = raw[key] and datetime.fromisoformat(raw[key]).timestamp()
            assert unix(getattr(detail, key)) == expected
        assert (detail.error and detail.error.name) == (raw["error"] and raw["error"]["name"])
        assert detail.steps is not None
        assert [(s.name, s.type, len(s.attempts or [])) for s in detail.steps] == [
            (s["name"], s["type"], len(s.get("attempts", []))) for s in raw["steps"]
        ]

    @pytest.mark.parametrize("name", INSTANCES)
    async def test_a_poll_without_steps_reads_the_same(self, name: str) -> None:
        async with client_of(response(name)) as client:
            summary = await client.instance("orders", "order-1")
        detail = await read(name)
        assert (summary.queued, summary.status) == (detail.queued, detail.status)

    @pytest.mark.parametrize(
        ("name", "outcomes"),
        [
            ("complete", ["success", "success", "success"]),
            ("exhausted", ["failure"]),
            ("running", ["running"]),
            ("sleeping", ["success", "running"]),
            ("waiting", ["success", "running"]),
        ],
    )
    async def test_outcomes_of_steps(self, name: str, outcomes: list[str]) -> None:
        assert [step.outcome for step in (await read(name)).steps or []] == outcomes

    async def test_outcomes_of_attempts(self) -> None:
        *_, flaky = (await read("retried")).steps or []
        assert [a.outcome for a in flaky.attempts or []] == ["failure", "failure", "success"]

    @pytest.mark.parametrize(
        ("name", "failure"), [("unknown instance", "not_found"), ("bad page", "http_4xx")]
    )
    async def test_refusals(self, name: str, failure: str) -> None:
        with pytest.raises(RequestFailed) as caught:
            await read(name)
        assert caught.value.reason == failure
        said = CAPTURES[name]["body"]["errors"][0]
        assert str(caught.value).endswith(f": {said['message']} (code {said['code']})")


class TestOutcomes:
    @pytest.mark.parametrize(
        ("step", "outcome"),
        [
            (Step(type="step", end=NOON, success=True), "success"),
            (Step(type="step", end=NOON, success=False), "failure"),
            (Step(type="step", end=NOON), "running"),
            (Step(type="step", success=True), "running"),
            (Step(type="sleep", end=NOON, finished=False), "running"),
            (Step(type="sleep", end=NOON, finished=True), "success"),
            (Step(type="waitForEvent", finished=True, error=Error("Timeout")), "failure"),
            (Step(type="waitForEvent", finished=True, success=False), "failure"),
            (Step(type="of tomorrow"), "running"),
        ],
    )
    def test_of_a_step(self, step: Step, outcome: str) -> None:
        assert step.outcome == outcome

    @pytest.mark.parametrize(
        ("attempt", "outcome"),
        [
            (Attempt(end=NOON, success=True), "success"),
            (Attempt(end=NOON, success=False), "failure"),
            (Attempt(end=NOON), "running"),
            (Attempt(start=NOON), "running"),
        ],
    )
    def test_of_an_attempt(self, attempt: Attempt, outcome: str) -> None:
        assert attempt.outcome == outcome


class TestTimes:
    def test_seconds_between_two_times(self) -> None:
        assert seconds(NOON, NOON + timedelta(milliseconds=1500)) == 1.5

    def test_never_below_zero(self) -> None:
        assert seconds(NOON, NOON - timedelta(seconds=1)) == 0

    @pytest.mark.parametrize(("start", "end"), [(None, NOON), (NOON, None), (None, None)])
    def test_unknown(self, start: datetime | None, end: datetime | None) -> None:
        assert seconds(start, end) is None
        assert unix(None) is None

    @pytest.mark.parametrize("offset", [-14, 0, 14])
    @pytest.mark.parametrize("year", [1, 1969, 9999])
    def test_years_that_stand_for_no_time(self, year: int, offset: int) -> None:
        none = datetime(year, 6, 1, tzinfo=timezone(timedelta(hours=offset)))
        attempt = Attempt(start=NOON, end=none, success=False)
        step = Step(start=NOON, end=none, success=True, attempts=[attempt])
        wait = Step(start=none, end=none, finished=False)
        detail = Detail(queued=none, start=NOON, end=none, steps=[step, wait])
        assert detail.correct_times(NOON) == 0
        assert (detail.queued, detail.start, detail.end) == (None, NOON, None)
        assert (step.start, step.outcome) == (attempt.start, attempt.outcome) == (NOON, "running")
        assert (wait.start, wait.end) == (None, None)
        row = Row(created_on=NOON, started_on=none, ended_on=none, modified_on=none)
        assert row.correct_times(NOON) == 0
        assert row == Row(created_on=NOON)

    def test_a_time_without_an_offset_is_utc(self) -> None:
        east = NOON.astimezone(timezone(timedelta(hours=5)))
        detail = Detail(start=NOON.replace(tzinfo=None), end=east, steps=[Step(start=east)])
        assert detail.correct_times(NOON) == 0
        assert unix(detail.start) == unix(NOON)
        assert seconds(detail.start, detail.end) == 0

    def test_one_that_cannot_have_passed_is_dropped_and_the_plan_of_a_sleep_stays(self) -> None:
        later = NOON + timedelta(seconds=1)
        step = Step(start=NOON, end=later, success=True)
        sleep = Step(start=NOON, end=later, finished=False)
        detail = Detail(queued=later, steps=[step, sleep])
        assert detail.newest == later
        assert detail.correct_times(NOON) == 2
        assert (detail.queued, step.end, sleep.end) == (None, None, later)
        assert detail.newest == NOON


@pytest.mark.parametrize(
    "change",
    [
        {"status": "of tomorrow"},
        {"status": None},
        {"versionId": None},
        {"trigger": {"source": "of tomorrow", "more": 1}},
        {"trigger": None},
        {"steps": None},
        {"steps": [{"type": "of tomorrow", "new": {"deep": [1]}}]},
        {"steps": [{"type": "step", "config": {"retries": {"delay": "[dynamic]"}}}]},
        {"step_count": "3"},
        {"step_count": 3.0},
        {"params": [[[1]]], "output": 1e300, "rollback": {"outcome": "failed"}, "schedule": {}},
        {"end": "2026-11-24T17:06:11.123456789Z"},
        {"end": "2026-11-24T17:06:11+02:00"},
    ],
)  # fmt: skip
async def test_what_is_new_tomorrow_is_taken(change: dict[str, Any]) -> None:
    body = {"success": True, "result": {"queued": "2026-11-24T17:06:11Z", **change}, "new": 1}
    async with client_of(httpx.Response(200, json=body)) as client:
        await client.instance("orders", "order-1")
        await client.instance_detail("orders", "order-1")
