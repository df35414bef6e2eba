"""What commands run on: a database that is started, kept running and migrated, and the registry over it."""

from __future__ import annotations

import asyncio
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
    """Settings with the URL of a database that runs and is migrated; stops what it started.

    Raises EmbeddedPostgresError, OSError or asyncpg.PostgresError.
    """
    if settings.database_url is not None:
        asyncio.run(migrate.upgrade(settings.database_url))
        yield settings
        return
    with EmbeddedPostgres(settings.data_dir) as embedded:
        url = embedded.start()
        asyncio.run(migrate.upgrade(url))
        with _keep_running(embedded):
            yield settings.model_copy(update={"database_url": url})


@contextmanager
def _keep_running(embedded: EmbeddedPostgres) -> Iterator[None]:
    """Start PostgreSQL again whenever it has died: nobody else would. Until it is back requests are answered 503."""
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
    """A pool and the loaded registry, for work outside the service.

    ``settle`` as in :meth:`Registry.load`; raises :class:`OtherSettings` without it.
    """
    pool = await open_pool(migrate.asyncpg_url(settings.database_url or ""), settings.pool_connections_max)
    try:
        registry = Registry(pool, settings)
        await registry.load(settle=settle)
        yield pool, registry
    finally:
        await pool.close()


async def run_with_registry(settings: Settings, action: Callable[[Registry], Awaitable[_Result]]) -> _Result:
    """For what has nothing to do with rules, which are not read."""
    pool = await open_pool(migrate.asyncpg_url(settings.database_url or ""), 2)
    try:
        registry = Registry(pool, settings)
        await registry.access.refresh()
        return await action(registry)
    finally:
        await pool.close()


async def bootstrap_if_empty(settings: Settings) -> FirstKeys | None:
    """Whichever command meets an empty workspace first gives it definitions, a source and keys; None otherwise."""
    pool = await open_pool(migrate.asyncpg_url(settings.database_url or ""), 1)
    try:
        return await transact(pool, bootstrap)
    finally:
        await pool.close()


async def create_calibrated_clock(pool: Pool) -> Clock:
    """A clock that follows the database's."""
    clock = Clock()
    async with pool.acquire() as connection:
        await clock.calibrate(connection)
    return clock
