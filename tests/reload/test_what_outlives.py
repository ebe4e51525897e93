"""What outlives the attachments that a reload replaces: budgets, what waits for them, and counts of
requests."""

import asyncio

from exporter.metrics.catalogue import WorkflowKey
from simulator import Script, Wait
from tests.waiting import until
from tests.watching import watching

WAITS = Script((Wait("approval"),))


async def test_requests_of_an_account_count_on_under_other_settings() -> None:
    async with watching(["a"], poll={"interval": "15s"}) as w:
        w.orders.create("a", WAITS)
        await w.round()
        requests = {"endpoint": "instance", "code": "200"}
        counted = w.value("cloudflare_workflows_exporter_api_requests_total", **requests)
        await w.reload(poll={"interval": "30s"})
        await w.saved()
        assert counted == 1
        assert w.value("cloudflare_workflows_exporter_api_requests_total", **requests) == 1


async def test_polls_that_wait_for_the_budget_are_made_after_a_reload() -> None:
    async with watching(["a"]) as w:
        w.orders.create("a", WAITS)
        queue = w.app.accounts[0].workflows.queue
        queue.budget.rate_limited(60)
        polling = asyncio.create_task(w.app.pollers[0].round(whole=True))
        await until(lambda: len(queue))
        other = {"name": "other", "instances": ["b"]}
        await w.reload(workflows=[{"name": "orders", "instances": ["a"]}, other])
        assert len(queue) == 1
        w.clock.advance(61)
        queue.budget.set_limits(1000, reserve=0.2)  # has it look at the clock
        await polling
        await w.saved()
        assert w.status("a") == "waiting"


async def test_nothing_more_is_to_be_held_of_an_account_that_is_removed() -> None:
    other = {
        "name": "other",
        "account_id": "other",
        "api_token": "secret",
        "workflows": [{"name": "orders", "instances": ["a"]}],
    }
    async with watching(["a"], more_accounts=[other]) as w:
        assert {*w.app.leases.wanted} == {"acc", "other"}
        await w.reload(more_accounts=[])
        assert {*w.app.leases.wanted} == {"acc"}


async def test_a_lease_is_held_for_as_long_as_scrapes_see_counts_under_it() -> None:
    """Another account's workflow may already be attached with the same labels."""
    async with watching(["a"]) as w:
        await w.saved()
        former, other = ("acc", "orders"), ("other", "orders")
        w.app.accounts[0].workflows.detach(["orders"])
        w.app.leases.wanted["acc"] = [other]
        await w.app.writer.turn()
        await w.app.writer.restore(WorkflowKey(*former), other)
        await w.app.writer.turn()
        assert former in w.app.leases.held
        await w.app.writer.save()
        assert former not in w.app.leases.held
