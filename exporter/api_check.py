"""`--check-api`: asks the API a few things, and says what is wrong and how to mend it.

A few calls an account, those that watching makes too: they need the same credential, permission,
account id and names. Whatever is wrong is told by their answers, so it works the same with
Cloudflare, a proxy and a local engine.
"""

import difflib
from collections.abc import AsyncIterator, Iterable
from email.utils import parsedate_to_datetime
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple

import httpx

from exporter.clock import Clock
from exporter.cloudflare.budget import Budget
from exporter.cloudflare.client import Client
from exporter.cloudflare.connections import http_client
from exporter.cloudflare.credentials import read_credentials
from exporter.cloudflare.errors import RequestFailed
from exporter.config.accounts import Account
from exporter.config.settings import Settings
from exporter.logs import printable

_PER_PAGE = 100
_MOST_PAGES = 100
_MOST_IDS = 20
"""Listed instances of an account that are asked for: the check is to cost little."""
_SKEW = 5.0
"""Seconds that clocks may differ: the header has whole ones, and answers take their time."""
_NOT_OVER = frozenset({"rate_limited", "unauthorized", "timeout", "connection"})
"""Failures after which further calls would only fail the same way."""


class Finding(NamedTuple):
    """One thing that was checked. A note needs no mending, but should be known."""

    verdict: Literal["ok", "note", "wrong"]
    about: str
    text: str

    def __str__(self) -> str:
        return printable(f"{self.verdict:<5}  {self.about}: {self.text}").replace("\n", "\\n")


class _Times:
    """How far this machine's clock is ahead of the API's, by the answers' `Date`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.ahead: float | None = None
        """Seconds, of the answer that says the least; None without an answer."""

    async def hear(self, response: httpx.Response) -> None:
        try:
            date = parsedate_to_datetime(response.headers.get("date", "")).timestamp()
        except ValueError:
            return
        # It is cut to whole seconds.
        ahead = self._clock.wall() - date - 0.5
        if self.ahead is None or abs(ahead) < abs(self.ahead):
            self.ahead = ahead


async def findings(settings: Settings, clock: Clock) -> AsyncIterator[Finding]:
    """Checks the accounts one after the other, then the clock.

    Raises:
        ConfigError: a file that holds a secret, a proxy or certificates can't be used.
    """
    budgets: dict[object, Budget] = {}
    times = _Times(clock)
    credentials = read_credentials(settings.accounts)
    async with http_client(settings.api) as http:
        http.event_hooks = {"response": [times.hear]}
        for account, credential in zip(settings.accounts, credentials, strict=True):
            budget = budgets.setdefault(
                credential.budget_key,
                Budget(settings.requests_per_5m, reserve=settings.api.reserve, clock=clock),
            )
            client = Client(http, settings.api, account.account_id, credential, budget=budget)
            try:
                async for verdict, text in _account(account, client, budget):
                    yield Finding(verdict, account.label, text)
                verdict, text = _calls_left(budget)
                yield Finding(verdict, account.label, text)
            except RequestFailed as failure:
                yield Finding("wrong", account.label, _said(failure))
    if times.ahead is not None:
        yield _clock_finding(times.ahead)


_Said = tuple[Literal["ok", "note", "wrong"], str]


async def _account(account: Account, client: Client, budget: Budget) -> AsyncIterator[_Said]:
    """What the API says to what an account's settings name.

    Raises:
        CallFailed: nothing more can be asked.
    """
    if budget.blocked:
        text = f"not checked: the credential's calls are refused for {budget.blocked:.0f} s more"
        raise RequestFailed("rate_limited", text)
    names = await _workflows(client)
    yield "ok", f"the credential may read the account's workflows; it has {len(names)}"
    ids: list[tuple[str, str]] = []
    for workflow in account.workflows:
        matching = [name for name in names if fnmatchcase(name, workflow.name)]
        if not matching:
            yield "wrong", _unknown(workflow.name, names)
            continue
        ids += [(workflow.name, instance_id) for instance_id in workflow.instances]
        if workflow.discover is not None:
            try:
                await client.instances(matching[0], {"per_page": "1"})
            except RequestFailed as failure:
                _end_if_hopeless(failure)
                yield "wrong", f"instances of {matching[0]} can't be listed: {_said(failure)}"
                continue
        found = "" if matching == [workflow.name] else f", it matches {_some(matching)}"
        yield "ok", f"workflow {workflow.name} is there{found}"
    async for said in _instances(ids, client, budget):
        yield said


async def _workflows(client: Client) -> list[str]:
    names: dict[str, None] = {}
    for page in range(1, _MOST_PAGES + 1):
        rows = await client.workflows(page, _PER_PAGE)
        known = len(names)
        names |= {row.name: None for row in rows if row.name}
        if len(rows) < _PER_PAGE or len(names) == known:
            break
    return list(names)


async def _instances(
    ids: list[tuple[str, str]], client: Client, budget: Budget
) -> AsyncIterator[_Said]:
    there = asked = 0
    for workflow, instance_id in ids[:_MOST_IDS]:
        if budget.blocked:
            break
        asked += 1
        try:
            await client.instance(workflow, instance_id)
            there += 1
        except RequestFailed as failure:
            _end_if_hopeless(failure)
            if failure.reason == "not_found":
                yield (
                    "note",
                    f"instance {workflow}/{instance_id} is not there (404): check its id, unless "
                    "it is still to be created",
                )
            else:
                yield "wrong", f"instance {workflow}/{instance_id}: {_said(failure)}"
    if there:
        yield "ok", f"{there} of the listed instances are there"
    if asked < len(ids):
        yield (
            "note",
            f"{len(ids) - asked} more listed instances were not asked for, to spare the budget",
        )


def _end_if_hopeless(failure: RequestFailed) -> None:
    if failure.reason in _NOT_OVER:
        raise failure


def _unknown(name: str, names: Iterable[str]) -> str:
    """That no workflow has a name, and which ones have one like it."""
    names = list(names)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {_some(near)}?" if near else f"there are: {_some(names) or 'none'}."
    return f"no workflow is called {name}; {hint} Check the name and account_id"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _calls_left(budget: Budget) -> _Said:
    if budget.quota is None:
        return "note", "the API tells no limit on calls, as Cloudflare itself does"
    left = f"{budget.remaining} of {budget.quota} calls in 5 minutes are left"
    if budget.blocked:
        text = f"{left}, so none is made for {budget.blocked:.0f} s: other tools use them up; "
    elif budget.allowed < budget.limit:
        text = (
            f"{left}; other tools of the same user leave the exporter {budget.allowed:.0f} of the "
            f"{budget.limit} it may make; "
        )
    else:
        return "ok", f"{left}; the exporter makes {budget.limit} at most"
    return "note", text + "give it a token of a user of its own"


def _clock_finding(ahead: float) -> Finding:
    if abs(ahead) <= _SKEW:
        return Finding("ok", "clock", f"it is right to within {_SKEW:.0f} s")
    side = "ahead of" if ahead > 0 else "behind"
    return Finding(
        "wrong",
        "clock",
        f"this machine's clock is {abs(ahead):.0f} s {side} the API's; set it, by NTP say: ages, "
        "and what counts as history, are wrong by as much",
    )


def _said(failure: RequestFailed) -> str:
    return f"{failure}; {failure.advice}" if failure.advice else str(failure)
