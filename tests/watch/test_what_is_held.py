"""What the exporter holds depends on what is watched now, not on what ever was."""

import gc
from collections import Counter
from pathlib import Path

import pytest

from simulator import Attempt, Error, Script, Step, Wait, steps
from tests.watching import Watching, watching

SCRIPTS = {
    "errs": Script((Step("charge", (Attempt(1, Error()),)),)),
    "waits": Script((Wait("approval"),)),
    "completes": Script(steps("fetch")),
}


def held() -> Counter[str]:
    """The entries of all collections that the exporter's objects have, by attribute."""
    gc.collect()
    found = Counter[str]()
    for owner in gc.get_objects():
        if str(type(owner).__module__).startswith("exporter."):
            for name, value in getattr(owner, "__dict__", {}).items():
                found[f"{type(owner).__name__}.{name}"] += entries(value)
    return found


def entries(value: object) -> int:
    """Those of a collection, and of the collections in it."""
    if not isinstance(value, dict | list | set | frozenset | tuple):
        return 0
    return len(value) + sum(map(entries, value.values() if isinstance(value, dict) else value))


async def come_and_go(w: Watching, generation: int) -> None:
    """Ten workflows, and thirty instances of one that stays."""
    account = w.simulator.world.account("acc")
    names = [f"preview-{generation}-{n}" for n in range(10)]
    for n, name in enumerate(names):
        account.workflow(name).create("a", SCRIPTS["waits"])
        for kind, script in SCRIPTS.items():
            w.orders.create(f"{kind}-{generation}-{n}", script)
    await w.cycle(after=30)
    for name in names:
        del account.workflows[name]
    for instance in list(w.orders.instances.values()):
        instance.delete()
    for _ in range(6):  # until the last request no longer counts, and nothing that was logged
        await w.cycle(after=200)


@pytest.mark.slow
async def test_nothing_is_held_of_workflows_and_instances_that_came_and_went(
    tmp_path: Path,
) -> None:
    workflows = [{"name": "*", "discover": {}}]
    poll = {"forget_after": "1m"}
    async with watching(workflows=workflows, state=tmp_path / "state.db", poll=poll) as w:
        await w.cycle()
        await come_and_go(w, 1)
        before = held()
        await come_and_go(w, 2)
        assert len(w.app.pollers) == 1
        assert held() == before
