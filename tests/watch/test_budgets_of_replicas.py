"""What a replica reports of the credentials' budgets, and takes from the others."""

from typing import Any

import pytest

from exporter.cloudflare.replica_budgets import FRESH, Allotment
from simulator import Script, Wait
from tests.watching import watching


def account(name: str, token: str) -> dict[str, Any]:
    workflows = [{"name": "orders", "instances": ["a"]}]
    return {"name": name, "account_id": f"{name}-id", "api_token": token, "workflows": workflows}


async def test_a_credential_goes_by_all_of_its_accounts_and_never_by_its_secret() -> None:
    """So that replicas share its limit though only some have another account, in whatever order."""
    more = [account("second", "secret"), account("third", "another-token")]
    async with watching(["a"], more_accounts=more) as w:
        uses = w.app.watched.budget_uses()
        assert list(uses) == ["acc", "second-id", "third-id"]
        assert uses["acc"] is uses["second-id"] is not uses["third-id"]
        assert "secret" not in str(uses)


async def test_what_is_needed_is_a_poll_of_each_instance_and_each_list_page_in_time() -> None:
    workflows = [{"name": "orders", "instances": ["a", "b"], "discover": {}}]
    async with watching(workflows=workflows, poll={"interval": "30s"}) as w:
        assert w.app.watched.budget_uses()["acc"].demand == (2 + 1) * 10  # a first page
        for number in range(250):
            w.orders.create(f"more-{number}", Script((Wait("approval"),)))
        await w.cycle(after=30)
        # The account's workflows, limits, three pages of live instances, and the newest ones.
        per_pass = w.app.accounts[0].requests_per_pass
        assert w.app.watched.budget_uses()["acc"].demand == (2 + per_pass) * 10
        assert per_pass > 3


async def test_what_was_sent_goes_by_its_age() -> None:
    async with watching(["a"]) as w:
        await w.round()
        w.clock.advance(25)
        await w.round()
        use = w.app.watched.budget_uses()["acc"]
        sent = [place for place, requests in enumerate(use.spent) if requests]
        assert sent == [1, 3]


async def test_an_allotment_goes_to_its_credential() -> None:
    async with watching(["a"], more_accounts=[account("third", "another-token")]) as w:
        w.app.watched.budget_uses()
        w.app.watched.allot({"acc": Allotment(20.0, 20.0, peers_spent=0, blocked=0.0)})
        first, third = (a.workflows.queue.budget for a in w.app.accounts)
        assert (first.allowed, third.allowed) == (20, 100_000)
        first.stop()
        third.stop()
        assert (first.allowed, third.allowed) == (0, 0)


async def test_of_the_allotments_of_a_credentials_accounts_the_least_holds() -> None:
    async with watching(["a"], more_accounts=[account("second", "secret")]) as w:
        w.app.watched.budget_uses()
        allotments = {
            "acc": Allotment(20.0, 30.0, peers_spent=0, blocked=0.0),
            "second-id": Allotment(100.0, 200.0, peers_spent=0, blocked=60.0),
        }
        w.app.watched.allot(allotments)
        budget = w.app.accounts[0].workflows.queue.budget
        assert (budget.share, budget.blocked) == (20, 60)
        del allotments["second-id"]  # a reload added it since
        w.app.watched.allot(allotments)
        assert budget.share == 20


async def test_a_lower_limit_halves_like_a_share_while_no_turn_succeeds() -> None:
    async with watching(["a"]) as w:
        w.app.watched.budget_uses()
        w.app.watched.allot({"acc": Allotment(300.0, 300.0, peers_spent=0, blocked=0.0)})
        budget = w.app.accounts[0].workflows.queue.budget
        budget.set_limits(100, reserve=0.2)
        assert budget.share == 100
        w.clock.advance(FRESH)
        assert budget.share == 50


@pytest.mark.parametrize(
    ("tokens", "continues"), [(("new", "secret"), 1), (("new", "newer"), 0)], ids=["one", "both"]
)
async def test_accounts_of_one_credential_that_get_others_share_no_budget(
    tokens: tuple[str, str], continues: int
) -> None:
    async with watching(["a"], more_accounts=[account("second", "secret")]) as w:
        before = w.app.accounts[0].workflows.queue
        await w.reload(token=tokens[0], more_accounts=[account("second", tokens[1])])
        queues = [one.workflows.queue for one in w.app.accounts]
        assert [queue is before for queue in queues] == [n == continues for n in range(2)]
        for queue, one in zip(queues, w.app.accounts, strict=True):
            assert w.app.watched.needed(queue) - queue.needed == one.needed > 0
