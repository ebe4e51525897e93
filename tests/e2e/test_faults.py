"""Whatever goes wrong between the exporter and Cloudflare, two rounds after it is over every value
is what an exporter shows that nothing happened to.

How a single failed request shows, and what is logged of it, is in test_failures.py.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from exporter.statuses import STATUSES
from simulator import (
    Drip,
    Drop,
    Error,
    Hang,
    Respond,
    Script,
    Sleep,
    Truncate,
    Wait,
    error,
    garbage,
    html,
    parallel,
    redirect,
    retried,
    steps,
)
from simulator.faults import Action
from tests.relay import relay
from tests.waiting import until
from tests.watching import Watching, watching

INTERVAL = 15.0
PATIENT, IMPATIENT = "30s", "300ms"
"""`api.timeout` while responses come, however busy the machine is, and while none does."""
WORKFLOWS = [
    {"name": "orders", "instances": ["retries", "fails", "waits", "late"]},
    {"name": "billing", "discover": {"statuses": STATUSES}},
]
HISTORIES = {
    "retries": (1, Script((*steps("fetch"), retried("charge", failures=2, backoff=9)))),
    "fails": (1, Script(steps("fetch", duration=20), throws=Error("TypeError"))),
    "waits": (2, Script((Sleep("nap", 20), Wait("approval")))),
    "late": (25, Script((*parallel(*steps("a", "b")).branches[0], Wait("approval", timeout=10)))),
}
"""By id, how long after the start each is created, and what it does: something moves all the time,
and most end while things go wrong."""


@asynccontextmanager
async def world(**settings: Any) -> AsyncIterator[Watching]:
    """An exporter that watches the same histories as configured and as discovered instances."""
    settings = {"workflows": WORKFLOWS, **settings}
    async with watching(socket=True, **settings) as w:
        begun = w.clock()
        for workflow in ("orders", "billing"):
            for instance_id, (after, script) in HISTORIES.items():
                w.simulator.world.account("acc").workflow(workflow).create(
                    instance_id, script, at=begun + after
                )
        yield w


def values(w: Watching) -> dict[str, float]:
    """All of workflows and instances, but when the exporter saw them move, and as of when."""
    own = ("_last_change_", "_data_timestamp_")
    return {s: v for s, v in w.values().items() if not any(name in s for name in own)}


def ups(w: Watching) -> set[float]:
    """What the workflows' `cloudflare_workflow_up` says."""
    return {v for s, v in w.values().items() if s.startswith("cloudflare_workflow_up{")}


async def cycles(w: Watching, count: int) -> None:
    for _ in range(count):
        await w.cycle(after=INTERVAL)


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, float]:
    """What is shown in the end when nothing happens."""

    async def watch() -> dict[str, float]:
        async with world() as w:
            await cycles(w, 5)
            return values(w)

    return asyncio.run(watch())


@asynccontextmanager
async def faulty(w: Watching, action: Action, path: str | None = None) -> AsyncIterator[None]:
    """This happens to all requests, or to those whose path matches."""
    endless = isinstance(action, Hang | Drip)
    if endless:
        await w.reload(api={"timeout": IMPATIENT})
    w.simulator.faults.add(action, path=path)
    yield
    w.simulator.faults.clear()
    if endless:
        await w.reload(api={"timeout": PATIENT})


FAULTS: Mapping[str, Action] = {
    **{
        str(status): error(status, 10001, "no")
        for status in (400, 401, 403, 408, 409, 500, 502, 503, 504, *range(520, 528))
    },
    "429 that asks for no wait": error(429, 10429, "Rate limited", retry_after="0"),
    "502 of a proxy": html(502),
    "200 of a portal": html(200),
    "success: false": error(200),
    "garbage": garbage(),
    "empty": Truncate(0),
    "truncated": Truncate(),
    "no content": Respond(status=204),
    "redirect": redirect("https://example.com/login"),
    "closed without a response": Drop(),
    "closed in mid-body": Drop(0.5),
    "reset in mid-body": Drop(0.5, reset=True),
    "no response": Hang(),
    "a byte a second": Drip(size=1, every=1),
}


def each(faults: Iterable[str]) -> list[Any]:
    """As parameters; those that end with the patience of the exporter are slow."""
    return [
        pytest.param(f, marks=[pytest.mark.slow] * isinstance(FAULTS.get(f), Hang | Drip))
        for f in faults
    ]


@pytest.mark.parametrize("fault", each(FAULTS))
async def test_of_every_call(fault: str, undisturbed: dict[str, float]) -> None:
    async with world() as w:
        await cycles(w, 1)
        async with faulty(w, FAULTS[fault]):
            await cycles(w, 2)
            assert ups(w) == {0}
        await cycles(w, 2)
        assert values(w) == undisturbed


@pytest.mark.parametrize(
    "fault", each(["401", "404", "503", "garbage", "closed in mid-body", "no response"])
)
async def test_from_the_start(fault: str, undisturbed: dict[str, float]) -> None:
    async with world() as w:
        action = {**FAULTS, "404": error(404, 10400, "instance.not_found")}[fault]
        # An API that has no versions is asked for them once an hour.
        async with faulty(w, action, path="^(?!.*/versions)" if fault == "404" else None):
            await cycles(w, 3)
        await cycles(w, 2)
        assert values(w) == undisturbed


