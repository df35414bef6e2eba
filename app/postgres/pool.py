"""Connections to PostgreSQL: one pool a process, codecs that keep the hot path free of conversions, one clock.

On these connections ``timestamptz`` is an int (microseconds since 1970), ``uuid`` is 16 bytes, ``jsonb`` is
JSON text as bytes. Nothing is parsed that nobody looks at.
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
"""2000-01-01 in microseconds since 1970: where PostgreSQL's timestamptz counts from."""

_JSONB_VERSION = b"\x01"


async def prepare_connection(connection: Connection) -> None:
    """Install the codecs; the pool calls it once for each connection it opens."""
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
    """Nothing here changes a session (only SET LOCAL), so there is nothing to reset; it would cost a round trip."""
    del connection


async def open_pool(database_url: str, connections_max: int) -> Pool:
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
            # A database that was just made has no statistics, and would be read from end to end for its first minute;
            # every statement here has its index.
            "enable_seqscan": "off",
            # Nobody waits for ever: neither for a lock that somebody forgot, nor for a statement that never ends.
            "lock_timeout": "10s",
            "statement_timeout": "60s",
            "idle_in_transaction_session_timeout": "60s",
            # The promise of an ack: a role or database that switched it off must not be able to break it.
            "synchronous_commit": "on",
        },
    )


@asynccontextmanager
async def snapshot(pool: Pool) -> AsyncIterator[Connection]:
    """A connection whose statements all see one state of the database."""
    async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        yield connection


_RETRYABLE = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.UniqueViolationError,
)
"""Two workers met. A unique violation is among them: the row we did not see was committed meanwhile."""

UNREACHABLE = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # asyncpg met the server's last words on an idle connection
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)
"""The database is away, full or too busy: nobody's request is at fault, and the same may succeed later."""

_ATTEMPTS_MAX = 8


async def transact(pool: Pool, work: Callable[[Connection], Awaitable[_T]]) -> _T:
    """Run ``work`` in one transaction and commit; start again, with jitter and bounded, when two workers met."""
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
    """The database's clock, read without asking it each time: its offset to ours is measured now and then.

    All workers of one database thus agree on ``now`` to within half a round trip.
    """

    def __init__(self) -> None:
        self._offset = 0

    def now(self) -> int:
        """Microseconds since 1970."""
        return time.time_ns() // 1000 + self._offset

    async def calibrate(self, connection: Connection) -> None:
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
    """For tests and replays: stands still until told otherwise."""

    def __init__(self, instant: int) -> None:
        super().__init__()
        self.instant = instant

    def now(self) -> int:
        return self.instant

    async def calibrate(self, connection: Connection) -> None:
        """It stands still, whatever the database says."""
        del connection
