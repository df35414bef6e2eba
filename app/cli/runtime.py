"""Runtime of commands: a started, supervised and migrated database, and the registry that reads it."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final, TypeVar

import structlog

from app.config import Settings
from app.postgres import migrate
from app.postgres.embedded import EmbeddedPostgres, EmbeddedPostgresError
from app.postgres.pool import Clock, Pool, open_pool, transact
from app.registry.bootstrap import FirstKeys, bootstrap
from app.registry.registry import Registry

_Result = TypeVar("_Result")

_WATCH_SECONDS: Final = 0.25

log = structlog.get_logger(__name__)


@contextmanager
def run_database(settings: Settings) -> Iterator[Settings]:
    """Yield settings with the URL of a running, migrated database.

    Without a database URL, start the embedded PostgreSQL, restart it if it dies, and stop it at the end.

    Raises:
        EmbeddedPostgresError, OSError, asyncpg.PostgresError: the database cannot be started or reached.
        MigrationFailed: the database cannot be migrated.
    """
    if settings.database_url is not None:
        migrate.upgrade_in_own_process(settings.database_url)
        yield settings
        return
    with EmbeddedPostgres(settings.data_dir) as embedded:
        url = embedded.start()
        migrate.upgrade_in_own_process(url)
        with _keep_running(embedded):
            yield settings.model_copy(update={"database_url": url})


@contextmanager
def _keep_running(embedded: EmbeddedPostgres) -> Iterator[None]:
    """Restart PostgreSQL when it dies. Requests are answered 503 until it accepts connections again."""
    stopping = threading.Event()

    def watch() -> None:
        while not stopping.wait(_WATCH_SECONDS):
            if embedded.pid is not None:
                continue
            log.warning("postgres.died")
            try:
                embedded.start()
                log.warning("postgres.restarted")
            except (EmbeddedPostgresError, OSError) as error:
                log.error("postgres.restart_failed", reason=str(error))

    watcher = threading.Thread(target=watch, name="postgres-watch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stopping.set()
        watcher.join()


@asynccontextmanager
async def open_workspace(settings: Settings, *, settle: bool = False) -> AsyncIterator[tuple[Pool, Registry]]:
    """Yield a connection pool and the loaded registry, for commands that work outside the service.

    ``settle`` is passed to :meth:`Registry.load`, which may raise :class:`OtherSettings` if it is False.
    """
    pool = await open_pool(migrate.asyncpg_url(settings.database_url or ""), settings.pool_connections_max)
    try:
        registry = Registry(pool, settings)
        await registry.load(settle=settle)
        yield pool, registry
    finally:
        await pool.close()


async def run_with_registry(settings: Settings, action: Callable[[Registry], Awaitable[_Result]]) -> _Result:
    """Run an action that needs keys and sources only; the rules are not loaded."""
    pool = await open_pool(migrate.asyncpg_url(settings.database_url or ""), 2)
    try:
        registry = Registry(pool, settings)
        await registry.access.refresh()
        return await action(registry)
    finally:
        await pool.close()


async def bootstrap_if_empty(settings: Settings) -> FirstKeys | None:
    """Create default definitions, a source and keys in an empty workspace.

    Return the keys, or None if the workspace was not empty.
    """
    pool = await open_pool(migrate.asyncpg_url(settings.database_url or ""), 1)
    try:
        return await transact(pool, bootstrap)
    finally:
        await pool.close()


async def create_calibrated_clock(pool: Pool) -> Clock:
    """Return a clock that is calibrated to the clock of the database."""
    clock = Clock()
    async with pool.acquire() as connection:
        await clock.calibrate(connection)
    return clock
