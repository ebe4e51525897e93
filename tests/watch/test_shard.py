"""Shards: each instance has one, few of them move, and what moved isn't counted again."""

from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.app import App
from exporter.config import settings
from exporter.config.errors import ConfigError
from exporter.watch.shard import Shard, Share, shard_of
from simulator import Script, Sleep, Wait, steps
from tests.watching import watching

KEYS = st.tuples(st.text(min_size=1), st.text(min_size=1), st.text(min_size=1))
COUNTS = st.integers(1, 200)
WAITING = Script(pieces=(Wait("approval"),))
NOW = 1_800_000_000.0


def shard(index: int, count: int, previous_count: int | None = None) -> Shard:
    return Shard(index, count, previous_count)


class TestWhichShard:
    @given(KEYS, COUNTS)
    def test_each_instance_is_had_by_exactly_one(
        self, key: tuple[str, str, str], count: int
    ) -> None:
        account, workflow, instance_id = key
        shares = [Share(shard(n, count), account, workflow) for n in range(count)]
        assert sum(share.has(instance_id) for share in shares) == 1
        assert sum(share.leads for share in shares) == 1

    @given(KEYS, COUNTS)
    def test_with_one_more_it_stays_or_moves_to_the_new_one(
        self, key: tuple[str, str, str], count: int
    ) -> None:
        assert shard_of(count + 1, *key) in (shard_of(count, *key), count)

    @pytest.mark.parametrize("count", [1, 2, 3, 7])
    def test_with_one_more_no_more_than_its_share_moves(self, count: int) -> None:
        ids = [f"order-{n}" for n in range(10_000)]
        moved = sum(shard_of(count, "a", "w", i) != shard_of(count + 1, "a", "w", i) for i in ids)
        assert moved / len(ids) == pytest.approx(1 / (count + 1), rel=0.1)

    def test_the_load_is_even(self) -> None:
        shards = [shard_of(5, "a", "w", f"order-{n}") for n in range(10_000)]
        assert all(1_800 < shards.count(n) < 2_200 for n in range(5))

    def test_it_depends_on_account_and_workflow_too(self) -> None:
        """Else a workflow with one instance, `main`, in many accounts would load one shard."""
        assert {shard_of(3, f"a-{n}", "w", "main") for n in range(50)} == {0, 1, 2}
        assert {shard_of(3, "a", f"w-{n}", "main") for n in range(50)} == {0, 1, 2}
        assert {shard_of(3, "a", f"w-{n}") for n in range(50)} == {0, 1, 2}

    def test_it_is_the_same_in_every_process_and_release(self) -> None:
        """Were the hash another one in the next release, an upgrade would move instances."""
        ids = [f"order-{n}" for n in range(12)]
        assert [shard_of(3, "acc", "orders", i) for i in ids] == [
            0,
            2,
            0,
            2,
            1,
            1,
            0,
            1,
            0,
            0,
            0,
            0,
        ]


class TestTheHostsName:
    @pytest.mark.parametrize(
        ("hostname", "index"),
        [
            ("exporter-0", 0),
            ("my-exporter-2", 2),
            ("exporter-1.exporter-headless.monitoring.svc.cluster.local", 1),
        ],
    )
    def test_auto_takes_the_number_at_its_end(self, hostname: str, index: int) -> None:
        auto = settings.Shard(index="auto", count=3)
        assert Shard.of(auto, hostname=hostname) == shard(index, 3)

    @pytest.mark.parametrize("hostname", ["exporter-3", "laptop", "7f9c-x", "exporter2", ""])
    def test_one_that_names_no_shard_is_refused(self, hostname: str) -> None:
        auto = settings.Shard(index="auto", count=3)
        with pytest.raises(ValueError, match="auto takes a number from 0 to 2 from the end of"):
            Shard.of(auto, hostname=hostname)

    def test_the_refusal_is_a_mistake_of_the_configuration(self) -> None:
        with pytest.raises(ConfigError) as refusal:
            App(settings.Settings.model_validate(configured(index="auto")), hostname="laptop")
        assert refusal.value.problems == [
            "shard.index: auto takes a number from 0 to 2 from the end of the host name, as in "
            "exporter-0, and this host is called 'laptop'"
        ]

    def test_a_given_index_needs_no_such_name(self) -> None:
        app = App(settings.Settings.model_validate(configured(index=1)), hostname="laptop")
        assert app.shard.index == 1


def configured(**shard: Any) -> dict[str, Any]:
    workflow = {"name": "orders", "instances": ["o-1"]}
    return {
        "accounts": [{"account_id": "acc", "api_token": "secret", "workflows": [workflow]}],
        "shard": {"count": 3, **shard},
    }


class TestWhatMoved:
    def test_it_counts_from_the_start_on_where_another_shard_had_it(self) -> None:
        share = Share(shard(2, 3, previous_count=2), "acc", "orders", NOW)
        ids = [i for i in map(str, range(100)) if share.has(i)]
        assert ids
        assert {share.since(i) for i in ids} == {NOW}

    @pytest.mark.parametrize(("before", "now"), [(2, 3), (3, 2), (5, 3), (1, 3), (3, 1)])
    def test_what_stayed_counts_as_ever(self, before: int, now: int) -> None:
        share = Share(shard(0, now, previous_count=before), "acc", "orders", NOW)
        for i in filter(share.has, map(str, range(100))):
            stayed = shard_of(before, "acc", "orders", i) == 0
            assert share.since(i) == (-inf if stayed else NOW)

    def test_nothing_moved_where_nothing_is_said(self) -> None:
        share = Share(shard(2, 3), "acc", "orders")
        assert {share.since(i) for i in map(str, range(100))} == {-inf}


