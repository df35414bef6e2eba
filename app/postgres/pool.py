"""Connections to PostgreSQL: the pool of a process, its codecs, transactions with retries, and the clock.

On these connections ``timestamptz`` is an int (microseconds since 1970), ``uuid`` is 16 bytes and ``jsonb`` is JSON
text as bytes, so that the hot path converts nothing that it does not use.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import asyncpg

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]
else:
    Connection = asyncpg.Connection
    Pool = asyncpg.Pool

_T = TypeVar("_T")

_POSTGRES_EPOCH = 946_684_800_000_000
"""2000-01-01 in microseconds since 1970, the epoch of PostgreSQL's timestamptz."""

_JSONB_VERSION = b"\x01"


async def prepare_connection(connection: Connection) -> None:
    """Install the codecs; the pool calls this once for each connection that it opens."""
    await connection.set_type_codec(
        "timestamptz",
        schema="pg_catalog",
        format="tuple",
        encoder=lambda instant: (instant - _POSTGRES_EPOCH,),
        decoder=lambda parts: parts[0] + _POSTGRES_EPOCH,
    )
    await connection.set_type_codec("uuid", schema="pg_catalog", format="binary", encoder=bytes, decoder=bytes)
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        format="binary",
        encoder=lambda text: _JSONB_VERSION + text,
        decoder=lambda raw: bytes(raw[1:]),
    )


async def _skip_reset(connection: Connection) -> None:
    """Skip the reset of a released connection: Segue uses only SET LOCAL, and a reset costs a round trip."""
    del connection


async def open_pool(database_url: str, connections_max: int) -> Pool:
    """Open the connection pool of a process."""
    return await asyncpg.create_pool(
        database_url,
        min_size=min(2, connections_max),
        max_size=connections_max,
        command_timeout=90,
        init=prepare_connection,
        reset=_skip_reset,
        server_settings={
            "application_name": "segue",
            "timezone": "UTC",
            "jit": "off",
            # A new database has no statistics, and PostgreSQL would choose sequential scans during its first minute.
            # Every statement of Segue has an index.
            "enable_seqscan": "off",
            # Bound every wait: for a lock, for a statement, and for an abandoned transaction.
            "lock_timeout": "10s",
            "statement_timeout": "60s",
            "idle_in_transaction_session_timeout": "60s",
            # An acknowledged message must be durable even if the role or the database turns this setting off.
            "synchronous_commit": "on",
        },
    )


@asynccontextmanager
async def snapshot(pool: Pool) -> AsyncIterator[Connection]:
    """Yield a connection whose statements all read one snapshot of the database."""
    async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        yield connection


_RETRYABLE = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.UniqueViolationError,
)
"""Conflicts of concurrent transactions. A unique violation is one: another transaction has inserted the row first."""

UNREACHABLE = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # asyncpg read the server's shutdown message on an idle connection
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)
"""Errors of an unreachable, full or busy database. The request is not at fault and may succeed later."""

_ATTEMPTS_MAX = 8


async def transact(pool: Pool, work: Callable[[Connection], Awaitable[_T]]) -> _T:
    """Run ``work`` in one transaction and commit; retry a few times, with jitter, on a conflict."""
    for attempt in range(_ATTEMPTS_MAX):
        try:
            async with pool.acquire() as connection, connection.transaction():
                return await work(connection)
        except _RETRYABLE:
            if attempt + 1 == _ATTEMPTS_MAX:
                raise
            await asyncio.sleep(random.uniform(0, 0.005 * 2**attempt))
    raise AssertionError("unreachable")


class Clock:
    """The clock of the database, as the local clock plus a measured offset.

    All processes of one database thus agree on ``now`` to within half a round trip.
    """

    def __init__(self) -> None:
        self._offset = 0

    def now(self) -> int:
        """Return the current time in microseconds since 1970."""
        return time.time_ns() // 1000 + self._offset

    async def calibrate(self, connection: Connection) -> None:
        """Measure the offset to the clock of the database: the best of three round trips."""
        best: tuple[int, int] | None = None
        for _ in range(3):
            before = time.time_ns() // 1000
            database_now: int = await connection.fetchval("SELECT clock_timestamp()")
            after = time.time_ns() // 1000
            sample = (after - before, database_now - (before + after) // 2)
            best = min(best, sample) if best else sample
        assert best is not None
        self._offset = best[1]


class FrozenClock(Clock):
    """A clock for tests and replays whose time changes only by assignment to ``instant``."""

    def __init__(self, instant: int) -> None:
        super().__init__()
        self.instant = instant

    def now(self) -> int:
        return self.instant

    async def calibrate(self, connection: Connection) -> None:
        """Do nothing: the time of this clock is fixed."""
        del connection
