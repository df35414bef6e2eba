"""A real browser, a running Segue, and pages of other origins.

The browser lives as long as a file of tests and not longer: while Playwright's synchronous API is started, an event
loop runs in the thread of the tests, and the asynchronous tests of other files could not run after it. For the same
reason no file here mixes in asynchronous tests, and no fixture here uses ``asyncio.run``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.chromium import REMEDY, chromium_path, flags, in_ci
from tests.browser.running_segue import Segue, database_of
from tests.browser.static_site import Site, running_site
from tests.browser.visit import USER_AGENT, Visit
from tests.support.databases import with_database
from tests.support.server_process import Server

DATABASE = "browser"


@pytest.fixture(scope="session")
def chromium() -> Path:
    """Skips where there is none, and says what to do; in CI that is a failure."""
    path = chromium_path()
    if path is None:
        reason = f"there is no Chromium: {REMEDY}"
        if in_ci():
            pytest.fail(reason)
        pytest.skip(reason)  # of a machine that has no browser, and says so
    return path


@pytest.fixture(scope="session")
def segue(chromium: Path, cluster_url: str) -> Iterator[Segue]:
    """One running service for all tests of browsers; each makes sources of its own."""
    del chromium  # without one nothing here is worth its start
    url = with_database(cluster_url, DATABASE)
    with (
        tempfile.TemporaryDirectory(prefix="segue-") as directory,
        database_of(cluster_url, DATABASE, url) as database,
    ):
        # All tests ask from one address.
        server = Server(Path(directory), url, SEGUE_ADDRESS_RATE="1000000/minute")
        try:
            segue = Segue(server.start(), database)
            yield segue
            segue.close()
        finally:
            server.clean_up()


@pytest.fixture(scope="module")
def browser(chromium: Path, segue: Segue) -> Iterator[Browser]:
    del segue  # started first, and stopped last
    with sync_playwright() as playwright:
        # That of a context is not said by beacons which leave with their page: the server would take them for a bot's.
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
    """Makes visitors: each a context of its own, with an ordinary user agent, closed after the test."""
    visits: list[Visit] = []

    def make(**options: Any) -> Visit:
        visits.append(Visit(browser, **options))
        return visits[-1]

    yield make
    for each in visits:
        each.close()
