"""Pacing of background work beside live ingestion."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from app.postgres.pool import Connection

_BUSY_MESSAGES_PER_SECOND: Final = 50
"""Rate of accepted messages from which ingestion counts as busy. Below it, background work needs no pauses."""

_BUSY_SECONDS: Final = 2.0
"""Time during which ingestion still counts as busy. PostgreSQL counts messages once a second."""

_MEASURED_SECONDS: Final = 1.0

_CHECK_SECONDS: Final = 0.25
_REST_SECONDS_MAX: Final = 5.0


_COUNT_STORED = """
-- Messages stored by all processes so far, as PostgreSQL's statistics know it.
SELECT coalesce(sum(n_tup_ins), 0)::bigint FROM pg_stat_user_tables WHERE relname = 'ledger'
"""


class IngestionWatch:
    """Follows how many messages other processes store, for a worker that runs in a process of its own."""

    def __init__(self) -> None:
        self.stored = 0

    async def update(self, connection: Connection) -> int:
        """Read the count again; return 0, so that the caller pauses."""
        self.stored = await connection.fetchval(_COUNT_STORED)
        return 0


class WorkPacer:
    """Limits the share of time that background work takes from ingestion, which uses the same database.

    While messages arrive, background steps run one at a time and pause after each transaction. Otherwise they run
    without pauses.
    """

    def __init__(self, count_accepted: Callable[[], int], percent_max: int, stopping: asyncio.Event) -> None:
        self._count_accepted = count_accepted
        self._rest_factor = 100 / percent_max - 1
        self._stopping = stopping
        self._turn = asyncio.Lock()
        self._count = count_accepted()
        self._counted_at = time.monotonic()
        self._busy_until = float("-inf")

    @property
    def is_busy(self) -> bool:
        """True if many messages were accepted in the last seconds."""
        count, now = self._count_accepted(), time.monotonic()
        seconds = max(now - self._counted_at, _MEASURED_SECONDS)
        if count - self._count >= _BUSY_MESSAGES_PER_SECOND * seconds:
            self._busy_until = now + _BUSY_SECONDS
        if now - self._counted_at >= _MEASURED_SECONDS:
            self._count, self._counted_at = count, now
        return now < self._busy_until

    async def take_turn(self, step: Callable[[], Awaitable[int]]) -> int:
        """Run ``step`` and return the amount of work that it did.

        If the step did any work while messages arrive, pause afterwards, so that the share of time is not exceeded.
        """
        if not self.is_busy:
            return await step()
        async with self._turn:
            begun = time.monotonic()
            work_done = await step()
            if work_done:
                await self._rest((time.monotonic() - begun) * self._rest_factor)
        return work_done

    async def _rest(self, seconds: float) -> None:
        end = time.monotonic() + min(seconds, _REST_SECONDS_MAX)
        while self.is_busy and not self._stopping.is_set() and (seconds_left := end - time.monotonic()) > 0:
            await asyncio.sleep(min(seconds_left, _CHECK_SECONDS))
