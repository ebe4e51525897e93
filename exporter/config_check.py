"""What a configuration costs in calls, and how fresh its figures can be."""

from collections.abc import Iterator, Sequence

from exporter.clock import Clock
from exporter.cloudflare.budget import WINDOW, Budget
from exporter.cloudflare.credentials import Credential
from exporter.config.accounts import Account, Workflow, is_glob
from exporter.config.addresses import is_cloudflare
from exporter.config.settings import CLOUDFLARE_LIMIT, Settings
from exporter.config.units import Duration
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
        Share(shard, account.key, workflow.name).has(instance_id)
        for workflow in account.workflows
        for instance_id in workflow.instances
    )


def text(settings: Settings, shard: Shard, credentials: Sequence[Credential]) -> str:
    """The plan for people: a line for the accounts of each credential, since they share a budget.

    Args:
        settings: All of them.
        shard: What this process has of the instances.
        credentials: Those of the accounts, in their order.
    """
    return "\n".join(["configuration is right", *_lines(settings, shard, credentials)])


def _lines(settings: Settings, shard: Shard, credentials: Sequence[Credential]) -> Iterator[str]:
    limit, interval = _allowed(settings, shard), settings.poll.interval
    if limit < settings.requests_per_5m:
        yield (
            f"api.reserve leaves {settings.api.reserve:.0%} of Cloudflare's {CLOUDFLARE_LIMIT} "
            f"calls in 5 minutes to other tools: at most {limit * shard.count} of "
            f"api.requests_per_5m, {settings.api.requests_per_5m}, are made"
        )
    if shard.count > 1:
        yield (
            f"shard {shard.index} of {shard.count} may make {limit} of the "
            f"{settings.api.requests_per_5m} calls in 5 minutes; of the listed instances it has "
            "its own, of the lists it reads all"
        )
    sharing: dict[object, list[Account]] = {}
    for account, credential in zip(settings.accounts, credentials, strict=True):
        sharing.setdefault(credential.budget_key, []).append(account)
    for accounts in sharing.values():
        names = ", ".join(account.label for account in accounts)
        calls = sum(configured_calls(account, shard, interval) for account in accounts)
        listed = sum(_listed(account, shard) for account in accounts)
        line = (
            f"{names}: {listed} listed instance(s) cost up to {calls:.0f} calls in "
            f"5 minutes, of {limit}"
        )
        if calls > limit:
            late = Duration(round(listed * WINDOW / limit))
            line += (
                f"; that is too many: each is looked at every {late} at best, so raise "
                "poll.interval, list less, or discover instead"
            )
        yield line
        entries = [w for account in accounts for w in account.workflows if w.discover is not None]
        if entries:
            yield f"{names}: {len(entries)} entry(ies) to discover; statuses are as old as"
            for size in _SIZES:
                freshness = _freshness(size, len(entries), limit - calls, interval)
                yield f"  {freshness}{_with_series(size, entries)}"


def _allowed(settings: Settings, shard: Shard) -> int:
    """Calls in 5 minutes that the budget gives this process while nobody else makes any."""
    budget = Budget(
        settings.requests_per_5m,
        reserve=settings.api.reserve,
        shards=shard.count,
        clock=Clock(),
    )
    if is_cloudflare(settings.api.url):
        # As its first response will tell.
        left = f'"default";r={CLOUDFLARE_LIMIT};t={WINDOW:.0f}'
        policy = f'"default";q={CLOUDFLARE_LIMIT};w={WINDOW:.0f}'
        budget.update({"ratelimit": left, "ratelimit-policy": policy})
    return int(budget.allowed)


def _freshness(instances: int, workflows: int, budget: float, interval: float) -> str:
    if budget <= 0:
        return f"with {instances:,} live instances: no budget left"
    pages = instances / _PER_PAGE + workflows * _HALF_FULL
    seconds = max(interval, pages / (_SHARE * budget / WINDOW))
    return f"{Duration(round(seconds))} at most, with {instances:,} live instances"


def _with_series(instances: int, entries: Sequence[Workflow]) -> str:
    """How many of the instances `discover.max_instances` leaves series for, if not for all."""
    limits = [entry.discover.max_instances for entry in entries if entry.discover is not None]
    if any(is_glob(entry.name) for entry in entries):
        # Nobody knows how many workflows there will be.
        text = f", of which {max(limits):,} a workflow have series at most"
        return text if max(limits) < instances else ""
    return f", of which {sum(limits):,} have series" if sum(limits) < instances else ""
