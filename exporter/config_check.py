"""`--check-config`: the requests that a configuration needs, and how old statuses can become."""

from collections.abc import Iterator, Sequence
from math import inf

from exporter.cloudflare.credentials import read_credentials
from exporter.cloudflare.pagination import PAGE_SIZE
from exporter.cloudflare.replica_budgets import WINDOW
from exporter.config.accounts import Account, Workflow, is_glob
from exporter.config.settings import CLOUDFLARE_LIMIT, Settings
from exporter.config.units import Duration
from exporter.config.urls import is_cloudflare
from exporter.instances.urgency import stretched

_SIZES = (1000, 10_000, 50_000)
_PARTLY_FILLED = 2
"""Pages that the lists of a workflow need beyond those that its instances fill: the list of each
live status ends with a page that is only partly filled."""
_SHARE = 0.93
"""The part of the budget that list passes get: some goes to polls, and the budget has a margin."""


def report(settings: Settings) -> Iterator[str]:
    """The lines to print. Accounts with the same credential share a budget, so they share a line.

    Raises:
        ConfigError: a file that holds a secret can't be used.
    """
    yield "configuration is valid"
    limit, interval = _allowed(settings), settings.poll.interval
    if limit < settings.api.requests_per_5m:
        yield (
            f"api.reserve leaves {settings.api.reserve:.0%} of Cloudflare's {CLOUDFLARE_LIMIT} "
            "requests in 5 minutes to other tools: the exporter sends at most "
            f"{limit}, not {settings.api.requests_per_5m} (api.requests_per_5m)"
        )
    sharing: dict[object, list[Account]] = {}
    for account, credential, _ in read_credentials(settings.accounts):
        sharing.setdefault(credential.budget_key, []).append(account)
    for accounts in sharing.values():
        names = ", ".join(account.label for account in accounts)
        configured = sum(len(w.instances) for account in accounts for w in account.workflows)
        needed = configured * WINDOW / interval
        line = (
            f"{names}: {configured} configured instance(s) need up to {needed:.0f} of {limit} "
            "requests in 5 minutes"
        )
        if needed > limit:
            interval_at_best = Duration(round(configured * WINDOW / limit))
            line += (
                f"; over the limit: each is polled every {interval_at_best} at best; raise "
                "poll.interval, configure fewer instances, or discover them"
            )
        yield line
        entries = [w for account in accounts for w in account.workflows if w.discover is not None]
        if entries:
            yield f"{names}: {len(entries)} workflow(s) to discover; expected status age (99%):"
            # List pages and configured instances get as many turns as each other.
            rate = _SHARE * max(limit - needed, limit / 2) / WINDOW
            for size in _SIZES:
                pages = size / PAGE_SIZE + len(entries) * _PARTLY_FILLED
                took = pages / rate
                age = Duration(round(max(took, stretched(interval, took))))
                yield f"  {age} with {size:,} live instances{_with_series(size, entries)}"
            if any(is_glob(entry.name) for entry in entries):
                more = _PARTLY_FILLED / rate
                yield f"  up to {more:.1f}s more with each further workflow that a glob matches"
            longest = Duration(stretched(interval, inf))
            if age > longest:
                yield f"  over {longest}, steps of live ones are rarely fetched"


def _allowed(settings: Settings) -> int:
    """Requests in 5 minutes that this process may send if no other tool sends any."""
    limit = settings.api.requests_per_5m
    if is_cloudflare(settings.api.url):
        limit = max(1, min(limit, round(CLOUDFLARE_LIMIT * (1 - settings.api.reserve))))
    return limit


def _with_series(instances: int, entries: Sequence[Workflow]) -> str:
    """How many of the instances have series under `discover.max_instances`; empty: all of them."""
    limits = [entry.discover.max_instances for entry in entries if entry.discover is not None]
    if any(is_glob(entry.name) for entry in entries):
        # The number of workflows isn't known.
        text = f", with series for at most {max(limits):,} of each workflow"
        return text if max(limits) < instances else ""
    return f", with series for {sum(limits):,} of them" if sum(limits) < instances else ""
