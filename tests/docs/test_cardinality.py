"""docs/operating.md gives the series of instances, workflows and the exporter as they are."""

import re
from collections import Counter
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks import virtual_time
from benchmarks.churn_memory import SETTINGS, series
from exporter.config.metrics import Names
from simulator import Attempt, Error, Script, Step, Wait, steps
from tests.watching import watching
from tools import ROOT

PAGE = (ROOT / "docs" / "operating.md").read_text()
STATUSES = ["queued", "running", "waiting", "complete", "errored"]
BROKEN = Step("charge", (Attempt(1, Error("Boom", "no")),))
SCRIPTS = {
    "queued": Script(queued=1e6),
    "running: one step finished, one open": Script(
        (*steps("fetch"), Step("charge", (Attempt(None),)))
    ),
    "waiting: two steps finished, one wait open": Script(
        (*steps("fetch", "charge"), Wait("approval"))
    ),
    "complete, two steps": Script(steps("fetch", "charge")),
    "errored at its second step": Script((*steps("fetch"), BROKEN)),
}
STEP_NAMES = {
    "step name of a workflow": "fetch",
    "sleep or wait name of a workflow": "approval",
}
ACCOUNT = {
    "name": "other",
    "account_id": "acc",
    "api_token": "secret",
    "workflows": [{"name": "orders", "instances": ["none"]}],
}


def table(header: str) -> dict[str, list[int]]:
    """A table of the page by its first column, with the numbers of the others."""
    lines = PAGE[PAGE.index(f"| {header} |") :].split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    # Cells that are no numbers are names and settings.
    numbers = [[int(c.replace(",", "")) for c in row if re.fullmatch("[0-9,]+", c)] for row in rows]
    return dict(zip((row[0] for row in rows), numbers, strict=True))


async def scraped(**settings: Any) -> Counter[str]:
    """Series of one scrape by what they are of: an instance, a step name, `workflow`, an account
    or `exporter`."""
    found: Counter[str] = Counter()
    workflows = [{"name": "orders", "discover": {"statuses": STATUSES}}]
    async with watching(workflows=workflows, **settings) as w:
        w.simulator.limit.quota = 1200
        w.orders.release(step_limit=1024, concurrency=100)
        for name, script in SCRIPTS.items():
            w.orders.create(name, script)
        for _ in range(4):
            await w.cycle(after=15)
        body, _ = w.app.exposition.render()
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            labels = sample.labels
            if sample.name.startswith("cloudflare_workflow_"):
                found[labels.get("instance_id") or labels.get("step") or "workflow"] += 1
            else:
                found["exporter"] += 1
    return found


async def test_the_series_of_an_instance_are_those_of_a_scrape() -> None:
    every = await scraped()
    current = await scraped(metrics={"instance_status": "current"})
    unfinished = await scraped(metrics={"instance_series": "unfinished"})
    assert table("instance") == {
        name: [every[name], current[name], unfinished[name]] for name in SCRIPTS
    }


async def test_without_series_of_instances_there_are_none() -> None:
    found = await scraped(metrics={"instance_series": "none"})
    assert found.keys() & SCRIPTS.keys() == set()


async def test_the_series_of_workflows_and_of_the_exporter_are_those_of_a_scrape() -> None:
    one, two = await scraped(), await scraped(more_accounts=[ACCOUNT])
    parts = table("part")
    assert parts.pop("exporter, with one account, about") == pytest.approx([one["exporter"]], 0.1)
    assert parts.pop("further account, about") == pytest.approx(
        [two["exporter"] - one["exporter"]], 0.1
    )
    assert parts == {
        "workflow": [one["workflow"]],
        **{part: [one[step]] for part, step in STEP_NAMES.items()},
    }


async def test_fewer_buckets_leave_the_series_that_the_page_says() -> None:
    histograms = ("step_duration_seconds", "step_attempt_duration_seconds", "step_attempts")
    found = await scraped(metrics={"buckets": {name: [1, 10, 100] for name in histograms}})
    assert f"a step name has {found['fetch']} series" in PAGE.replace("\n", " ")


def test_the_series_of_a_size_are_those_of_its_instances() -> None:
    waiting = table("instance")["waiting: two steps finished, one wait open"][0]
    for instances, series_ in table("live instances").values():
        assert series_ == instances * waiting
    step_names = table("part")["step name of a workflow"][0]
    limit = Names().limit
    assert f"names ({limit}), so at most {limit * step_names:,} series" in PAGE.replace("\n", " ")


def test_the_series_of_a_day_are_shown_for_each_setting() -> None:
    assert list(table("settings")) == [name for name, _, _ in SETTINGS]


@pytest.mark.slow
def test_ten_short_runs_a_second_make_few_series_a_day_by_default() -> None:
    _, discover, metrics = SETTINGS[0]
    made = virtual_time.run(series(5, discover, metrics))
    assert made.runs > 2500
    assert 0 < made.a_day <= 300_000
