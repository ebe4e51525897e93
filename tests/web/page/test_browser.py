"""The pages in a real browser: light and dark, by keyboard, with and without scripts."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any, Literal

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from demo.node_packages import install
from simulator import Attempt, Error, Script, Step, Wait
from tests.node import HERE
from tests.waiting import DEADLINE
from tests.watch.test_ids import IDS
from tests.watching import Watching, watching
from tests.web.page.browser import chromium
from tests.web.page.scene import scene, served

pytestmark = [pytest.mark.browser, pytest.mark.slow(3), pytest.mark.asyncio(loop_scope="module")]

EVIL = "</title><img src=x onerror=\"document.title='hit'\"><script>document.title='hit'</script>"


class Site:
    """The scene in a browser."""

    def __init__(self, watched: Watching, address: str, browser: Browser) -> None:
        self.watched, self.address, self.browser = watched, address, browser
        self._pages: dict[str, tuple[Page, list[str]]] = {}

    @contextlib.asynccontextmanager
    async def page(self, path: str = "", **options: Any) -> AsyncIterator[Page]:
        """A page; nothing may go wrong in it, nor come from elsewhere.

        Whoever has the same options gets the same one, loaded again: each has processes of its own.
        """
        if repr(options) not in self._pages:
            self._pages[repr(options)] = await self._new(options)
        page, said = self._pages[repr(options)]
        said.clear()
        await page.goto(self.address + path)
        yield page
        await page.goto("about:blank")
        assert said == []

    async def _new(self, options: dict[str, Any]) -> tuple[Page, list[str]]:
        context = await self.browser.new_context(**options)
        context.set_default_timeout(1000 * DEADLINE)
        page = await context.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((self.address, "about:"))
                else said.append(request.url)
            ),
        )
        return page, said


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site() -> AsyncIterator[Site]:
    async with chromium() as browser, scene() as (watched, address):
        yield Site(watched, address, browser)


async def ids(page: Page) -> list[str]:
    return await page.locator("tbody th.instance").all_inner_texts()


SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
AXE = "axe.run({resultTypes: ['violations']})"  # or it describes all that is well, too
WIDTH = "document.documentElement.scrollWidth"
HIDDEN = "element => element.scrollWidth - element.clientWidth"
INSTANCE = "instance?account=acc&workflow=orders&id=order-1984"


class TestAccessible:
    @pytest.mark.parametrize("path", ["", "?q=nothing-like-it", INSTANCE, "instance?id=none"])
    async def test_axe_finds_nothing(self, site: Site, path: str) -> None:
        install(HERE)
        axe = (HERE / "node_modules" / "axe-core" / "axe.min.js").read_text()
        context = await site.browser.new_context()
        context.set_default_timeout(1000 * DEADLINE)
        page = await context.new_page()
        await page.goto(site.address + path)
        await page.evaluate(axe)
        for width in (1360, 400):
            await page.set_viewport_size({"width": width, "height": 800})
            for scheme in SCHEMES:
                await page.emulate_media(color_scheme=scheme)
                found = await page.evaluate(AXE)
                assert [
                    (rule["id"], [node["html"] for node in rule["nodes"]], width, scheme)
                    for rule in found["violations"]
                ] == []
        await context.close()

    async def test_light_and_dark_differ(self, site: Site) -> None:
        colours = set()
        for scheme in SCHEMES:
            async with site.page(color_scheme=scheme) as page:
                colours.add(await page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert len(colours) == 2

    async def test_the_page_is_never_wider_than_the_window(self, site: Site) -> None:
        for path in ("", INSTANCE):
            async with site.page(path, viewport={"width": 360, "height": 700}) as page:
                assert await page.evaluate(WIDTH) <= 360

    async def test_nor_with_the_longest_name_of_a_workflow(self, site: Site) -> None:
        name = "n" * 64
        async with (
            watching(workflows=[{"name": name, "instances": ["a"]}]) as w,
            served(w) as address,
            Site(w, address, site.browser).page(viewport={"width": 360, "height": 700}) as page,
        ):
            w.simulator.world.account("acc").workflow(name).create("a", Script())
            await w.round()
            await page.reload()
            assert await page.evaluate(WIDTH) <= 360
            await page.set_viewport_size({"width": 1280, "height": 700})
            assert await page.locator("#results .scroll").evaluate(HIDDEN) == 0

    async def test_a_phone_shows_the_failing_step_beside_its_instance(self, site: Site) -> None:
        """Without scrolling to the right, where nothing says that there is more."""
        async with site.page(viewport={"width": 360, "height": 700}) as page:
            assert await page.locator("#results .scroll").evaluate(HIDDEN) == 0
            row = page.get_by_role("row").filter(has_text="order-1984")
            assert (await row.inner_text()).split() == [
                *("errored", "orders", "order-1984"),
                *("charge-1", "·", "PaymentDeclined"),
                *("1h", "25m", "ago"),
            ]

    async def test_and_the_attempts_of_each_step(self, site: Site) -> None:
        async with site.page(INSTANCE, viewport={"width": 360, "height": 700}) as page:
            assert await page.locator("#instance .scroll").evaluate(HIDDEN) == 0
            assert await page.get_by_text("(3 failed)").is_visible()

    async def test_many_workflows_leave_the_table_in_the_window(self, site: Site) -> None:
        names = [f"workflow-of-a-long-name-{number}" for number in range(100)]
        async with (
            watching(workflows=[{"name": name, "discover": {}} for name in names]) as w,
            served(w) as address,
            Site(w, address, site.browser).page(viewport={"width": 400, "height": 800}) as page,
        ):
            await w.cycle()
            await page.reload()
            assert await page.get_by_role("link", name=names[-1]).count() == 1
            assert await page.evaluate("document.querySelector('#results').offsetTop") < 800


class TestByKeyboard:
    async def test_the_first_stop_skips_to_the_content(self, site: Site) -> None:
        async with site.page() as page:
            await page.keyboard.press("Tab")
            assert await page.evaluate("document.activeElement.textContent") == "Skip to content"
            await page.keyboard.press("Enter")
            await page.wait_for_url("**/#main")

    async def test_a_slash_goes_to_the_search(self, site: Site) -> None:
        async with site.page() as page:
            await page.keyboard.press("/")
            await page.keyboard.type("1893")
            await expect(page.locator("tbody tr")).to_have_count(1)
            assert await ids(page) == ["order-1893"]
            await page.wait_for_url("**/?q=1893")

    async def test_an_instance_can_be_opened(self, site: Site) -> None:
        async with site.page("?q=1984") as page:
            await page.get_by_role("link", name="order-1984").focus()
            await page.keyboard.press("Enter")
            await expect(page.get_by_role("heading", level=1)).to_have_text("order-1984")


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
async def test_instances_of_any_id_are_found_and_opened(site: Site, scripts: bool) -> None:
    async with watching(workflows=[{"name": "orders", "discover": {}}]) as watched:
        for instance_id in IDS:
            watched.orders.create(instance_id, Script((Wait("approval"),)))
        await watched.cycle(after=1)
        async with served(watched) as address:
            odd = Site(watched, address, site.browser)
            for instance_id in IDS:
                async with odd.page(java_script_enabled=scripts) as page:
                    search = page.get_by_role("searchbox")
                    await search.fill(instance_id)
                    await search.press("Enter")
                    await expect(page.locator("tbody tr")).to_have_count(
                        sum(instance_id in other for other in IDS)
                    )
                    await page.get_by_role("link", name=instance_id, exact=True).click()
                    heading = page.get_by_role("heading", level=1)
                    await expect(heading).to_have_text(instance_id)
                    assert await heading.inner_text() == instance_id


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
class TestTable:
    async def test_errored_and_stuck_come_first(self, site: Site, scripts: bool) -> None:
        async with site.page(java_script_enabled=scripts) as page:
            assert (await ids(page))[:4] == ["order-1991", "order-1984", "order-1893", "order-2001"]

    async def test_a_heading_sorts_and_says_so(self, site: Site, scripts: bool) -> None:
        async with site.page(java_script_enabled=scripts) as page:
            await page.get_by_role("link", name="Attempts").click()
            await expect(page.locator("th.attempts")).to_have_attribute("aria-sort", "descending")
            assert (await ids(page))[0] == "order-2001"

    async def test_the_search_finds_errors(self, site: Site, scripts: bool) -> None:
        async with site.page(java_script_enabled=scripts) as page:
            await page.get_by_role("searchbox").fill("warehouse")
            await page.keyboard.press("Enter")
            await expect(page.locator("tbody tr")).to_have_count(1)
            assert await ids(page) == ["order-1991"]

    async def test_a_status_filters(self, site: Site, scripts: bool) -> None:
        async with site.page(java_script_enabled=scripts) as page:
            await page.get_by_role("navigation", name="Status").get_by_text("stuck").click()
            await expect(page.locator("tbody tr")).to_have_count(1)
            assert await ids(page) == ["order-1893"]

    async def test_a_search_keeps_the_order(self, site: Site, scripts: bool) -> None:
        async with site.page("?sort=instance&order=desc", java_script_enabled=scripts) as page:
            await page.get_by_role("searchbox").fill("invoice-731")
            await page.keyboard.press("Enter")
            await expect(page.locator("tbody tr")).to_have_count(10)
            found = await ids(page)
            assert found == sorted(found, reverse=True)

    async def test_times_show_the_moment_when_pointed_at(self, site: Site, scripts: bool) -> None:
        async with site.page(java_script_enabled=scripts) as page:
            moment = page.locator("td.changed time").first
            assert (await moment.inner_text()).endswith(" ago")
            assert (await moment.get_attribute("title") or "").endswith(" UTC")


class TestInstance:
    async def test_it_explains(self, site: Site) -> None:
        async with site.page(INSTANCE) as page:
            text = await page.locator("main").inner_text()
            for shown in ("PaymentDeclined at charge-1", "discovered", "first poll", "3 failed"):
                assert shown in text
            assert "4111" not in await page.content()

    async def test_a_query_can_be_copied(self, site: Site) -> None:
        async with site.page(INSTANCE, permissions=["clipboard-read", "clipboard-write"]) as page:
            await page.get_by_role("button", name="Copy the query: Status").click()
            await expect(page.get_by_role("button", name="Copied")).to_be_visible()
            assert await page.evaluate("navigator.clipboard.readText()") == (
                'cloudflare_workflow_instance_status{account="acc",workflow="orders",'
                'instance_id="order-1984"} == 1'
            )

    async def test_without_scripts_there_is_no_button_that_does_nothing(self, site: Site) -> None:
        async with site.page(INSTANCE, java_script_enabled=False) as page:
            assert await page.get_by_role("button").count() == 0


class TestLive:
    async def test_the_table_follows(self, site: Site) -> None:
        """With the focus and the search where they were."""
        async with (
            watching(["a"]) as w,
            served(w) as address,
            Site(w, address, site.browser).page() as page,
        ):
            await page.clock.install()
            await expect(page.locator("tbody .status")).to_have_text("not seen")
            await page.get_by_role("button", name="Refresh live").click()
            w.orders.create("a", Script((Step("pay", (Attempt(None),)),)))
            await w.round(after=5)
            await page.get_by_role("link", name="a", exact=True).focus()
            await page.clock.run_for(10_000)
            await expect(page.locator("tbody .status")).to_have_text("running")
            assert await page.evaluate("document.activeElement.textContent") == "a"

    async def test_a_page_that_stays_old_says_so(self, site: Site) -> None:
        """Nobody should take it for the state of now."""
        page = await site.browser.new_page()
        await page.goto(site.address)
        await page.clock.install()
        await page.route("**/*", lambda route: route.abort())
        live = page.locator("#live")
        await live.click()
        await expect(live).to_have_text("Refresh failed")
        await page.unroute_all()
        await page.clock.run_for(10_000)
        await expect(live).to_have_text("Refresh live")
        await page.close()


class TestHostileNames:
    async def test_they_are_shown_and_nothing_of_them_runs(self, site: Site) -> None:
        """In ids, steps, errors and workflows; on both pages."""
        async with watching(workflows=[{"name": "*", "discover": {}}]) as w, served(w) as address:
            workflow = w.simulator.world.account("acc").workflow(EVIL)
            failed = Step(EVIL, (Attempt(1.0, Error(EVIL, EVIL)),))
            workflow.create("plain", Script((failed,), throws=Error(EVIL, EVIL)))
            named = workflow.create("odd", Script((failed,), throws=Error(EVIL, EVIL)))
            named.patch_row = lambda row: {**row, "id": EVIL}
            for _ in range(2):
                await w.cycle(after=30)
            async with Site(w, address, site.browser).page() as page:
                assert await ids(page) == [EVIL, "plain"]
                text = await page.locator("main").inner_text()
                assert text.count(EVIL) >= 4
                for instance_id in ("plain", EVIL):
                    await page.goto(address)
                    link = page.locator("tbody").get_by_role("link", name=instance_id, exact=True)
                    await link.click()
                    await expect(page.get_by_role("heading", level=1)).to_have_text(instance_id)
                    assert await page.title() != "hit"
                    assert await page.locator("main img, main script").count() == 0
