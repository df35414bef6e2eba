"""How often each segment is read: counted in memory, written down now and then. It tells which ones nobody uses."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from app.db import UNREACHABLE, Clock, Pool

_FLUSH_SECONDS: Final = 10.0

_ADD = """
INSERT INTO segment_reads (key, reads, last_read_at)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::timestamptz[])
ON CONFLICT (key) DO UPDATE
SET reads = segment_reads.reads + excluded.reads,
    last_read_at = greatest(segment_reads.last_read_at, excluded.last_read_at)
"""

log = structlog.get_logger(__name__)


class SegmentReads:
    """Reads of members and counts by segment. What was counted since the last write is lost with the process."""

    def __init__(self, pool: Pool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock
        self._counted: dict[str, tuple[int, int]] = {}
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._repeat(), name="segment-reads")

    async def stop(self) -> None:
        self._stopping.set()
        if self._task is not None:
            await self._task
        await self._try_flush()

    def note(self, key: str) -> None:
        """One read, now, of a segment that exists."""
        times, _ = self._counted.get(key, (0, 0))
        self._counted[key] = times + 1, self._clock.now()

    async def flush(self) -> None:
        """Write down what was counted; in one order, so that two processes never wait for each other in a ring."""
        counted, self._counted = self._counted, {}
        if not counted:
            return
        keys = sorted(counted)
        times, instants = zip(*(counted[key] for key in keys), strict=True)
        try:
            await self._pool.execute(_ADD, keys, times, instants)
        except UNREACHABLE:
            for key in keys:
                again, latest = self._counted.get(key, (0, 0))
                self._counted[key] = again + counted[key][0], max(latest, counted[key][1])
            raise

    async def _repeat(self) -> None:
        while not self._stopping.is_set():
            try:
                await asyncio.wait_for(self._stopping.wait(), _FLUSH_SECONDS)
            except TimeoutError:
                await self._try_flush()

    async def _try_flush(self) -> None:
        try:
            await self.flush()
        except UNREACHABLE as error:
            log.warning("segment_reads.flush_failed", error=type(error).__name__)
