"""The README's picture of the output is what a scrape shows."""

from simulator import Attempt, Error, Script, Step, Wait, steps
from tests.docs.pages import blocks
from tests.watching import watching
from tools import ROOT

SCRIPTS = {
    "order-1001": Script(steps("reserve", "charge")),
    "order-1002": Script(
        (*steps("reserve"), Step("charge", (Attempt(1, Error("Declined", "-")),)))
    ),
    "order-1003": Script((*steps("reserve", "charge"), Wait("approval"))),
    "order-1004": Script(
        (*steps("reserve"), Step("charge", (Attempt(1, Error("Timeout", "-")), Attempt(None))))
    ),
}
"""Complete, errored, waiting, and at the second attempt of a step."""


async def test_its_excerpt_is_of_a_scrape() -> None:
    excerpt = next(b for b in blocks(ROOT / "README.md") if not b.language)
    async with watching(workflows=[{"name": "orders", "discover": {}}], account="production") as w:
        for name, script in SCRIPTS.items():
            w.orders.create(name, script)
        for _ in range(4):
            await w.cycle(after=15)
        body, _ = w.app.exposition.render()
    lines = excerpt.text.splitlines()
    assert len(lines) > 5
    assert set(lines) - set(body.decode().splitlines()) == set()
