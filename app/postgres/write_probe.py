"""Probe for readiness: tries what ingestion needs of the database, which is a commit and space on its disk."""

from __future__ import annotations

import asyncio
import time
from typing import Final, Literal

import asyncpg
import structlog

from app.postgres.pool import UNREACHABLE, Pool

WriteFault = Literal["read_only", "disk_full", "write_failed"]

_SECONDS_MAX: Final = 2.0
_KEEP_SECONDS: Final = 5.0

_IS_READ_ONLY = "SELECT current_setting('transaction_read_only')::boolean"

_ALLOCATE = """
-- A function scan larger than work_mem goes to a temporary file of about 500 kB. Rows of a table would not do, because
-- a full disk still accepts rows where a page has space.
SELECT count(*) FROM generate_series(1, 20000)
"""

_WRITE_WAL = "SELECT pg_logical_emit_message(true, 'segue', '')"

log = structlog.get_logger(__name__)


class WriteProbe:
    """Checks whether the database accepts writes, at most once in ``_KEEP_SECONDS``.

    A check writes a temporary file and a commit record to the disk, and no row to any table.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._checking = asyncio.Lock()
        self._checked_at = float("-inf")
        self._fault: WriteFault | None = None

    async def find_fault(self) -> WriteFault | None:
        """Return why the database accepts no writes, or None if it does. Raise an UNREACHABLE error."""
        async with self._checking:
            if time.monotonic() - self._checked_at >= _KEEP_SECONDS:
                self._fault = await self._check()
                self._checked_at = time.monotonic()
        return self._fault

    async def _check(self) -> WriteFault | None:
        try:
            async with self._pool.acquire(timeout=_SECONDS_MAX) as connection:
                if await connection.fetchval(_IS_READ_ONLY, timeout=_SECONDS_MAX):
                    return "read_only"
                async with connection.transaction():
                    await connection.execute("SET LOCAL work_mem = '64kB'", timeout=_SECONDS_MAX)
                    await connection.fetchval(_ALLOCATE, timeout=_SECONDS_MAX)
                    await connection.fetchval(_WRITE_WAL, timeout=_SECONDS_MAX)
        except asyncpg.DiskFullError:
            return "disk_full"
        except asyncpg.ConfigurationLimitExceededError:
            # The operator's temp_file_limit is smaller than the probe, which does not concern ingestion.
            return None
        except UNREACHABLE:
            raise
        except asyncpg.PostgresError as error:
            log.warning("write_probe.failed", error=type(error).__name__)
            return "write_failed"
        return None