@pytest.mark.parametrize("kind", ["simple", "detail", "list", "workflows", "versions"])
async def test_a_404_of_one_call_of_each_instance_or_list(
    kind: str, undisturbed: dict[str, float]
) -> None:
    async with world() as w:
        await cycles(w, 2)
        for instance_id in HISTORIES if kind in ("simple", "detail") else [None]:
            refused = error(404, 10400, "instance.not_found")
            w.simulator.faults.add(refused, kind=kind, instance=instance_id, times=1)
        await cycles(w, 3)
        assert values(w) == undisturbed


@pytest.mark.parametrize("wait", [None, 7, 1000])
async def test_a_429_stops_all_calls_until_it_says(wait: int | None) -> None:
    async with watching(["retries"], socket=True) as w:
        script = HISTORIES["retries"][1]
        w.orders.create("retries", script)
        await w.round(after=1)
        headers = {} if wait is None else {"retry_after": str(wait)}
        refusal = w.simulator.faults.add(error(429, 10429, "Rate limited", **headers), times=1)
        await w.round(after=INTERVAL)
        assert (refusal.taken, w.app.accounts[0].workflows.queue.budget.blocked) == (1, wait or 300)
        await w.round(after=(wait or 300) + 1)
        assert (w.status("retries"), ups(w)) == ("complete", {1})
        found = values(w)
    async with watching(["retries"], socket=True) as w:
        w.orders.create("retries", script)
        await w.round(after=1 + INTERVAL + (wait or 300) + 1)
        assert values(w) == found


@pytest.mark.slow
async def test_connections_that_are_half_open(undisturbed: dict[str, float]) -> None:
    """Those that are there, and new ones, which are taken and never served."""
    async with relay() as between:
        url = f"http://{between.address}/client/v4/accounts/{{account_id}}"
        # A reload would make new connections, so it's one timeout for both: longer than a response
        # takes on a busy machine.
        async with world(api={"url": url, "timeout": "2s"}) as w:
            between.port = int(w.simulator.url.split(":")[2].split("/")[0])
            await cycles(w, 1)
            between.silent = True
            connections = between.connections
            await cycles(w, 2)
            assert between.connections > connections
            assert ups(w) == {0}
            between.silent = False
            await cycles(w, 2)
            assert values(w) == undisturbed


class TestClock:
    """The wall clock is set, the time of Cloudflare's responses continues."""

    @pytest.mark.slow
    @pytest.mark.parametrize("by", [3600.0, -3600.0, 86400.0, -86400.0, 400 * 86400.0])
    @pytest.mark.parametrize("back", [False, True], ids=["for good", "and set right again"])
    async def test_it_is_set_in_between(
        self, by: float, back: bool, undisturbed: dict[str, float]
    ) -> None:
        async with world() as w:
            await cycles(w, 1)
            w.ahead = by
            await cycles(w, 2)
            if back:
                w.ahead = 0
            await cycles(w, 2)
            assert counts_of(values(w)) == counts_of(undisturbed)
            assert ups(w) == {1}

    async def test_a_run_that_began_and_ended_while_it_was_wrong(self) -> None:
        for ahead in (86400.0, -86400.0):
            discovered = {"name": "orders", "discover": {}}
            async with watching(workflows=[discovered], socket=True) as w:
                await w.cycle()
                w.ahead = ahead
                await w.cycle(after=INTERVAL)
                w.orders.create("short", Script(steps("one")))
                await w.cycle(after=INTERVAL)
                w.ahead = 0
                w.orders.create("next", Script(steps("one")))
                await w.cycle(after=INTERVAL)
                await w.cycle(after=INTERVAL)
                ended = w.value("cloudflare_workflow_runs_finished_total", status="complete")
                assert ended == 2, ahead


def counts_of(values: dict[str, float]) -> dict[str, float]:
    """All but times that the exporter itself sets."""
    return {s: v for s, v in values.items() if "_last_success_" not in s}


async def test_an_event_loop_that_stood_still_for_30_s(undisturbed: dict[str, float]) -> None:
    """In the middle of a round, with requests under way."""
    async with world() as w:
        await cycles(w, 1)
        watch = asyncio.create_task(w.app.health.watch())
        await w.reload(api={"timeout": IMPATIENT})
        w.simulator.faults.add(Hang())
        w.clock.advance(INTERVAL)
        list_pass = asyncio.create_task(w.app.accounts[0].list_passes())
        rounds = [asyncio.create_task(poller.round(whole=True)) for poller in w.app.pollers]
        with capture_logs() as logs:
            await until(lambda: w.simulator.requests.in_flight)
            w.clock.advance(2 * INTERVAL)
            w.simulator.faults.clear()
            await until(lambda: logs)
        await asyncio.gather(list_pass, *rounds)
        watch.cancel()
        await w.reload(api={"timeout": PATIENT})
        await cycles(w, 1)
        assert values(w) == undisturbed
