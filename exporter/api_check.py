"""`--check-api`: sends a few requests, tries the database, and reports what is wrong and how to fix
it.

Watching sends the same requests, with the same credential, permission, account id and names. Only
responses are judged, so the check works in the same way with Cloudflare, a proxy and a local
engine.
"""

import asyncio
import difflib
from collections.abc import AsyncIterator, Sequence
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple

from exporter.clock import Clock
from exporter.cloudflare.budget import Budget
from exporter.cloudflare.connections import http_client
from exporter.cloudflare.credentials import read_credentials
from exporter.cloudflare.errors import RequestFailed
from exporter.cloudflare.event_queue import EventQueue
from exporter.cloudflare.workflows_client import WorkflowsClient
from exporter.config.accounts import Account, is_glob
from exporter.config.settings import Settings
from exporter.logs import printable
from exporter.state.backend import DatabaseServer, Unreachable
from exporter.state.open_state import check, location_of

_MOST_IDS = 20
"""Maximum configured instances of an account to request: the check must cost little."""
_SKEW = 5.0
"""Seconds by which clocks may differ: a `Date` has whole seconds, and responses take time."""
_FATAL = frozenset({"rate_limited", "unauthorized", "timeout", "connection"})
"""Failures after which further requests would fail in the same way."""

Verdict = Literal["ok", "note", "wrong"]
"""A note needs no fix, but people should know it."""
_Result = tuple[Verdict, str]


class Finding(NamedTuple):
    """The result of one check."""

    verdict: Verdict
    about: str
    text: str

    def __str__(self) -> str:
        return printable(f"{self.verdict:<5}  {self.about}: {self.text}").replace("\n", "\\n")


async def findings(settings: Settings, clock: Clock) -> AsyncIterator[Finding]:
    """Checks one account after the other, then the clock, and then the database.

    Raises:
        ConfigError: a file that holds a secret, a proxy or certificates can't be used.
    """
    location = location_of(settings)
    budgets: dict[object, Budget] = {}
    clocks_ahead: list[float] = []

    def compare(date: float) -> None:
        clocks_ahead.append(clock.wall() - date - 0.5)  # a date is cut to whole seconds

    credentials = read_credentials(settings.accounts)
    async with http_client(settings.api, on_date=compare) as http:
        for account, credential, queue_credential in credentials:
            budget = budgets.setdefault(
                credential.budget_key,
                Budget(settings.api.requests_per_5m, reserve=settings.api.reserve, clock=clock),
            )
            base = http, settings.api, account.account_id
            client = WorkflowsClient(*base, credential, budget)
            try:
                async for verdict, text in _account(account, client, budget):
                    yield Finding(verdict, account.label, text)
            except RequestFailed as failure:
                yield Finding("wrong", account.label, _described(failure))
            if account.events is not None and queue_credential is not None:
                queue = EventQueue(*base, queue_credential, queue_id=account.events.queue_id)
                yield await _queue(account, queue)
    if clocks_ahead:
        yield _clock(min(clocks_ahead, key=abs))
    if isinstance(location, DatabaseServer):
        yield await _database(location)


async def _queue(account: Account, queue: EventQueue) -> Finding:
    """Checks the queue of an account's events, without taking a message."""
    try:
        name = await queue.check()
    except RequestFailed as failure:
        return Finding("wrong", account.label, f"events: {_described(failure)}")
    text = f"queue {name} has a pull consumer, and its token may pull"
    return Finding("ok", account.label, text)


async def _account(
    account: Account, client: WorkflowsClient, budget: Budget
) -> AsyncIterator[_Result]:
    """Checks what an account's settings name.

    Raises:
        RequestFailed: nothing more can be checked.
    """
    if budget.blocked:
        text = f"not checked: the API refuses the credential's requests for {budget.blocked:.0f} s"
        raise RequestFailed("rate_limited", text)
    names = [row.name async for page in client.workflows() for row in page if row.name]
    yield "ok", f"credential can read the account's workflows: {len(names)} found"
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
                _raise_if_fatal(failure)
                yield "wrong", f"instances of {matching[0]} can't be listed: {_described(failure)}"
                continue
        found = "exists" if matching == [workflow.name] else f"matches {_some(matching)}"
        yield "ok", f"workflow {workflow.name} {found}"
    async for result in _instances(ids, client, budget):
        yield result
    yield _requests_left(budget)


async def _database(server: DatabaseServer) -> Finding:
    try:
        await asyncio.to_thread(check, server)
    except Unreachable as error:
        return Finding("wrong", "state.url", str(error))
    return Finding("ok", "state.url", "the database can be used")


async def _instances(
    ids: list[tuple[str, str]], client: WorkflowsClient, budget: Budget
) -> AsyncIterator[_Result]:
    found = requested = 0
    for workflow, instance_id in ids[:_MOST_IDS]:
        if budget.blocked:
            break
        requested += 1
        try:
            await client.instance(workflow, instance_id)
            found += 1
        except RequestFailed as failure:
            _raise_if_fatal(failure)
            if failure.reason == "not_found":
                text = "does not exist (404): check its id, unless it will be created later"
                yield "note", f"instance {workflow}/{instance_id} {text}"
            else:
                yield "wrong", f"instance {workflow}/{instance_id}: {_described(failure)}"
    if found:
        yield "ok", f"{found} configured instance(s) found"
    if requested < len(ids):
        text = f"{len(ids) - requested} more configured instance(s) not requested"
        yield "note", f"{text}, to spare the budget"


def _raise_if_fatal(failure: RequestFailed) -> None:
    if failure.reason in _FATAL:
        raise failure


def _unknown(name: str, names: Sequence[str]) -> str:
    """That no workflow has a name, and which ones have a similar one."""
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {_some(near)}?" if near else f"the account has: {_some(names) or 'none'}."
    no_such = f"no workflow {'matches' if is_glob(name) else 'is named'} {name}"
    return f"{no_such}; {hint} Check the name and account_id"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _requests_left(budget: Budget) -> _Result:
    if budget.quota is None:
        return "note", "no rate-limit headers received; Cloudflare's API sends them"
    left = f"{budget.remaining} of {budget.quota} requests in 5 minutes are left"
    if budget.blocked:
        text = f"other tools of the same user leave the exporter none for {budget.blocked:.0f} s"
    elif budget.allowed < budget.limit:
        text = (
            f"other tools of the same user leave the exporter {budget.allowed:.0f} of the "
            f"{budget.limit} that it may send"
        )
    else:
        return "ok", f"{left}; the exporter sends at most {budget.limit}"
    return "note", f"{left}; {text}; give it a token of a user of its own"


def _clock(ahead: float) -> Finding:
    if abs(ahead) <= _SKEW:
        return Finding("ok", "clock", f"correct to within {_SKEW:.0f} s")
    side = "ahead of" if ahead > 0 else "behind"
    text = (
        f"this machine's clock is {abs(ahead):.0f} s {side} the API's; synchronize it, for example "
        "with NTP: ages, and what counts as history, are wrong by as much"
    )
    return Finding("wrong", "clock", text)


def _described(failure: RequestFailed) -> str:
    return f"{failure}; {failure.advice}" if failure.advice else str(failure)
