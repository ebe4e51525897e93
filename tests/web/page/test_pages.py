"""The pages as text: what they show, and that names stay text."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter import __version__
from exporter.clock import Clock, Moment
from exporter.cloudflare.errors import RequestFailed
from exporter.config.settings import Poll
from exporter.instances.instance import Instance, LastPoll, PollReason, PollRequest, Scope
from exporter.instances.timeline import Entry, Timeline
from exporter.instances.values import InstanceValues, OpenStep
from exporter.metrics.catalogue import WorkflowKey
from exporter.state.backend import Replica
from exporter.web.page.formatting import NONE
from exporter.web.page.instance_table import COLUMNS, TableQuery
from exporter.web.page.pages import Pages
from exporter.web.page.view import (
    AccountView,
    Explanation,
    Snapshot,
    WatchView,
    WorkflowView,
)
from simulator import Attempt as Try
from simulator import Error, Script, Step, retried
from tests.disk import full
from tests.waiting import DEADLINE
from tests.watching import watching
from tests.web.page.scene import WORKFLOWS, fill, served
from tests.web.page.test_instance_table import row

NOW = Moment(0.0, 0.0, 0.0)
PAGES = Pages(WatchView([], clock=Clock()))

hostile = st.text(max_size=20) | st.sampled_from(
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "' autofocus onfocus=alert(1) x='",
        "</title><h1>",
        "{{ 7 * 7 }}",
        "javascript:alert(1)",
        "--><!--",
        "\u202egnp.exe",
        "&lt;b&gt;",
    ]
)


class Skeleton(HTMLParser):
    """The elements of a page with the names of their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.text = ""
        self.addresses: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(name for name, _ in attrs)))
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_data(self, data: str) -> None:
        self.text += data


def account(name: str) -> AccountView:
    """An account in which all that others name has one name."""
    failure = RequestFailed("unauthorized", name, name)
    workflow = WorkflowView(WorkflowKey(name, name), False, True, 0.0, failure, ())
    held = {name: Replica(name, name, "")}
    return AccountView(name, 1, 2, 3, 4, 5, None, 6.0, failure, (workflow,), held)


def table(name: str) -> str:
    """A page of the table in which all that others name has one name."""
    snapshot = Snapshot(NOW, (account(name),))
    page = PAGES.table(snapshot._replace(accounts=snapshot.accounts * 2), TableQuery(q=name))
    shown = row(name, account=name, workflow=name, status=name, step=name, error=name)
    chosen = Shown(snapshot, shown)
    return page + PAGES.table(chosen, TableQuery())  # type: ignore[arg-type]


class Shown:
    """A snapshot with one row."""

    def __init__(self, snapshot: Snapshot, shown: object) -> None:
        self.accounts, self.now = snapshot.accounts, snapshot.now
        self.state_problem = snapshot.state_problem
        self._rows = [shown]

    def rows(self) -> list[object]:
        return self._rows


def known(name: str) -> Explanation:
    """An instance of which all that others name has one name."""
    values = InstanceValues(
        status=name,
        version_id=name,
        trigger=name,
        error_name=name,
        error_step=name,
        step_count=1,
        steps={(name, "success"): 1},
        attempts={"success": 1, "failure": 0, "running": 0},
        retries=0,
        open_steps=(OpenStep(name, name, 1, 0.0),),
        queued=0.0,
        start=0.0,
        end=None,
        queue_duration=0.0,
        run_duration=None,
    )
    return Explanation(
        row=row(name, account=name, workflow=name, status=name, step=name, error=name),
        instance=Instance(
            name,
            Scope.CONFIGURED,
            Poll(),
            since=0.0,
            values=values,
            last_poll=LastPoll(
                PollRequest(0.0, "detail", PollReason.DUE), RequestFailed("timeout", name, name)
            ),
        ),
        now=10.0,
        account_id=name,
        requested_at=0.0,
        waits="",
        next_detail=None,
        expires_at=None,
        timeline=Timeline((Entry(name, name, "failure", 0.0, 1.0, 1, 1, name),), 1),
    )


def instance(name: str) -> str:
    """A page of an instance in which all that others name has one name."""
    return PAGES.instance(known(name))


