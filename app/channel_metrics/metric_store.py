"""Figures of channels by day: what files of them say, kept apart from customers. The one writer of their table."""

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
-- What stands there already, with the same value, is left untouched: the same file twice changes nothing.
INSERT INTO channel_metrics (source, kind, channel, metric, subject, day, value, recorded_at)
SELECT $1, $2, channel, metric, subject, day, value, $3
FROM unnest($4::text[], $5::text[], $6::text[], $7::date[], $8::numeric[]) AS item(channel, metric, subject, day, value)
ON CONFLICT ON CONSTRAINT channel_metrics_pkey DO UPDATE
SET value = excluded.value, recorded_at = excluded.recorded_at
WHERE channel_metrics.value <> excluded.value
RETURNING (xmax = 0) AS added
"""

_PAGE = """
-- In one order, by index channel_metrics_by_day; a filter that is null lets everything through.
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
-- Of whole days, whatever page their rows stand on.
SELECT day, channel, metric, sum(value) AS sum, count(*) AS values
FROM channel_metrics
WHERE day >= $1 AND day <= $2
  AND ($3::text IS NULL OR channel = $3) AND ($4::text IS NULL OR metric = $4)
  AND ($5::text IS NULL OR subject = $5) AND ($6::text IS NULL OR source = $6)
GROUP BY day, channel, metric
ORDER BY day, channel, metric
"""

Place = tuple[date, str, str, str, str, str]
BEFORE_ALL: Final[Place] = (date.min, "", "", "", "", "")


class StoredCounts(msgspec.Struct):
    """What became of a file's figures; the others stood there already."""

    added: int = 0
    changed: int = 0


class MetricQuery(msgspec.Struct, frozen=True):
    """Days from first to last, both included; None lets everything through."""

    first: date = date.min
    last: date = date.max
    channel: str | None = None
    metric: str | None = None
    subject: str | None = None
    source: str | None = None


class DailyMetric(msgspec.Struct, frozen=True):
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
        return self.day, self.channel, self.metric, self.subject, self.source, self.kind


class DayTotal(msgspec.Struct, frozen=True):
    day: date
    channel: str
    metric: str
    sum: Decimal
    values: int


class MetricStore:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def store(self, source: str, kind: str, figures: Iterable[Metric], now: int) -> StoredCounts:
        """All of them or none, each at most once among them. In one order, so that two files wait for each other."""
        in_order = sorted(figures, key=lambda figure: (figure.channel, figure.metric, figure.subject, figure.day))

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
        """Ordered by day, channel, metric, subject, source and kind."""
        rows = await self._pool.fetch(_PAGE, *msgspec.structs.astuple(query), *after, items_max)
        return [DailyMetric(*row) for row in rows]

    async def totals(self, query: MetricQuery) -> list[DayTotal]:
        rows = await self._pool.fetch(_TOTALS, *msgspec.structs.astuple(query))
        return [DayTotal(*row) for row in rows]