IDS = [f"i-{n}" for n in range(30)]
MINE = [i for i in IDS if shard_of(3, "acc", "orders", i) == 1]
MOVED = [i for i in MINE if shard_of(4, "acc", "orders", i) != 1]
LEADER = shard_of(3, "acc", "orders")
LISTED: list[dict[str, Any]] = [{"name": "orders", "instances": IDS}]
DISCOVERED: list[dict[str, Any]] = [{"name": "orders", "discover": {"statuses": ["complete"]}}]


class TestWatching:
    @pytest.mark.slow
    @pytest.mark.parametrize("workflows", [LISTED, [{"name": "orders", "discover": {}}]])
    async def test_only_what_falls_to_the_shard_is_looked_at_and_shown(
        self, workflows: list[dict[str, Any]]
    ) -> None:
        async with watching(workflows=workflows, shard={"index": 1, "count": 3}) as w:
            for i in IDS:
                w.orders.create(i, WAITING)
            calls = await w.cycle(after=1)
            assert [i for i in IDS if w.status(i)] == MINE
            assert w.watched() == len(MINE)
            assert calls["detail"] == len(MINE)

    @pytest.mark.parametrize("index", range(3))
    async def test_what_the_platform_says_of_a_workflow_is_shown_and_asked_for_by_one(
        self, index: int
    ) -> None:
        async with watching(workflows=LISTED, shard={"index": index, "count": 3}) as w:
            w.orders.release(step_limit=500, concurrency=5)
            w.orders.create(MINE[0], WAITING)
            calls = await w.cycle(after=1)
            leads = index == LEADER
            assert calls.get("versions", 0) == leads
            for name in ("instances", "step_limit", "concurrency_limit"):
                assert bool(w.samples(f"cloudflare_workflow_{name}")) == leads, name
            assert w.value("cloudflare_workflow_up") == 1

    @pytest.mark.parametrize("workflows", [LISTED, DISCOVERED])
    async def test_the_past_of_what_moved_is_shown_but_not_counted(
        self, workflows: list[dict[str, Any]]
    ) -> None:
        """Even where all that had ended is counted, and each is seen for the first time."""
        assert 0 < len(MOVED) < len(MINE)
        async with watching(
            workflows=workflows,
            metrics={"backfill": True},
            shard={"index": 1, "count": 3, "previous_count": 4},
        ) as w:
            began = w.clock() - 60
            runs = {i: w.orders.create(i, Script(steps("a")), at=began) for i in IDS}
            await w.cycle(after=1)
            stayed = len(MINE) - len(MOVED)
            assert [w.status(i) for i in MOVED] == ["complete"] * len(MOVED)
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == stayed
            assert w.value("cloudflare_workflow_queue_duration_seconds_count") == stayed
            attempts = "cloudflare_workflow_step_attempt_duration_seconds_count"
            assert w.value(attempts, step="a", outcome="success") == stayed
            runs[MOVED[0]].restart()
            await w.cycle(after=3600)
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == (
                stayed + 1
            )

    async def test_the_most_instances_of_a_workflow_are_its_own(self) -> None:
        limit = len(MINE) - 2
        discover: list[dict[str, Any]] = [{"name": "orders", "discover": {"max_instances": limit}}]
        async with watching(workflows=discover, shard={"index": 1, "count": 3}) as w:
            for i in IDS:
                w.orders.create(i, WAITING)
            await w.cycle(after=1)
            assert len(w.shown()) == limit
            assert w.value("cloudflare_workflows_exporter_instances_dropped_total") == 2

    @pytest.mark.slow
    async def test_lists_are_known_to_hold_what_is_the_others_too(self) -> None:
        """Three that ended take three calls; the list that holds them would take as many pages."""
        discover: list[dict[str, Any]] = [{"name": "orders", "discover": {}}]
        async with watching(workflows=discover, shard={"index": 1, "count": 3}) as w:
            for n in range(1000):
                w.orders.create(f"old-{n}", Script(steps("pay")), at=w.clock() - 9000)
            for i in MINE[:3]:
                w.orders.create(i, Script((Sleep("nap", 600),)))
            w.clock.advance(5)
            for n in range(280):
                w.orders.create(f"new-{n}", WAITING)
            await w.cycle(after=1)
            await w.cycle(after=570)
            calls = await w.cycle(after=60)
            assert calls["list"] <= 5  # the live ones, and what was created since
            assert w.value("cloudflare_workflow_runs_finished_total", status="complete") == 3

    async def test_each_has_its_part_of_the_budget(self) -> None:
        async with watching(["a"], shard={"index": 0, "count": 3}) as w:
            (account,) = w.app.accounts
            assert account.roster.queue.budget.limit == 33_333
