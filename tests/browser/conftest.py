"""Fixtures: Chromium, a running Segue, and a site of another origin.

Playwright's synchronous API keeps an event loop running in the thread of the tests. The browser is therefore closed
after each test file, so that asynchronous tests of other files can run. No file in this folder contains asynchronous
tests, and no fixture uses ``asyncio.run``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.chromium import REMEDY, chromium_path, flags, in_ci
from tests.browser.running_segue import Segue, create_database
from tests.browser.static_site import Site, running_site
from tests.browser.visit import USER_AGENT, Visit
from tests.support.databases import with_database
from tests.support.server_process import Server

DATABASE = "browser"


@pytest.fixture(scope="session")
def chromium() -> Path:
    """Return the path of Chromium. If it is missing, skip the test, or fail in CI."""
    path = chromium_path()
    if path is None:
        reason = f"Chromium not found: {REMEDY}"
        if in_ci():
            pytest.fail(reason)
        pytest.skip(reason)  # This machine has no browser.
    return path


@pytest.fixture(scope="session")
def segue(chromium: Path, cluster_url: str) -> Iterator[Segue]:
    """Start one Segue for all browser tests; each test creates its own sources."""
    del chromium  # Without Chromium, this fixture is skipped before it starts Segue.
    url = with_database(cluster_url, DATABASE)
    with (
        tempfile.TemporaryDirectory(prefix="segue-") as directory,
        create_database(cluster_url, DATABASE, url) as database,
    ):
        # All tests share one address and therefore one rate limit.
        server = Server(Path(directory), url, SEGUE_ADDRESS_RATE="1000000/minute")
        try:
            segue = Segue(server.start(), database)
            yield segue
            segue.close()
        finally:
            server.clean_up()


@pytest.fixture(scope="module")
def browser(chromium: Path, segue: Segue) -> Iterator[Browser]:
    del segue  # This fixture makes Segue start before the browser and stop after it.
    with sync_playwright() as playwright:
        # Beacons sent while a page closes ignore the user agent of the context. The server would treat them as sent by
        # a bot.
        args = [*flags(), f"--user-agent={USER_AGENT}"]
        browser = playwright.chromium.launch(executable_path=chromium, args=args)
        yield browser
        browser.close()


@pytest.fixture
def site() -> Iterator[Site]:
    with running_site() as site:
        yield site


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Return a function that opens a visit: a separate browser context, which is closed after the test."""
    visits: list[Visit] = []

    def make(**options: Any) -> Visit:
        visits.append(Visit(browser, **options))
        return visits[-1]

    yield make
    for visit in visits:
        visit.close()
