"""Instances of any id that lists may hold: requests, series, state and pages know them by it."""

from pathlib import Path
from typing import Any

import pytest

from simulator import Script, Step, Wait, steps
from tests.watching import watching

# A cron trigger's, one that means something in URLs, PromQL or HTML, and the longest.
IDS = [
    "*/30 * * * *-1786001400000",
    "a/b%2Fc?d=1&e#f,g+h",
    "..",
    "- -",
    "two  spaces",
    "quote\"back\\slash'<b>",
    "größe-日本-\N{GRINNING FACE}",
    "i" * 271,
]
WATCHES: dict[str, dict[str, Any]] = {
    "discovered": {"name": "orders", "discover": {}},
    "configured": {"name": "orders", "instances": IDS},
}


@pytest.mark.slow
@pytest.mark.parametrize("watch", WATCHES)
async def test_they_are_watched_through_a_restart(tmp_path: Path, watch: str) -> None:
    """With steps, which only a request for the one instance brings; nothing is counted twice."""
    async with watching(workflows=[WATCHES[watch]], state=tmp_path / "state.db") as w:
        waiting = Script((*steps("load"), Wait("approval"), Step("ship")))
        instances = [w.orders.create(i, waiting) for i in IDS]
        for _ in range(3):
            await w.cycle(after=60)
        assert {i: w.status(i) for i in IDS} == dict.fromkeys(IDS, "waiting")
        steps_seen = w.samples("cloudflare_workflow_instance_steps")
        assert {dict(labels)["instance_id"] for labels in steps_seen} == set(IDS)
        await w.restart()
        for instance in instances:
            instance.send_event()
        for _ in range(3):
            await w.cycle(after=60)
        assert {i: w.status(i) for i in IDS} == dict.fromkeys(IDS, "complete")
        assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == len(IDS)
        body, _ = w.app.exposition.render("application/openmetrics-text")
        assert b'# {instance_id="' in body
        assert b'# {instance_id="iii' not in body
