"""Source health: violations of the tracking plan, volume anomalies, and a health report of one source."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

import msgspec

from app.data_quality.volume_anomalies import (
    HISTORY,
    Anomaly,
    FirstSeen,
    VolumeSeries,
    find_anomalies,
    find_novelties,
    hour_of,
    list_hours,
)
from app.errors import NotFound
from app.ingest.source_stats import OTHER
from app.postgres.pool import Pool, snapshot
from app.touchpoint import DAY, HOUR

EVENTS_PER_SOURCE: Final = 20
"""Number of events per source that are checked for anomalies individually: the most frequent ones."""

_HEALTH_HOURS: Final = 24

_VIOLATIONS = """
SELECT source, event, reason, messages, first_at, last_at, sample FROM plan_violations
WHERE ($1::text IS NULL OR source = $1) AND ($2::text IS NULL OR event = $2)
ORDER BY last_at DESC, source, event, reason LIMIT $3
"""

_FIRSTS = """
-- The first hour of each source, and of each channel and event of a source, and its number of messages since $1.
SELECT source, channel, name, min(hour), coalesce(sum(messages) FILTER (WHERE hour >= $1), 0)::bigint
FROM source_volumes WHERE ($2::text IS NULL OR source = $2)
GROUP BY GROUPING SETS ((source), (source, channel), (source, name))
HAVING min(hour) >= $1 OR grouping(channel, name) = 3 OR name = $3
ORDER BY source, channel NULLS FIRST, name NULLS FIRST
"""

_HOURS = """
-- Messages per hour since $1, for each source and for its most frequent events; index volumes_by_hour.
WITH recent AS MATERIALIZED (
    SELECT source, name, hour, sum(messages) AS messages FROM source_volumes
    WHERE hour >= $1 AND ($2::text IS NULL OR source = $2) GROUP BY source, name, hour
),
frequent AS (
    SELECT source, name FROM (
        SELECT source, name, row_number() OVER (PARTITION BY source ORDER BY sum(messages) DESC, name) AS place
        FROM recent WHERE name <> $3 GROUP BY source, name
    ) AS ranked WHERE place <= $4
)
SELECT source, NULL AS name, array_agg(hour) AS hours, array_agg(messages::bigint) AS messages
FROM (SELECT source, hour, sum(messages) AS messages FROM recent GROUP BY source, hour) AS whole GROUP BY source
UNION ALL
SELECT source, name, array_agg(hour), array_agg(messages::bigint)
FROM recent JOIN frequent USING (source, name) GROUP BY source, name
ORDER BY source, name NULLS FIRST
"""

_FIRST_HOURS = """
SELECT source, name, min(hour) FROM source_volumes WHERE ($1::text IS NULL OR source = $1)
GROUP BY GROUPING SETS ((source), (source, name))
"""

_SOURCE = "SELECT EXISTS (SELECT FROM sources WHERE key = $1)"

_OUTCOMES = """
SELECT outcome, sum(times)::bigint AS times, max(last_at) AS last_at
FROM source_outcomes WHERE source = $1 AND hour >= $2 GROUP BY outcome ORDER BY outcome
"""

_LAST_SEEN = (
    "SELECT max(last_at) FROM source_outcomes WHERE source = $1 AND split_part(outcome, ':', 1) = ANY($2::text[])"
)

_BY_HOUR = "SELECT hour, sum(messages)::bigint FROM source_volumes WHERE source = $1 AND hour >= $2 GROUP BY hour"

_COUNT_QUARANTINED = "SELECT count(*) FROM quarantine WHERE source = $1 AND replayed_at IS NULL AND received_at >= $2"

_OUTCOMES_SEEN: Final = ("accepted", "duplicate", "rejected", "ignored")
"""Outcomes that prove that the source is active. A refused request does not, because anyone can send one."""


class ViolationCount(msgspec.Struct, frozen=True):
    """Number of messages that violated the plan for one reason. ``sample`` has masked properties of one."""

    source: str
    event: str
    reason: str
    messages: int
    first_at: int
    last_at: int
    sample: bytes


class SourceHealth(msgspec.Struct, frozen=True):
    """Health of one source in the last day.

    ``hours`` are (start of the hour, number of accepted messages), from the oldest hour to the current one. ``counts``
    are messages by outcome. ``rejected``, ``refused`` and ``warned`` divide these outcomes by code or reason.
    """

    source: str
    last_seen_at: int | None
    hours: list[tuple[int, int]]
    counts: Mapping[str, int]
    rejected: Mapping[str, int]
    refused: Mapping[str, int]
    warned: Mapping[str, int]
    quarantined: int
    anomalies: list[Anomaly]


class SourceHealthQueries:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def list_violations(self, source: str | None, event: str | None, items_max: int) -> list[ViolationCount]:
        """Return the violations, latest first."""
        return [ViolationCount(*row) for row in await self._pool.fetch(_VIOLATIONS, source, event, items_max)]

    async def list_anomalies(self, source: str | None, since: int, now: int) -> list[Anomaly]:
        """Return the anomalies from ``since`` to ``now``, of one source or of all, latest first."""
        async with snapshot(self._pool) as connection:
            firsts = await connection.fetch(_FIRSTS, hour_of(since), source, OTHER)
            rows = await connection.fetch(_HOURS, hour_of(now) - HISTORY, source, OTHER, EVENTS_PER_SOURCE)
            first_hours = {(row[0], row[1]): row[2] for row in await connection.fetch(_FIRST_HOURS, source)}
        all_series = [
            VolumeSeries(key, name, first_hours[key, name], dict(zip(hours, messages, strict=True)))
            for key, name, hours, messages in rows
        ]
        novelties = find_novelties([FirstSeen(*row) for row in firsts], since, OTHER)
        # Compute in a thread: with many sources it takes long, and it would block the event loop of all requests.
        anomalies = await asyncio.to_thread(lambda: list(find_anomalies(all_series, since, now)))
        return sorted(
            [*novelties, *anomalies],
            key=lambda anomaly: (-anomaly.since, anomaly.source, anomaly.kind, anomaly.event or ""),
        )

    async def read_health(self, source: str, now: int) -> SourceHealth:
        """Return the health of one source. Raise :class:`NotFound` if it does not exist."""
        if not await self._pool.fetchval(_SOURCE, source):
            raise NotFound(f"Source {source} does not exist.")
        begin = hour_of(now) - (_HEALTH_HOURS - 1) * HOUR
        rows = await self._pool.fetch(_OUTCOMES, source, begin)
        details: dict[str, dict[str, int]] = {name: {} for name in ("rejected", "refused", "warned")}
        counts = dict.fromkeys((*_OUTCOMES_SEEN, "refused", "warned"), 0)
        for outcome, times, _ in rows:
            name, _, detail = outcome.partition(":")
            counts[name] += times
            if detail:
                details[name][detail] = times
        hours = {row[0]: row[1] for row in await self._pool.fetch(_BY_HOUR, source, begin)}
        return SourceHealth(
            source,
            await self._pool.fetchval(_LAST_SEEN, source, _OUTCOMES_SEEN),
            list_hours(hours, now, _HEALTH_HOURS),
            counts,
            details["rejected"],
            details["refused"],
            details["warned"],
            await self._pool.fetchval(_COUNT_QUARANTINED, source, now - DAY),
            await self.list_anomalies(source, now - DAY, now),
        )
