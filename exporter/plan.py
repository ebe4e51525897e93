"""What a configuration costs in calls, and how fresh its figures can be."""

from collections.abc import Iterator

from exporter.cloudflare.budget import WINDOW
from exporter.durations import Duration
from exporter.settings import Account, Settings
from exporter.watch.shard import Shard, Share

_SIZES = (1000, 10_000, 50_000)
# Lists hold 100 instances a page, and a list for each live status ends with a page half full.
_PER_PAGE, _HALF_FULL = 100, 2
# Sweeps leave some of the budget to looks, and the budget itself is kept with a margin.
_SHARE = 0.93


def configured_calls(account: Account, shard: Shard, interval: float) -> float:
    """Calls in 5 minutes for the instances that an account's workflows list, on one shard."""
    return _listed(account, shard) * WINDOW / interval


def _listed(account: Account, shard: Shard) -> int:
    return sum(
        Share(shard, account.identity, workflow.name).has(instance_id)
        for workflow in account.workflows
        for instance_id in workflow.instances
    )


def text(settings: Settings, shard: Shard) -> str:
    """The plan, a line an account, for people."""
    return "\n".join(["configuration is right", *_lines(settings, shard)])


def _lines(settings: Settings, shard: Shard) -> Iterator[str]:
    limit, interval = settings.calls_per_5m, settings.poll.interval
    if shard.count > 1:
        yield (
            f"shard {shard.index} of {shard.count} may make {limit} of the "
            f"{settings.api.requests_per_5m} calls in 5 minutes; of the listed instances it has "
            "its own, of the lists it reads all"
        )
    for account in settings.accounts:
        calls = configured_calls(account, shard, interval)
        listed = _listed(account, shard)
        line = (
            f"{account.label}: {listed} listed instance(s) cost up to {calls:.0f} calls in "
            f"5 minutes, of {limit}"
        )
        if calls > limit:
            late = Duration(round(listed * WINDOW / limit))
            line += (
                f"; that is too many: each is looked at every {late} at best, so raise "
                "poll.interval, list less, or discover instead"
            )
        yield line
        workflows = sum(w.discover is not None for w in account.workflows)
        if workflows:
            yield f"{account.label}: {workflows} entry(ies) to discover; statuses are as old as"
            for size in _SIZES:
                yield f"  {_freshness(size, workflows, limit - calls, interval)}"


def _freshness(instances: int, workflows: int, budget: float, interval: float) -> str:
    if budget <= 0:
        return f"with {instances:,} live instances: no budget left"
    pages = instances / _PER_PAGE + workflows * _HALF_FULL
    seconds = max(interval, pages / (_SHARE * budget / WINDOW))
    return f"{Duration(round(seconds))} at most, with {instances:,} live instances"
