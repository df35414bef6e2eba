"""Which segments overlap, say the same, are empty, tiny, never read or no longer move: one report.

It rests on the stored intervals, which follow the present within seconds, and never works out a customer.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any, Final

import msgspec

from app.db import Connection, Pool, snapshot
from app.registry import Registry
from app.rules.ruleset import Ruleset
from app.touchpoint import DAY
from app.views.base import count_customers

SAMPLE_CUSTOMERS: Final = 200_000
"""Overlaps of a larger base are those of a sample of about that many customers."""

NEAR_DUPLICATE: Final = 0.95
TINY_SHARE: Final = 0.001
TINY_MEMBERS: Final = 10
STALE_DAYS: Final = 90

_SEGMENTS = """
-- Members of each segment as of now, and when somebody last entered or left: indexes transitions_open, _ended.
SELECT asked.definition, open.members, open.entered_at, ended.left_at
FROM unnest($1::text[], $2::bigint[]) AS asked (definition, meaning)
CROSS JOIN LATERAL (
    SELECT count(*) AS members, max(entered_at) AS entered_at FROM transitions t
    WHERE t.definition = asked.definition AND t.meaning = asked.meaning AND retracted_at IS NULL
      AND left_at IS NULL AND entered_at <= $3
) AS open
CROSS JOIN LATERAL (
    SELECT max(left_at) AS left_at FROM transitions t
    WHERE t.definition = asked.definition AND t.meaning = asked.meaning AND retracted_at IS NULL AND left_at <= $3
) AS ended
"""

_TOGETHER = """
-- How many customers are in exactly these segments together, of those whose id is not after $3 (all: the last id).
SELECT definitions, count(*) AS customers
FROM (SELECT array_agg(definition ORDER BY definition) AS definitions
      FROM unnest($1::text[], $2::bigint[]) AS asked (definition, meaning)
      JOIN transitions USING (definition, meaning)
      WHERE customer_id <= $3 AND entered_at <= $4 AND left_at IS NULL AND retracted_at IS NULL
      GROUP BY customer_id) AS customer
GROUP BY definitions
"""

_READS = "SELECT key, reads, last_read_at FROM segment_reads"


class SegmentHealth(msgspec.Struct, frozen=True):
    """One segment. ``last_moved_at``: when a customer last entered or left; None where none ever did."""

    key: str
    members: int
    reads: int
    last_read_at: int | None
    last_moved_at: int | None
    flags: list[str]
    """Of empty, tiny, never_read and stale, those that hold."""


class Overlap(msgspec.Struct, frozen=True):
    """Two segments with members in common. ``jaccard``: those in both, of those in either."""

    segments: tuple[str, str]
    both: int
    either: int
    jaccard: float


class Hygiene(msgspec.Struct, frozen=True):
    """``customers_looked_at`` is less than ``customers_total`` where the overlaps are those of a sample."""

    customers_total: int
    customers_looked_at: int
    segments: list[SegmentHealth]
    overlaps: list[Overlap]
    near_duplicates: list[Overlap]
    same_meaning: list[list[str]]


class HygieneViews:
    def __init__(self, pool: Pool, registry: Registry) -> None:
        self._pool = pool
        self._registry = registry

    async def report(self, now: int) -> Hygiene:
        async with snapshot(self._pool) as connection:
            ruleset = await self._registry.current_ruleset(connection)
            total = await count_customers(connection)
            reads = {row["key"]: (row["reads"], row["last_read_at"]) for row in await connection.fetch(_READS)}
            definitions = [f"segment:{each.key}" for each in ruleset.segments]
            asked = definitions, [ruleset.number_of[id] for id in definitions]
            rows = await connection.fetch(_SEGMENTS, *asked, now)
            looked_at, overlaps = await _overlaps(connection, asked, total, now)
        return Hygiene(
            total,
            looked_at,
            [_health(row, reads, total, now) for row in rows],
            overlaps,
            [each for each in overlaps if each.both >= NEAR_DUPLICATE * each.either],
            _same_meaning(ruleset),
        )


_COUNT_UP_TO = "SELECT count(*) FROM customers WHERE id <= $1"


async def _overlaps(
    connection: Connection, asked: tuple[list[str], list[int]], total: int, now: int
) -> tuple[int, list[Overlap]]:
    """How many customers were looked at, and the pairs, the most alike first. Ids are hashes: a prefix is a sample."""
    last, looked_at = b"\xff" * 16, total
    if total > SAMPLE_CUSTOMERS:
        last = (((1 << 128) - 1) * SAMPLE_CUSTOMERS // total).to_bytes(16)
        looked_at = await connection.fetchval(_COUNT_UP_TO, last)
    alone: dict[str, int] = {}
    together: dict[tuple[str, str], int] = {}
    for names, customers in await connection.fetch(_TOGETHER, *asked, last, now):
        for name in names:
            alone[name] = alone.get(name, 0) + customers
        for pair in combinations(names, 2):
            together[pair] = together.get(pair, 0) + customers
    pairs = [_overlap(pair, both, alone) for pair, both in together.items()]
    return looked_at, sorted(pairs, key=lambda each: (-each.jaccard, each.segments))


def _overlap(pair: tuple[str, str], both: int, alone: Mapping[str, int]) -> Overlap:
    either = alone[pair[0]] + alone[pair[1]] - both
    return Overlap((_key(pair[0]), _key(pair[1])), both, either, round(both / either, 4))


def _health(row: Any, reads: Mapping[str, tuple[int, int]], total: int, now: int) -> SegmentHealth:
    key, members = _key(row["definition"]), row["members"]
    times, last_read_at = reads.get(key, (0, None))
    last_moved_at = _latest(row["entered_at"], row["left_at"])
    flags = {
        "empty": members == 0,
        "tiny": 0 < members < max(TINY_MEMBERS, TINY_SHARE * total),
        "never_read": times == 0,
        "stale": last_moved_at is None or last_moved_at <= now - STALE_DAYS * DAY,
    }
    return SegmentHealth(
        key, members, times, last_read_at, last_moved_at, [flag for flag, holds in flags.items() if holds]
    )


def _latest(*instants: int | None) -> int | None:
    return max((each for each in instants if each is not None), default=None)


def _same_meaning(ruleset: Ruleset) -> list[list[str]]:
    """Groups of segments whose rules mean the same, whoever wrote them."""
    groups: dict[str, list[str]] = {}
    for each in ruleset.segments:
        groups.setdefault(ruleset.contents[f"segment:{each.key}"], []).append(each.key)
    return [keys for keys in groups.values() if len(keys) > 1]


def _key(definition: str) -> str:
    return definition.partition(":")[2]
