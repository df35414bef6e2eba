"""Stores and reads daily metrics of channels, which do not belong to customers.

Owns the table channel_metrics.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from typing import Final

import msgspec

from app.channel_metrics.parsers.metric import Metric
from app.postgres.pool import Connection, Pool, transact

_ROWS_AT_ONCE: Final = 5_000

_UPSERT = """
-- Rows that are stored already with the same value are not updated: importing a file twice changes nothing.
INSERT INTO channel_metrics (source, kind, channel, metric, subject, day, value, recorded_at)
SELECT $1, $2, channel, metric, subject, day, value, $3
FROM unnest($4::text[], $5::text[], $6::text[], $7::date[], $8::numeric[]) AS item(channel, metric, subject, day, value)
ON CONFLICT ON CONSTRAINT channel_metrics_pkey DO UPDATE
SET value = excluded.value, recorded_at = excluded.recorded_at
WHERE channel_metrics.value <> excluded.value
RETURNING (xmax = 0) AS added
"""

_PAGE = """
-- Ordered by the index channel_metrics_by_day; a filter that is null matches all rows.
SELECT day, channel, metric, subject, source, kind, value, recorded_at
FROM channel_metrics
WHERE day >= $1 AND day <= $2
  AND ($3::text IS NULL OR channel = $3) AND ($4::text IS NULL OR metric = $4)
  AND ($5::text IS NULL OR subject = $5) AND ($6::text IS NULL OR source = $6)
  AND (day, channel, metric, subject, source, kind) > ($7, $8, $9, $10, $11, $12)
ORDER BY day, channel, metric, subject, source, kind
LIMIT $13
"""

_TOTALS = """
-- Totals of whole days, independent of pages.
SELECT day, channel, metric, sum(value) AS sum, count(*) AS values
FROM channel_metrics
WHERE day >= $1 AND day <= $2
  AND ($3::text IS NULL OR channel = $3) AND ($4::text IS NULL OR metric = $4)
  AND ($5::text IS NULL OR subject = $5) AND ($6::text IS NULL OR source = $6)
GROUP BY day, channel, metric
ORDER BY day, channel, metric
"""

Place = tuple[date, str, str, str, str, str]
"""Position in the order of pages: day, channel, metric, subject, source and kind."""
BEFORE_ALL: Final[Place] = (date.min, "", "", "", "", "")


class StoredCounts(msgspec.Struct):
    """Number of metrics that a file added, and number that it changed. The others were stored with the same value."""

    added: int = 0
    changed: int = 0


class MetricQuery(msgspec.Struct, frozen=True):
    """Filters of a query: days from ``first`` to ``last``, both inclusive. A filter that is None matches all values."""

    first: date = date.min
    last: date = date.max
    channel: str | None = None
    metric: str | None = None
    subject: str | None = None
    source: str | None = None


class DailyMetric(msgspec.Struct, frozen=True):
    """One stored row; ``recorded_at`` is in microseconds since the epoch."""

    day: date
    channel: str
    metric: str
    subject: str
    source: str
    kind: str
    value: Decimal
    recorded_at: int

    @property
    def place(self) -> Place:
        """Position of the row in the order of pages."""
        return self.day, self.channel, self.metric, self.subject, self.source, self.kind


class DayTotal(msgspec.Struct, frozen=True):
    """Sum and number of the values of one metric on one day."""

    day: date
    channel: str
    metric: str
    sum: Decimal
    values: int


class MetricStore:
    """Statements on the table channel_metrics."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def store(self, source: str, kind: str, daily_metrics: Iterable[Metric], now: int) -> StoredCounts:
        """Store all metrics of a file in one transaction; no two of them may have the same key.

        They are written in the order of their keys, so that two concurrent imports cannot deadlock.
        """
        in_order = sorted(daily_metrics, key=lambda item: (item.channel, item.metric, item.subject, item.day))

        async def write(connection: Connection) -> StoredCounts:
            stored = StoredCounts()
            for begin in range(0, len(in_order), _ROWS_AT_ONCE):
                chunk = in_order[begin : begin + _ROWS_AT_ONCE]
                channels, metrics, subjects, days, values = zip(*map(msgspec.structs.astuple, chunk), strict=True)
                rows = await connection.fetch(_UPSERT, source, kind, now, channels, metrics, subjects, days, values)
                stored.added += sum(row["added"] for row in rows)
                stored.changed += sum(not row["added"] for row in rows)
            return stored

        return await transact(self._pool, write)

    async def page(self, query: MetricQuery, after: Place, items_max: int) -> list[DailyMetric]:
        """Return the rows after a position, ordered by day, channel, metric, subject, source and kind."""
        rows = await self._pool.fetch(_PAGE, *msgspec.structs.astuple(query), *after, items_max)
        return [DailyMetric(*row) for row in rows]

    async def totals(self, query: MetricQuery) -> list[DayTotal]:
        """Return the total of each day, channel and metric."""
        rows = await self._pool.fetch(_TOTALS, *msgspec.structs.astuple(query))
        return [DayTotal(*row) for row in rows]
