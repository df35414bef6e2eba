"""Usage of segments: counts reads in memory and stores them periodically, so that unused segments can be found."""

from __future__ import annotations

import asyncio
from typing import Final

from app.postgres.periodic import PeriodicTask
from app.postgres.pool import UNREACHABLE, Clock, Pool

_FLUSH_SECONDS: Final = 10.0

_ADD = """
INSERT INTO segment_reads (key, reads, last_read_at)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::timestamptz[])
ON CONFLICT (key) DO UPDATE
SET reads = segment_reads.reads + excluded.reads,
    last_read_at = greatest(segment_reads.last_read_at, excluded.last_read_at)
"""


class SegmentUsage:
    """Counts requests for members and counts of segments. A killed process loses the counts since the last flush."""

    def __init__(self, pool: Pool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock
        self._reads: dict[str, tuple[int, int]] = {}
        self._flushing = asyncio.Lock()
        self._flush_task = PeriodicTask("segment-reads", _FLUSH_SECONDS, self.flush)

    def start(self) -> None:
        self._flush_task.start()

    async def stop(self) -> None:
        await self._flush_task.stop()

    def count_read(self, key: str) -> None:
        """Count one read of an existing segment."""
        times, _ = self._reads.get(key, (0, 0))
        self._reads[key] = times + 1, self._clock.now()

    async def flush(self) -> None:
        """Write the counts to the database; when it returns, every count so far is visible to readers.

        Rows are written in the order of their keys, so that two processes cannot deadlock.
        """
        # A flush that finds nothing to write must still wait for the one that is writing.
        async with self._flushing:
            reads, self._reads = self._reads, {}
            if not reads:
                return
            keys = sorted(reads)
            times, instants = zip(*(reads[key] for key in keys), strict=True)
            try:
                await self._pool.execute(_ADD, keys, times, instants)
            except UNREACHABLE:
                for key in keys:
                    later, latest = self._reads.get(key, (0, 0))
                    self._reads[key] = later + reads[key][0], max(latest, reads[key][1])
                raise
