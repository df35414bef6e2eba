"""Creates monthly partitions of the log ahead of time. Rows outside them are stored in the default partition."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg
import structlog

from app.postgres.pool import Connection

log = structlog.get_logger(__name__)

MONTHS_AHEAD: Final = 3


async def create_monthly_partitions(connection: Connection, now: int) -> list[str]:
    """Create the missing partitions of this month and the next ones; return their names."""
    created = []
    start = datetime.fromtimestamp(now // 1_000_000, UTC).replace(day=1)
    for _ in range(MONTHS_AHEAD + 1):
        end = (start + timedelta(days=32)).replace(day=1)
        name = f"touchpoints_{start:%Y_%m}"
        if await connection.fetchval("SELECT to_regclass($1)", name) is None and await _create_partition(
            connection, name, f"{start:%Y-%m-01}", f"{end:%Y-%m-01}"
        ):
            created.append(name)
        start = end
    return created


async def _create_partition(connection: Connection, name: str, start: str, end: str) -> bool:
    try:
        async with connection.transaction():
            # Creating a partition locks the log. Give up quickly and retry later, so that no flush has to wait.
            await connection.execute("SET LOCAL lock_timeout = '2s'")
            await connection.execute(
                f"CREATE TABLE IF NOT EXISTS {name} PARTITION OF touchpoints "
                f"FOR VALUES FROM ('{start}T00:00:00Z') TO ('{end}T00:00:00Z')"
            )
    except (asyncpg.DuplicateTableError, asyncpg.UniqueViolationError):
        return False  # another process created it concurrently
    except (asyncpg.LockNotAvailableError, asyncpg.CheckViolationError) as error:
        log.warning("partition.creation_failed", partition=name, reason=str(error))
        return False
    return True
