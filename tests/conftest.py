"""Fixtures for all tests: databases, the application in this process, servers, and the markers of each test.

The first test that needs PostgreSQL starts a cluster for the rest of the run. Pure tests start none.
"""

from __future__ import annotations

import gc
import itertools
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings

from app.config import Settings
from app.postgres.embedded import EmbeddedPostgres
from app.postgres.pool import FrozenClock
from tests.support import memory, requirements
from tests.support.case_count import case_count_at_most
from tests.support.databases import TestDatabases, run
from tests.support.running_app import NOON, RunningApp, running_app
from tests.support.server_process import Server
from tests.support.webhook_sender import WebhookSender, running_webhook_sender

# Single examples are slow at random on two busy cores, so the deadline is disabled. A printed blob reproduces a
# failure.
hypothesis_settings.register_profile("segue", deadline=None, print_blob=True, max_examples=case_count_at_most(100))
hypothesis_settings.load_profile("segue")

_started = itertools.count(1)


@pytest.fixture(scope="session")
def cluster_url() -> Iterator[str]:
    """Return the URL of a PostgreSQL cluster, which is deleted after the run.

    It never has to survive a crash, so fsync is off.
    """
    quick = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "128MB", "autovacuum": "off"}
    with (
        tempfile.TemporaryDirectory(prefix="segue-tests-") as directory,
        EmbeddedPostgres(Path(directory), options=quick) as postgres,
    ):
        yield postgres.start()


@pytest.fixture(scope="session")
def databases(cluster_url: str) -> TestDatabases:
    databases = TestDatabases(cluster_url)
    run(databases.migrate())
    return databases


@pytest.fixture
def database_url(databases: TestDatabases) -> Iterator[str]:
    """Return the URL of a migrated database for this test alone.

    It may contain monthly partitions from earlier tests.
    """
    url = run(databases.acquire())
    yield url
    run(databases.release(url))


@pytest.fixture
def new_database_url(databases: TestDatabases) -> Iterator[str]:
    """Return the URL of a migrated database that no other test has used."""
    url = run(databases.create())
    yield url
    run(databases.drop(url))


@pytest.fixture
def empty_database_url(databases: TestDatabases) -> Iterator[str]:
    """Return the URL of a database without tables, for tests of migrations."""
    url = run(databases.create("template0"))
    yield url
    run(databases.drop(url))


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Return settings with :func:`database_url` and a port that the system chooses."""
    return Settings.model_validate({"DATABASE_URL": database_url, "data_dir": tmp_path, "port": 0})


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock(NOON)


@pytest.fixture
async def service(settings: Settings) -> AsyncIterator[RunningApp]:
    """Return the application in this process, without a background worker, so that only the test changes data."""
    async with running_app(settings) as service:
        yield service


@pytest.fixture
def start() -> Callable[..., AbstractAsyncContextManager[RunningApp]]:
    return running_app


@pytest.fixture
async def tools(settings: Settings) -> AsyncIterator[WebhookSender]:
    """Return the application behind a real socket, and a client that delivers webhooks to it."""
    async with running_webhook_sender(settings) as running_app:
        yield running_app


@pytest.fixture(scope="session")
def server(databases: TestDatabases) -> Iterator[Server]:
    """Return one ``segue serve`` for all tests that only send and query. Each test uses different ids.

    The server uses the cluster of the tests, because another cluster would take seconds to create and write to disk.
    """
    # Do not use pytest's directory. If root runs the tests, PostgreSQL runs as another user, and each start of pytest
    # makes its directory inaccessible to other users.
    with tempfile.TemporaryDirectory(prefix="segue-") as directory:
        server = Server(Path(directory), run(databases.create()))
        try:
            yield server.start()
        finally:
            server.clean_up()


@pytest.fixture
def make_server() -> Iterator[Callable[..., Server]]:
    """Return a function that creates servers without starting them. The servers are stopped after the test."""
    servers: list[Server] = []
    with tempfile.TemporaryDirectory(prefix="segue-") as directory:

        def make(database_url: str | None = None, **environment: str) -> Server:
            servers.append(Server(Path(directory), database_url, **environment))
            return servers[-1]

        yield make
        for server in servers:
            server.clean_up()


@pytest.hookimpl(tryfirst=True)  # This must run before ``-m`` selects tests.
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its requirements, and run slow tests first so that no slow test runs alone at the end."""
    requirements.mark(items)
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish() -> None:
    """Exclude the objects of pytest from garbage collection, because they live until the end of the run."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup() -> None:
    if next(_started) % 25 == 0:
        memory.free()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    requirements.guard(item)
    try:
        return (yield)
    finally:
        requirements.guard(None)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run if the peak memory of this process or of a worker exceeds the limit."""
    memory.report(session)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    memory.collect(node)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("memory")
    terminalreporter.line(memory.summary())
