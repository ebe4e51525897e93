"""A real browser: Debian's Chromium without a window."""

import contextlib
import os
import shutil
from collections.abc import AsyncIterator

from playwright.async_api import Browser, async_playwright, expect

from demo.node_packages import node
from tests.requires import requires_program
from tests.waiting import DEADLINE

expect.set_options(timeout=1000 * DEADLINE)
_PACKAGE = "chromium-headless-shell"


@contextlib.asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A running browser; skips the test where there is none."""
    # The one that is made for this takes half as long as the one that could open windows.
    name = next(filter(shutil.which, (_PACKAGE, "chromium")), _PACKAGE)
    program = requires_program(name, _PACKAGE)
    # Its own needs a library that a fresh machine may lack.
    os.environ["PLAYWRIGHT_NODEJS_PATH"] = str(node())
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=program,
            # Its sandbox doesn't work for root; what it shows here is ours.
            chromium_sandbox=os.geteuid() != 0,
            args=["--disable-gpu"],  # or it draws by a GPU in software, a process more
        )
        try:
            yield browser
        finally:
            await browser.close()
