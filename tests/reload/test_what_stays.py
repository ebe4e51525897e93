"""What a reload leaves as it is, what it begins and what it ends."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from exporter.config.errors import ConfigError
from simulator import Hang, Script, Wait, error, retried, steps
from tests import disk
from tests.waiting import until
from tests.watching import Watching, watching

RUN = Script((*steps("fetch", "store"), retried("charge", failures=2)))
WAITS = Script((*steps("fetch"), Wait("approval")))
FAILS = Script((retried("fetch", failures=1, succeeds=False),))
DISCOVERED: list[dict[str, Any]] = [{"name": "orders", "discover": {}}]
FINISHED = "cloudflare_workflow_runs_finished_total"
RUNS_OF_ORDERS = FINISHED + '{account="acc",workflow="orders",status="complete"}'


@pytest.fixture(params=[True, False], ids=["state", "no state"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    """A reload is the same whether there is a state or not."""
    return tmp_path / "state.db" if request.param else None


def orders(*ids: str) -> list[dict[str, Any]]:
    return [{"name": "orders", "instances": list(ids)}]


def of_instances(w: Watching, *ids: str) -> dict[str, float]:
    """The series of these instances."""
    return {s: v for s, v in w.values().items() if any(f'instance_id="{i}"' in s for i in ids)}


def counted(w: Watching) -> dict[str, float]:
    """Counters, buckets and sums of workflows."""
    kinds = ("_total{", "_bucket{", "_sum{", "_count{")
    found = {s: v for s, v in w.values().items() if any(kind in s for kind in kinds)}
    return {s: v for s, v in found.items() if "instance_id" not in s}


async def hanging(w: Watching, instance_id: str) -> asyncio.Task[dict[str, int]]:
    """A round whose call for this instance is under way, and answered when faults are cleared."""
    w.simulator.faults.add(Hang())
    task = asyncio.create_task(w.round())
    await until(lambda: w.simulator.requests.of(instance=instance_id))
    return task


class TestWhatStays:
    async def test_nothing_changes_when_nothing_did(self, state: Path | None) -> None:
        async with watching(["a", "b"], state=state) as w:
            w.orders.create("a", RUN)
            w.orders.create("b", WAITS)
            await w.round(after=60)
            before = w.values()
            await w.reload()
            assert w.values() == before
            assert await w.round() == {}

    async def test_its_series_are_as_they_were_while_others_come_and_go(
        self, state: Path | None
    ) -> None:
        async with watching(["a", "b"], state=state) as w:
            for name in ("a", "b", "c"):
                w.orders.create(name, WAITS)
            await w.round(after=5)
            before = of_instances(w, "a")
            await w.reload(workflows=orders("a", "c"))
            assert of_instances(w, "a") == before
            assert not of_instances(w, "b")
            await w.round()
            assert w.status("c") == "waiting"

    async def test_no_scrape_misses_a_series_or_sees_a_lower_counter(
        self, state: Path | None
    ) -> None:
        async with watching(["a", "b"], state=state, metrics={"backfill": True}) as w:
            w.orders.create("a", RUN)
            w.orders.create("b", WAITS)
            await w.round(after=60)
            stays, known = set(of_instances(w, "a")), counted(w)
            reload = asyncio.create_task(
                w.reload(
                    workflows=[*orders("a"), {"name": "billing", "discover": {}}],
                    poll={"interval": "5s"},
                )
            )
            scrapes = 0
            while not reload.done():
                await asyncio.sleep(0)
                now = w.values()
                assert (stays | known.keys()) <= now.keys()
                assert all(now[series] >= value for series, value in known.items())
                scrapes += 1
            await reload
            assert scrapes

    async def test_readiness_is_not_lost(self, state: Path | None) -> None:
        async with watching(["a"], state=state) as w:
            w.orders.create("a", WAITS)
            await w.cycle()
            await w.cycle()
            assert w.app.health.unready() == []
            await w.reload(workflows=[*orders("a", "b"), {"name": "other", "discover": {}}])
            assert w.app.health.unready() == []

    async def test_a_response_under_way_counts_once(self, state: Path | None) -> None:
        async with watching(["a"], state=state) as w:
            w.orders.create("a", RUN)
            w.clock.advance(60)
            poll = await hanging(w, "a")
            await w.reload(workflows=orders("a", "b"))
            w.simulator.faults.clear()
            await poll
            await w.round(after=15)
            assert w.value(FINISHED, status="complete") == 1
            assert w.status("a") == "complete"


class TestWhatGoes:
    async def test_a_response_under_way_brings_nothing_back(self, state: Path | None) -> None:
        async with watching(["a", "b"], state=state) as w:
            w.orders.create("a", WAITS)
            w.orders.create("b", RUN)
            w.clock.advance(60)
            poll = await hanging(w, "b")
            await w.reload(workflows=orders("a"))
            w.simulator.faults.clear()
            await poll
            await w.saved()
            assert not of_instances(w, "b")
            assert w.value(FINISHED, status="complete") == 0

    async def test_a_configuration_that_is_rolled_back_counts_nothing_twice(
        self, state: Path | None
    ) -> None:
        async with watching(["a", "b"], state=state) as w:
            w.orders.create("a", RUN)
            w.orders.create("b", RUN)
            await w.round(after=60)
            before, series = counted(w), of_instances(w, "b")
            await w.reload(workflows=orders("a"))
            assert counted(w) == before
            await w.round(after=600)
            await w.reload(workflows=orders("a", "b"))
            assert of_instances(w, "b") == series
            await w.round(after=600)
            assert counted(w) == before

    async def test_and_none_when_the_file_had_to_be_written_again(self, tmp_path: Path) -> None:
        state = tmp_path / "state.db"
        async with watching(["a", "b"], state=state) as w:
            w.orders.create("a", RUN)
            w.orders.create("b", RUN)
            await w.round(after=60)
            before = counted(w)
            await w.reload(workflows=orders("a"))
            state.unlink()
            await w.saved()
            await w.saved()
            await w.restart(workflows=orders("a", "b"))
            await w.round()
            assert counted(w) == before

    async def test_nor_when_it_is_restarted_in_between(self, tmp_path: Path) -> None:
        async with watching(["a", "b"], state=tmp_path / "state.db") as w:
            w.orders.create("a", RUN)
            w.orders.create("b", RUN)
            await w.round(after=60)
            before = counted(w)
            await w.restart(workflows=orders("a"))
            await w.round()
            await w.restart(workflows=orders("a", "b"))
            await w.round()
            assert counted(w) == before

    @pytest.mark.slow
    @pytest.mark.parametrize("way", ["restart", "reload"])
    @pytest.mark.parametrize("between", [DISCOVERED, orders("z")], ids=["discovered", "left"])
    @pytest.mark.parametrize("pause", [120, 100_000], ids=["a while", "a day"])
    async def test_what_was_discovered_and_expired_may_be_named(
        self, tmp_path: Path, way: str, between: list[dict[str, Any]], pause: float
    ) -> None:
        shown = {"discover": {"max_age": "1m"}}
        poll = {"forget_after": "1m"}
        discovered = [{**DISCOVERED[0], **shown}]
        async with watching(workflows=discovered, state=tmp_path / "s.db", poll=poll) as w:
            change = w.restart if way == "restart" else w.reload
            await w.cycle()
            w.orders.create("a", RUN)
            await w.cycle(after=60)
            await w.cycle(after=1)
            before = counted(w)
            assert w.value(FINISHED, status="complete") == 1
            await w.cycle(after=120)
            await w.cycle(after=60)
            assert not of_instances(w, "a")
            await change(workflows=between)
            await w.cycle(after=pause)
            await w.cycle(after=1)
            await change(workflows=orders("a"))
            await w.cycle(after=1)
            assert w.status("a") == "complete"
            assert counted(w) == before

    @pytest.mark.parametrize("way", ["restart", "reload"])
    @pytest.mark.parametrize("before", [DISCOVERED, orders("a")], ids=["discovered", "configured"])
    async def test_one_that_was_excluded_for_a_while_is_as_it_was(
        self, tmp_path: Path, way: str, before: list[dict[str, Any]]
    ) -> None:
        without = [{"name": "orders", "discover": {"exclude": ["a"]}}]
        async with watching(workflows=before, state=tmp_path / "s.db") as w:
            change = w.restart if way == "restart" else w.reload
            await w.cycle()
            w.orders.create("a", WAITS)
            await w.cycle(after=60)
            await w.cycle(after=15)
            counts, series = counted(w), of_instances(w, "a")
            assert series
            await change(workflows=without)
            await w.cycle(after=15)
            assert not of_instances(w, "a")
            await change(workflows=before)
            await w.cycle(after=15)
            await w.cycle(after=15)
            assert counted(w) == counts
            assert of_instances(w, "a") == series

    async def test_a_workflow_that_leaves_while_the_disk_is_full_takes_nothing_uncounted_along(
        self, tmp_path: Path
    ) -> None:
        both = [*orders("a"), {"name": "billing", "instances": ["x"]}]
        state = tmp_path / "state.db"
        async with watching(workflows=both, state=state) as w:
            await w.cycle(after=1)
            w.orders.create("a", RUN)
            with disk.full(state):
                await w.cycle(after=60)
                assert w.values()[RUNS_OF_ORDERS] == 0, "it isn't on the disk"
                await w.reload(workflows=both[1:])
                await w.reload(workflows=both)
                assert w.values()[RUNS_OF_ORDERS] == 0
                await w.reload(workflows=both[1:])
            await w.saved()
            await w.reload(workflows=both)
            assert w.values()[RUNS_OF_ORDERS] == 1
            await w.cycle(after=600)
            assert w.status("a") == "complete"
            assert w.values()[RUNS_OF_ORDERS] == 1

    async def test_an_account_that_is_renamed_while_the_disk_is_full(self, tmp_path: Path) -> None:
        state = tmp_path / "state.db"
        async with watching(["a"], state=state) as w:
            await w.cycle(after=1)
            w.orders.create("a", RUN)
            with disk.full(state):
                await w.cycle(after=60)
                await w.reload(account="new")
            await w.saved()
            await w.cycle(after=600)
            assert w.status("a") == "complete"
            assert w.value(FINISHED, status="complete") == 1

    async def test_what_left_while_the_disk_is_full_is_shown_no_longer(
        self, tmp_path: Path
    ) -> None:
        state = tmp_path / "state.db"
        both = [*orders("a"), {"name": "billing", "instances": ["x"]}]
        async with watching(workflows=both, state=state) as w:
            w.orders.create("a", RUN)
            await w.cycle(after=60)
            with disk.full(state):
                await w.cycle(after=15)
                await w.reload(workflows=both[1:])
                assert not [series for series in w.values() if 'workflow="orders"' in series]
                await w.reload(workflows=both)
                assert w.values()[RUNS_OF_ORDERS] == 1

    async def test_one_that_is_named_and_unnamed_while_polls_fail(self) -> None:
        async with watching(workflows=DISCOVERED) as w:
            await w.cycle()
            w.orders.create("a", FAILS)
            w.simulator.faults.add(error(500), instance="a")
            await w.cycle(after=60)
            await w.reload(workflows=[{**DISCOVERED[0], "instances": ["a"]}])
            await w.cycle(after=15)
            await w.reload(workflows=DISCOVERED)
            await w.cycle(after=15)
            w.simulator.faults.clear()
            for _ in range(3):
                await w.cycle(after=60)
            assert w.app.pollers[0].up
            attempts = w.samples("cloudflare_workflow_step_attempt_duration_seconds_count")
            assert sorted(attempts.values()) == [0, 1]

    async def test_one_that_was_deleted_and_expired_is_not_discovered(self) -> None:
        async with watching(["a"], poll={"ended_interval": "15s", "forget_after": "1m"}) as w:
            w.orders.create("a", FAILS)
            await w.cycle(after=60)
            w.orders.instances["a"].delete()
            for _ in range(3):
                await w.cycle(after=60)
            await w.reload(workflows=DISCOVERED)
            for _ in range(3):
                await w.cycle(after=60)
            assert w.value("cloudflare_workflow_details_skipped_total") == 0

    @pytest.mark.parametrize("way", ["restart", "reload"])
    async def test_nor_when_it_comes_back_after_all_has_expired(
        self, tmp_path: Path, way: str
    ) -> None:
        async with watching(["a"], state=tmp_path / "s.db") as w:
            change = w.restart if way == "restart" else w.reload
            w.orders.release(success_retention=30 * 86_400_000)
            await w.cycle()
            w.orders.create("a", RUN)
            await w.cycle(after=60)
            before = counted(w)
            await change(workflows=orders("b"))
            for _ in range(8):
                await w.cycle(after=86400)
            await change(workflows=orders("a"))
            await w.cycle(after=15)
            assert w.status("a") == "complete"
            assert counted(w) == before

    async def test_the_counts_of_a_workflow_that_was_watched_until_now_expire_later(
        self, tmp_path: Path
    ) -> None:
        async with watching(["a"], state=tmp_path / "s.db") as w:
            w.orders.create("a", RUN)
            for _ in range(8):
                await w.cycle(after=86400)
            before = counted(w)
            await w.reload(workflows=[{"name": "billing", "instances": ["x"]}])
            for _ in range(2):
                await w.cycle(after=7200)
            await w.reload(workflows=orders("a"))
            await w.cycle(after=15)
            assert counted(w) == before

    async def test_the_counts_of_a_removed_workflow_stay(self, tmp_path: Path) -> None:
        """Between two writes, and while one is under way."""
        globbed = [{"name": "ord*", "discover": {}}]
        async with watching(workflows=globbed, state=tmp_path / "state.db") as w:
            await w.cycle(after=1)
            w.orders.create("a", RUN)
            w.clock.advance(60)
            (account,) = w.app.accounts
            await account.list_passes()
            account.workflows.detach(["orders"])
            writing = asyncio.create_task(w.saved())
            await asyncio.sleep(0)
            await account.workflows.on_listed({"orders"})
            await writing
            await w.cycle(after=600)
            assert w.value(FINISHED, status="complete") == 1

    @pytest.mark.parametrize("way", ["restart", "reload"])
    async def test_nor_when_it_is_named_in_between_and_not_polled(
        self, tmp_path: Path, way: str
    ) -> None:
        poll = {"forget_after": "1m"}
        async with watching(workflows=DISCOVERED, state=tmp_path / "s.db", poll=poll) as w:
            change = w.restart if way == "restart" else w.reload
            await w.cycle()
            w.orders.create("a", RUN)
            for _ in range(30):
                await w.cycle(after=15)
            assert not w.app.pollers[0].instances
            before = counted(w)
            for workflows in (orders("a"), orders("b"), DISCOVERED):
                await change(workflows=workflows)
            await w.cycle(after=15)
            await w.cycle(after=15)
            assert counted(w) == before

    async def test_a_workflow_takes_all_its_series_along(self, state: Path | None) -> None:
        both = [*orders("a"), {"name": "billing", "instances": ["x"]}]
        async with watching(workflows=both, state=state) as w:
            w.orders.create("a", RUN)
            await w.round(after=60)
            await w.reload(workflows=both[1:])
            assert not [series for series in w.values() if 'workflow="orders"' in series]

    async def test_a_workflow_that_comes_back_counts_nothing_twice(self, tmp_path: Path) -> None:
        both = [*orders("a"), {"name": "billing", "instances": ["x"]}]
        async with watching(workflows=both, state=tmp_path / "state.db") as w:
            w.orders.create("a", RUN)
            await w.round(after=60)
            before = counted(w)
            await w.reload(workflows=both[1:])
            await w.reload(workflows=both)
            await w.round()
            assert counted(w) == before
            await w.restart()
            assert counted(w) == before

    async def test_an_account_takes_all_its_series_along(self, state: Path | None) -> None:
        other = {
            "name": "other", "account_id": "acc2", "api_token": "secret",
            "workflows": orders("z"),
        }  # fmt: skip
        async with watching(["a"], state=state, more_accounts=[other]) as w:
            w.simulator.world.account("acc2").workflow("orders").create("z", RUN)
            await w.round(after=60)
            body, _ = w.app.exposition.render()
            assert b'account="other"' in body
            await w.reload(more_accounts=[])
            body, _ = w.app.exposition.render()
            assert b'account="other"' not in body

    async def test_an_account_goes_whose_id_changed_before(self, state: Path | None) -> None:
        entry = {"name": "second", "api_token": "secret", "workflows": orders("b")}
        first, other = ({**entry, "account_id": account_id} for account_id in ("one", "two"))
        async with watching(["a"], state=state, more_accounts=[first]) as w:
            await w.reload(more_accounts=[other])
            await w.reload(more_accounts=[])
            await w.saved()
            assert [account.workflows.label for account in w.app.accounts] == ["acc"]
            assert not any('account="second"' in series for series in w.values())

    async def test_a_renamed_account_keeps_its_counts(self, tmp_path: Path) -> None:
        async with watching(["a"], state=tmp_path / "state.db") as w:
            w.orders.create("a", RUN)
            await w.round(after=60)
            before = {s.replace('account="acc"', 'account="new"'): v for s, v in counted(w).items()}
            await w.reload(account="new")
            await w.round()
            assert counted(w) == before

    async def test_an_account_keeps_its_counts_when_another_entry_has_the_same_id(
        self, state: Path | None
    ) -> None:
        """Two credentials for one account, each for workflows of its own."""
        second = {
            "name": "second", "account_id": "acc", "api_token": "secret",
            "workflows": [{"name": "billing", "instances": ["x"]}],
        }  # fmt: skip
        async with watching(["a"], state=state, account="first") as w:
            w.orders.create("a", RUN)
            await w.round(after=60)
            before = counted(w)
            await w.reload(more_accounts=[second])
            assert before.items() <= counted(w).items()


class TestWhatComes:
    async def test_workflows_and_accounts_are_watched(self, state: Path | None) -> None:
        other = {
            "name": "other", "account_id": "acc2", "api_token": "secret",
            "workflows": [{"name": "o*", "discover": {"min_age": "0s"}}],
        }  # fmt: skip
        async with watching(["a"], state=state) as w:
            w.simulator.world.account("acc2").workflow("orders").create("z", WAITS)
            await w.cycle(after=5)
            await w.reload(workflows=[*orders("a"), *DISCOVERED[1:]], more_accounts=[other])
            await w.cycle(after=15)
            assert w.status("z") == "waiting"

    async def test_what_ended_before_a_workflow_is_discovered_is_history(
        self, tmp_path: Path
    ) -> None:
        """It is watched for long; its other instances are not."""
        async with watching(["a"], state=tmp_path / "state.db") as w:
            await w.cycle()
            for n in range(3):
                w.orders.create(f"old-{n}", RUN)
            await w.cycle(after=600)
            await w.reload(workflows=[{"name": "orders", "discover": {"statuses": ["complete"]}}])
            await w.cycle(after=15)
            assert w.status("old-0") == "complete"
            assert w.value(FINISHED, status="complete") == 0
            w.orders.create("new", RUN)
            await w.restart()
            await w.cycle(after=60)
            await w.cycle(after=15)
            assert w.value(FINISHED, status="complete") == 1

    async def test_a_configured_workflow_is_discovered_and_back(self, state: Path | None) -> None:
        async with watching(["a"], state=state) as w:
            w.orders.create("a", RUN)
            w.orders.create("b", WAITS)
            await w.cycle(after=60)
            before = w.value(FINISHED, status="complete")
            await w.reload(workflows=[{**DISCOVERED[0], "instances": ["a"]}])
            await w.cycle(after=15)
            assert w.status("b") == "waiting"
            await w.reload(workflows=orders("a"))
            assert not of_instances(w, "b")
            await w.cycle(after=15)
            assert w.status("a") == "complete"
            assert w.value(FINISHED, status="complete") == before

    @pytest.mark.parametrize("more", [{}, {"poll": {"interval": "5s"}}], ids=["alone", "and more"])
    async def test_a_workflow_that_a_glob_stands_for_from_now_on_stays(
        self, state: Path | None, more: dict[str, Any]
    ) -> None:
        """Though the list of workflows can't be read."""
        async with watching(["a"], state=state) as w:
            w.orders.create("a", FAILS)
            for _ in range(2):
                await w.cycle(after=60)
            before = counted(w)
            w.simulator.faults.add(error(500))
            await w.reload(workflows=[{"name": "o*", "discover": {}}], **more)
            for _ in range(2):
                assert w.status("a") == "errored"
                assert counted(w) == before
                await w.cycle(after=60)


