"""What a configuration costs in calls, and how fresh its figures can be."""

from collections.abc import Iterator

from exporter.cloudflare.budget import WINDOW
from exporter.durations import Duration
from exporter.settings import Account, Settings

_SIZES = (1000, 10_000, 50_000)
# Lists hold 100 instances a page, and a list for each live status ends with a page half full.
_PER_PAGE, _HALF_FULL = 100, 2
# Sweeps leave some of the budget to looks, and the budget itself is kept with a margin.
_SHARE = 0.93


def configured_calls(account: Account, interval: float) -> float:
    """Calls in 5 minutes for the instances that an account's workflows list."""
    return sum(len(w.instances) for w in account.workflows) * WINDOW / interval


def text(settings: Settings) -> str:
    """The plan, a line an account, for people."""
    return "\n".join(["configuration is right", *_lines(settings)])


def _lines(settings: Settings) -> Iterator[str]:
    limit, interval = settings.api.requests_per_5m, settings.poll.interval
    for account in settings.accounts:
        calls = configured_calls(account, interval)
        listed = sum(len(w.instances) for w in account.workflows)
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
