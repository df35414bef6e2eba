"""One PostgreSQL for the whole run, and for each test that asks a database of its own, built by migrating.

The cluster is started by the first test that needs it; tests of pure modules never pay for it.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from hypothesis import settings as hypothesis_settings

from app.config import Settings
from app.postgres.embedded import EmbeddedPostgres
from app.postgres.migrate import upgrade
from app.postgres.pool import FrozenClock
from tests.support.running_app import NOON, RunningApp, running_app
from tests.support.server_process import Server
from tests.support.webhook_sender import WebhookSender, running_webhook_sender

T = TypeVar("T")

# Two busy cores make single examples slow at random, so time is no reason to fail; a printed blob replays a failure.
hypothesis_settings.register_profile("segue", deadline=None, print_blob=True)
hypothesis_settings.load_profile("segue")

TEMPLATE = "segue_template"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def cluster_url() -> Iterator[str]:
    """URL of a running PostgreSQL whose files live as long as this run. Nothing here outlives a crash: fsync is off."""
    quick = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "128MB", "autovacuum": "off"}
    with (
        tempfile.TemporaryDirectory(prefix="segue-tests-") as directory,
        EmbeddedPostgres(Path(directory), options=quick) as postgres,
    ):
        yield postgres.start()


@pytest.fixture(scope="session")
def template_url(cluster_url: str) -> str:
    """A migrated database that nobody is connected to: the mould of all others. Do not write to it."""
    run(execute(cluster_url, f"CREATE DATABASE {TEMPLATE}"))
    url = with_database(cluster_url, TEMPLATE)
    run(upgrade(url))
    return url


@pytest.fixture
def database_url(cluster_url: str, template_url: str) -> Iterator[str]:
    """A fresh, migrated database of this test's own."""
    del template_url  # made by now
    name = f"test_{next(_numbers)}"
    run(execute(cluster_url, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY file_copy"))
    yield with_database(cluster_url, name)
    run(execute(cluster_url, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def empty_database_url(cluster_url: str) -> Iterator[str]:
    """A fresh database without any table, for tests of migrating."""
    name = f"test_{next(_numbers)}"
    run(execute(cluster_url, f"CREATE DATABASE {name} TEMPLATE template0"))
    yield with_database(cluster_url, name)
    run(execute(cluster_url, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Settings over :func:`database_url`, on a port that the system chooses."""
    return Settings.model_validate({"DATABASE_URL": database_url, "data_dir": tmp_path, "port": 0})


@pytest.fixture
def frozen() -> FrozenClock:
    return FrozenClock(NOON)


@pytest.fixture
async def service(settings: Settings) -> AsyncIterator[RunningApp]:
    """The application in this process, without a worker: nothing happens that a test does not do."""
    async with running_app(settings) as service:
        yield service


@pytest.fixture
def start() -> Callable[..., AbstractAsyncContextManager[RunningApp]]:
    return running_app


@pytest.fixture
async def tools(settings: Settings) -> AsyncIterator[WebhookSender]:
    """The application behind a real socket, and deliveries to it as a tool makes them."""
    async with running_webhook_sender(settings) as running_app:
        yield running_app


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One ``segue serve`` for all tests that only send and ask; each takes ids of its own."""
    # Not in pytest's directory: under root PostgreSQL runs as another user, and each start of pytest takes the right
    # to enter its directory away from others.
    with tempfile.TemporaryDirectory(prefix="segue-") as directory:
        server = Server(Path(directory))
        try:
            yield server.start()
        finally:
            server.clean_up()


@pytest.fixture
def make_server() -> Iterator[Callable[..., Server]]:
    """Makes services that are not started yet, and ends them after the test."""
    made: list[Server] = []
    with tempfile.TemporaryDirectory(prefix="segue-") as directory:

        def make(database_url: str | None = None, **environment: str) -> Server:
            made.append(Server(Path(directory), database_url, **environment))
            return made[-1]

        yield make
        for server in made:
            server.clean_up()


def with_database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


async def execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine from a plain fixture, with a loop of its own."""
    return asyncio.run(work)