class TestSettings:
    async def test_selectors_take_effect(self, state: Path | None) -> None:
        async with watching(workflows=DISCOVERED, state=state) as w:
            w.orders.create("a", WAITS)
            w.orders.create("b", WAITS)
            w.orders.create("broken", FAILS)
            await w.cycle(after=5)
            await w.cycle(after=15)
            assert (w.status("a"), w.status("broken")) == ("waiting", "errored")
            errored = [{"name": "orders", "discover": {"statuses": ["errored"]}}]
            await w.reload(workflows=errored)
            assert (w.status("a"), w.status("broken")) == (None, "errored")
            excluded = [{"name": "orders", "discover": {"exclude": ["b*"]}}]
            await w.reload(workflows=excluded)
            assert w.status("broken") is None
            await w.cycle(after=15)
            assert (w.status("a"), w.status("b")) == ("waiting", None)

    async def test_fewer_instances_may_be_shown(self, state: Path | None) -> None:
        async with watching(workflows=DISCOVERED, state=state) as w:
            for name in "abc":
                w.orders.create(name, WAITS)
            await w.cycle(after=5)
            await w.reload(workflows=[{"name": "orders", "discover": {"max_instances": 1}}])
            assert len([name for name in "abc" if w.status(name)]) == 1

    @pytest.mark.slow
    @pytest.mark.parametrize("how", ["reload", "restart"])
    async def test_a_longer_memory_counts_nothing_again(self, tmp_path: Path, how: str) -> None:
        short, long = {"forget_after": "10m"}, {"forget_after": "30d"}
        async with watching(
            workflows=DISCOVERED,
            state=tmp_path / "state.db",
            poll=short,
            metrics={"backfill": True},
        ) as w:
            w.orders.create("a", RUN)
            w.orders.create("b", WAITS)
            for _ in range(40):
                await w.cycle(after=60)
            assert w.value(FINISHED, status="complete") == 1
            assert "a" not in w.app.pollers[0].instances
            await (w.reload if how == "reload" else w.restart)(poll=long)
            for _ in range(15):
                await w.cycle(after=60)
            assert w.value(FINISHED, status="complete") == 1

    async def test_a_wider_selector_counts_nothing_again(self, state: Path | None) -> None:
        poll = {"forget_after": "10m"}
        async with watching(workflows=DISCOVERED, state=state, poll=poll) as w:
            await w.cycle()
            w.orders.create("a", RUN)
            await w.cycle(after=15)
            while w.app.pollers[0].instances:
                await w.cycle(after=15)
            before = counted(w)
            await w.reload(
                workflows=[{"name": "orders", "discover": {"statuses": ["running", "complete"]}}]
            )
            await w.cycle(after=15)
            assert w.status("a") == "complete"
            await w.cycle(after=15)
            assert counted(w) == before

    async def test_a_shorter_interval_holds_at_once(self, state: Path | None) -> None:
        async with watching(["a"], state=state, poll={"interval": "10m"}) as w:
            w.orders.create("a", WAITS)
            await w.round(after=5)
            await w.reload(poll={"interval": "10s"})
            assert await w.round(after=10) == {"simple": 1}

    async def test_a_new_token_is_used(self, state: Path | None) -> None:
        async with watching(["a"], state=state) as w:
            w.orders.create("a", WAITS)
            await w.round()
            w.simulator.access.token("rotated")
            w.simulator.access.revoke("secret")
            await w.reload(token="rotated")
            await w.round(after=15)
            assert w.app.pollers[0].up

    async def test_requests_that_were_made_count_on_under_other_limits(
        self, state: Path | None
    ) -> None:
        ids = [f"i{number}" for number in range(20)]
        async with watching(ids, state=state, api={"requests_per_5m": 200}) as w:
            for name in ids:
                w.orders.create(name, WAITS)
            await w.round()
            await w.reload(api={"requests_per_5m": 20}, token="secret")
            (account,) = w.app.accounts
            assert account.workflows.queue.budget.allowed == 20
            assert account.workflows.queue.budget.wait() > 0
            w.simulator.access.token("rotated")
            await w.reload(token="rotated")
            assert w.app.accounts[0].workflows.queue.budget.wait() > 0

    async def test_other_series_of_instances_are_shown(self, state: Path | None) -> None:
        async with watching(["a"], state=state) as w:
            w.orders.create("a", WAITS)
            await w.round(after=5)
            before = of_instances(w, "a")
            await w.reload(metrics={"instance_series": "none"})
            assert not of_instances(w, "a")
            await w.reload(metrics={"instance_series": "all"})
            assert of_instances(w, "a") == before

    async def test_steps_are_named_by_the_new_rules(self, state: Path | None) -> None:
        rules = [{"regex": "fetch", "replacement": "get"}]
        async with watching(["a", "b"], state=state) as w:
            w.orders.create("a", RUN)
            w.orders.create("b", RUN, at=w.clock() + 70)
            await w.round(after=60)
            await w.reload(metrics={"step_names": {"rewrite": rules}})
            await w.round(after=120)
            name = "cloudflare_workflow_step_attempts_count"
            found = {dict(labels)["step"]: n for labels, n in w.samples(name).items() if n}
            assert (found["fetch"], found["get"]) == (1, 1)

    async def test_names_of_former_rules_take_no_place_of_the_limit(
        self, state: Path | None
    ) -> None:
        """They were at the limit: that is why there are rules now."""
        rules = [{"regex": "user-[0-9]+", "replacement": "user"}]
        async with watching(["a", "b"], state=state, metrics={"step_names": {"limit": 2}}) as w:
            w.orders.create("a", Script(steps("mail user-1", "mail user-2", "mail user-3")))
            await w.round(after=60)
            await w.reload(metrics={"step_names": {"limit": 2, "rewrite": rules}})
            w.orders.create("b", Script(steps("mail user-1", "mail user-2", "mail user-3")))
            await w.round(after=60)
            name = "cloudflare_workflow_step_attempts_count"
            found = {dict(labels)["step"]: n for labels, n in w.samples(name).items() if n}
            assert found == {"mail user-1": 1, "mail user-2": 1, "other": 1, "mail user": 3}

    async def test_a_histogram_with_other_buckets_starts_again(self, state: Path | None) -> None:
        async with watching(["a"], state=state) as w:
            w.orders.create("a", RUN)
            await w.round(after=60)
            with capture_logs() as logs:
                await w.reload(metrics={"buckets": {"run_duration_seconds": [1, 2]}})
            logged = [line["metric"] for line in logs if "buckets" in line["event"]]
            assert logged == ["cloudflare_workflow_run_duration_seconds"]
            name = "cloudflare_workflow_run_duration_seconds_bucket"
            assert w.value(name, status="complete", le="2.0") == 0
            assert w.value(name, status="complete", le="5.0") is None
            assert w.value(FINISHED, status="complete") == 1


class TestRefused:
    async def test_a_secret_that_is_not_there_leaves_all_as_it_was(
        self, state: Path | None, tmp_path: Path
    ) -> None:
        missing = {
            "name": "other", "account_id": "acc2", "api_token_file": str(tmp_path / "none"),
            "workflows": orders("z"),
        }  # fmt: skip
        async with watching(["a"], state=state) as w:
            w.orders.create("a", WAITS)
            await w.round(after=5)
            before = w.values()
            with pytest.raises(ConfigError, match=r"accounts\[1\]"):
                await w.reload(more_accounts=[missing], workflows=orders("b"))
            assert w.values() == before
            assert await w.round(after=15) == {"simple": 1}