class TestNamesStayText:
    """Whatever an id, step, error, status, workflow or search says."""

    @pytest.mark.slow
    @pytest.mark.parametrize("page", [table, instance])
    @given(hostile.filter(bool))
    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def test_no_name_adds_an_element_or_attribute(self, page: object, name: str) -> None:
        assert callable(page)
        plain, named = Skeleton(page("plain")), Skeleton(page(name))
        assert named.elements == plain.elements

    @pytest.mark.parametrize("page", [table, instance])
    def test_no_name_becomes_an_address(self, page: object) -> None:
        assert callable(page)
        for address in Skeleton(page("javascript:alert(1)")).addresses:
            known = ("./", "?", "instance?", "assets/", "metrics", "-/", "#main")
            assert address.startswith((*known, "https://dash.cloudflare.com/"))

    def test_no_style_or_script_is_in_a_page(self) -> None:
        """The Content-Security-Policy forbids them."""
        for tag, attributes in Skeleton(table("a") + instance("a")).elements:
            assert "style" not in attributes
            assert tag != "style"
            assert tag != "script" or "src" in attributes
            assert not any(name.startswith("on") for name in attributes)


async def get(address: str, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
    async with httpx.AsyncClient(
        trust_env=False, timeout=DEADLINE, verify=False, base_url=address
    ) as http:
        return await http.get(path, headers=headers)


class TestDiscretion:
    async def test_no_params_outputs_or_messages_are_on_a_page(self) -> None:
        async with watching(["a"]) as w:
            tries = (Try(1.0, Error("Declined", "card 4111")), Try(1.0, Error("Declined", "4111")))
            script = Script(
                (Step("load", output="secret output"), Step("pay", tries)),
                throws=Error("Declined", "card 4111"),
            )
            w.orders.create("a", script, params={"card": "4111"})
            await w.round(after=60)
            async with served(w) as address:
                for path in ("", "instance?account=acc&workflow=orders&id=a"):
                    page = (await get(address, path)).text
                    assert "Declined" in page
                    assert "4111" not in page
                    assert "secret" not in page


class TestAddresses:
    async def test_an_instance_that_is_not_watched(self) -> None:
        async with watching(["a"]) as w, served(w) as address:
            for query in ("", "?account=acc&workflow=orders&id=b", "?account=x&workflow=y&id=a"):
                response = await get(address, f"instance{query}")
                assert response.status_code == 404
                assert "Not watched" in response.text

    async def test_no_cache_stores_pages_but_any_stores_files(self) -> None:
        async with watching(["a"]) as w, served(w) as address:
            page = await get(address, "")
            assert page.headers["cache-control"] == "no-store"
            files = [a for a in Skeleton(page.text).addresses if a.startswith("assets/")]
            assert {urlsplit(file).path for file in files} == {
                f"assets/{name}" for name in ("icon.svg", "page.js", "style.css")
            }
            for file in files:
                response = await get(address, file)
                assert response.status_code == 200
                assert response.headers["x-content-type-options"] == "nosniff"
                stored = {"If-None-Match": response.headers["etag"]}
                assert (await get(address, file, stored)).status_code == 304
                assert urlsplit(file).query == __version__

    @pytest.mark.parametrize("path", ["none.css", "..%2Fpages.py", "../pages.py", "", "%00"])
    async def test_other_files_are_404(self, path: str) -> None:
        async with watching(["a"]) as w, served(w) as address:
            assert (await get(address, f"assets/{path}")).status_code == 404


@pytest.mark.parametrize("count", [1, 2])
def test_the_table_names_accounts_if_there_are_several(count: int) -> None:
    account = AccountView("acc", 1, 2, 3, 4, 5, None, 6.0, None, (), {})
    shown = Shown(Snapshot(NOW, (account,) * count), row("a"))
    page = PAGES.table(shown, TableQuery())  # type: ignore[arg-type]
    assert page.count('class="account"') == (2 if count > 1 else 0)


def test_a_bar_shows_when_a_step_began_and_how_long_it_took() -> None:
    """As percentages of the time from the first start until now, if a step is open."""
    steps = (
        Entry("load-1", "step", "success", 100.0, 125.0, 1, 0, None),
        Entry("pay-1", "step", "running", 125.0, None, 1, 0, None),
        Entry("nap-1", "sleep", "running", 150.0, 9_000.0, 0, 0, None),
        Entry("skewed-1", "step", "success", 175.0, 150.0, 1, 0, None),
        Entry("odd-1", "step", "failure", None, 175.0, 1, 1, None),
    )
    page = PAGES.instance(known("a")._replace(now=200.0, timeline=Timeline(steps)))
    bars = re.findall(r'<rect x="([0-9.]+)%" y="0" width="([0-9.]+)%"', page)
    assert [(float(left), float(width)) for left, width in bars] == [
        (0.0, 25.0),
        (25.0, 75.0),
        (50.0, 50.0),
        (50.0, 0.0),
        (75.0, 0.0),
    ]


@pytest.mark.parametrize(("status", "outcome"), [("running", "running"), ("errored", "unfinished")])
def test_a_step_that_an_ended_run_left_open_is_unfinished(status: str, outcome: str) -> None:
    left_open = Timeline((Entry("pay", "step", "running", 0.0, None, 1, 0, ""),), 0)
    page = Skeleton(PAGES.instance(known(status)._replace(timeline=left_open)))
    assert f"Timeline {outcome} pay step" in " ".join(page.text.split())


@pytest.mark.parametrize("accounts", [1, 2])
def test_each_cell_is_below_the_heading_of_its_column(accounts: int) -> None:
    """With several accounts, there is a column for them."""
    shown = Shown(Snapshot(NOW, (account("acc"),) * accounts), row("a"))
    page = PAGES.table(shown, TableQuery())  # type: ignore[arg-type]
    headings = re.findall(r'<th scope="col" class="(\w+)"', page)
    cells = re.findall(r'<t[dh](?: scope="row")? class="(\w+)"', page)
    assert len(headings) == len(COLUMNS) - (accounts == 1)
    assert cells == headings


@pytest.mark.parametrize(("step", "text"), [("", "Error"), ("pay", "pay · Error")])
def test_an_error_without_a_step_has_no_separator(step: str, text: str) -> None:
    shown = Shown(Snapshot(NOW, ()), row("a", status="errored", step=step, error="Error"))
    page = Skeleton(PAGES.table(shown, TableQuery()))  # type: ignore[arg-type]
    assert " ".join(page.text.split()).count(f"errored orders a {text} {NONE}") == 1


class TestAccount:
    @pytest.mark.parametrize("ahead", [0, 3600])
    async def test_a_budget_that_is_blocked_says_until_when(self, ahead: float) -> None:
        """By Cloudflare's clock."""
        async with watching(["a"]) as w, served(w) as address:
            w.ahead = ahead
            await w.round()
            w.app.accounts[0].workflows.queue.budget.rate_limited(120)
            page = Skeleton((await get(address, "")).text).text
            assert " ".join(page.split()).count("Blockedblocked ends in 2m") == 1
            blocked_until = "cloudflare_workflows_exporter_api_blocked_until_timestamp_seconds"
            assert w.value(blocked_until) == w.clock() + 120

    async def test_a_workflow_that_is_not_up_says_why_and_what_to_do(self) -> None:
        async with watching(["a"]) as w, served(w) as address:
            w.simulator.access.revoke("secret")
            await w.round()
            page = " ".join(Skeleton((await get(address, "")).text).text.split())
            assert "1 not up down orders 1 instance, unauthorized on 1 check the API token" in page

    async def test_workflows_are_in_order_those_first_that_are_not_up(self) -> None:
        names = ["b", "down", "a"]
        async with watching(workflows=[{"name": name, "discover": {}} for name in names]) as w:
            for name in ("a", "b"):
                w.simulator.world.account("acc").workflow(name)
            await w.cycle()
            (account,) = w.app.view.snapshot().accounts
            assert [workflow.name for workflow in account.workflows] == ["down", "a", "b"]

    async def test_a_list_of_workflows_that_fails_says_why_and_what_to_do(self) -> None:
        """With a wrong token, a glob finds nothing that could be down."""
        async with watching(workflows=[{"name": "*", "discover": {}}]) as w, served(w) as address:
            w.simulator.access.revoke("secret")
            await w.cycle()
            page = " ".join(Skeleton((await get(address, "")).text).text.split())
            assert "List of workflowsfailing unauthorized check the API token" in page
            assert "all up" not in page


class TestState:
    async def test_one_that_cannot_be_written_says_why_until_it_can(self, tmp_path: Path) -> None:
        state = tmp_path / "state.db"
        async with watching(["a"], state=state) as w, served(w) as address:
            with full(state):
                await w.round()
                failing = Skeleton((await get(address, "")).text).text
            await w.saved()
            written = Skeleton((await get(address, "")).text).text
        assert "failing Counters are not written: " in " ".join(failing.split())
        assert "not written" not in written

    async def test_one_that_cannot_be_opened_says_why(self, tmp_path: Path) -> None:
        async with watching(["a"], state=tmp_path) as w, served(w) as address:
            page = Skeleton((await get(address, "")).text).text
        assert "failing Counters are not written: Is a directory" in " ".join(page.split())


@pytest.mark.slow
async def test_the_table_is_the_scene() -> None:
    """Errored first, then stuck, then retrying; one row each of what is watched."""
    async with watching(workflows=WORKFLOWS) as w:
        fill(w)
        w.orders.create("late", Script((retried("pay", failures=9, backoff=9),)))
        for _ in range(16):
            await w.cycle(after=300)
        rows = w.app.view.snapshot().rows()
        assert {r.id: r.attention for r in rows if r.attention} == {
            "order-1984": "errored",
            "order-1991": "errored",
            "order-1893": "stuck",
            "order-2004": "retrying",
        }
        assert len(rows) == len({r.id for r in rows})
