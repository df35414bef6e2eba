"""Segment health: a report of segments that overlap, have the same meaning, are empty, tiny, never read or stale.

It reads only stored intervals, which are at most a few seconds old, and does not compute customers.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from app.insight.customer_scan import count_customers
from app.postgres.pool import Connection, Pool, snapshot
from app.projection.coverage import Coverage
from app.registry.registry import Registry
from app.rules.engine.ruleset import Ruleset
from app.touchpoint import DAY

SAMPLE_CUSTOMERS: Final = 5_000
"""Maximum number of customers in which overlaps are counted. In a larger database, overlaps are counted in a sample of
this size."""

OVERLAPS_MAX: Final = 1_000
"""Maximum number of reported overlaps. A thousand segments have half a million pairs, of which only the most similar
matter."""

NEAR_DUPLICATE: Final = 0.95
TINY_SHARE: Final = 0.001
TINY_MEMBERS: Final = 10
STALE_DAYS: Final = 90

_BITS: Final = 60
"""Number of customers in one word of a bit set. Their bits fit into a PostgreSQL bigint without its sign bit."""

_SEGMENTS = """
-- Members of each segment as of now, and when a customer last entered or left; indexes transitions_open, _ended.
SELECT requested.definition, open.members, open.entered_at, ended.left_at
FROM unnest($1::text[], $2::bigint[]) AS requested (definition, meaning)
CROSS JOIN LATERAL (
    SELECT count(*) AS members, max(entered_at) AS entered_at FROM transitions t
    WHERE t.definition = requested.definition AND t.meaning = requested.meaning AND retracted_at IS NULL
      AND left_at IS NULL AND entered_at <= $3
) AS open
CROSS JOIN LATERAL (
    SELECT max(left_at) AS left_at FROM transitions t
    WHERE t.definition = requested.definition AND t.meaning = requested.meaning AND retracted_at IS NULL
      AND left_at <= $3
) AS ended
"""

_LAST_OF_SAMPLE = "SELECT id FROM customers ORDER BY id OFFSET $1 LIMIT 1"

_SETS = """
-- Members of each segment among the sample (the customers up to $3), as bit sets; index transitions_open.
WITH sample AS MATERIALIZED (
    SELECT id, row_number() OVER (ORDER BY id) - 1 AS place FROM customers WHERE id <= $3
)
SELECT definition, array_agg(word) AS words, array_agg(bits) AS bits
FROM (SELECT requested.definition, place / $5 AS word, bit_or(1::bigint << (place % $5)::int) AS bits
      FROM unnest($1::text[], $2::bigint[]) AS requested (definition, meaning)
      CROSS JOIN LATERAL (
          SELECT customer_id FROM transitions t
          WHERE t.definition = requested.definition AND t.meaning = requested.meaning AND retracted_at IS NULL
            AND left_at IS NULL AND customer_id <= $3 AND entered_at <= $4
      ) AS open
      JOIN sample ON sample.id = open.customer_id
      GROUP BY 1, 2) AS words
GROUP BY definition
"""

_LOWEST_REVISION = "SELECT min(revision) FROM customers"

_INTRODUCED = "SELECT number, introduced_at FROM rule_numbers WHERE number = ANY($1::bigint[])"

_SEGMENT_READS = "SELECT key, reads, last_read_at FROM segment_reads"


class SegmentHealth(msgspec.Struct, frozen=True):
    """Health of one segment. ``last_changed_at`` is when a customer last entered or left; None if that never happened.

    Until the segment is ``filled`` (backfilled), its figures cover only some customers, and it has no flags.
    """

    key: str
    members: int
    reads: int
    last_read_at: int | None
    last_changed_at: int | None
    filled: bool
    flags: list[str]
    """Flags that apply: empty, tiny, never_read, stale. The last two require a definition that is STALE_DAYS old."""


class Overlap(msgspec.Struct, frozen=True):
    """Two segments with common members. ``jaccard`` is ``both`` divided by ``either``."""

    segments: tuple[str, str]
    both: int
    either: int
    jaccard: float


class SegmentHealthReport(msgspec.Struct, frozen=True):
    """Health of all segments.

    ``customers_scanned`` is less than ``customers_total`` if overlaps were counted in a sample.

    ``overlaps`` are the most similar of ``overlaps_total`` pairs.
    """

    customers_total: int
    customers_scanned: int
    segments: list[SegmentHealth]
    overlaps: list[Overlap]
    overlaps_total: int
    near_duplicates: list[Overlap]
    same_meaning: list[list[str]]


class SegmentHealthQueries:
    def __init__(self, pool: Pool, registry: Registry) -> None:
        self._pool = pool
        self._registry = registry

    async def report(self, now: int) -> SegmentHealthReport:
        async with snapshot(self._pool) as connection:
            ruleset = await self._registry.rules.read(connection)
            total = await count_customers(connection)
            reads = {row["key"]: (row["reads"], row["last_read_at"]) for row in await connection.fetch(_SEGMENT_READS)}
            definitions = sorted(f"segment:{segment.key}" for segment in ruleset.segments)
            numbers = [ruleset.number_of[id] for id in definitions]
            rows = await connection.fetch(_SEGMENTS, definitions, numbers, now)
            lowest_revision = await connection.fetchval(_LOWEST_REVISION)
            introduced = {row["number"]: row["introduced_at"] for row in await connection.fetch(_INTRODUCED, numbers)}
            scanned, sets = await _read_member_sets(connection, definitions, numbers, total, now)
        overlaps, overlaps_total = await _find_overlaps(sets)
        segments = []
        for row in rows:
            id = row["definition"]
            filled = lowest_revision is None or lowest_revision >= Coverage(ruleset).required_revision(id)
            is_young = introduced[ruleset.number_of[id]] > now - STALE_DAYS * DAY
            segments.append(_build_health(row, reads, total, now, filled=filled, is_young=is_young))
        return SegmentHealthReport(
            total,
            scanned,
            segments,
            overlaps,
            overlaps_total,
            [overlap for overlap in overlaps if overlap.both >= NEAR_DUPLICATE * overlap.either],
            _find_same_meanings(ruleset),
        )


async def _read_member_sets(
    connection: Connection, definitions: Sequence[str], numbers: Sequence[int], total: int, now: int
) -> tuple[int, dict[str, int]]:
    """Return the size of the sample, and the members of each segment by key, as bit sets: bit n is the n-th customer.

    Ids are hashes, so the first ones are a fair sample.
    """
    scanned = min(total, SAMPLE_CUSTOMERS)
    if not scanned:
        return 0, {}
    last = await connection.fetchval(_LAST_OF_SAMPLE, scanned - 1)
    sets = {}
    for row in await connection.fetch(_SETS, definitions, numbers, last, now, _BITS):
        words = zip(row["words"], row["bits"], strict=True)
        sets[_segment_key(row["definition"])] = sum(bits << (_BITS * word) for word, bits in words)
        await asyncio.sleep(0)
    return scanned, dict(sorted(sets.items()))


async def _find_overlaps(sets: Mapping[str, int]) -> tuple[list[Overlap], int]:
    """Return the pairs with common members, the most similar first, and how many such pairs exist.

    Half a million pairs take about half a second, so live requests run after each segment.
    """
    keys, members = list(sets), list(sets.values())
    sizes = [bits.bit_count() for bits in members]
    best: list[tuple[float, int, int, int]] = []
    pairs = 0
    for first, first_members in enumerate(members):
        size = sizes[first]
        for second, second_members in enumerate(members[first + 1 :], first + 1):
            both = (first_members & second_members).bit_count()
            if not both:
                continue
            pairs += 1
            jaccard = both / (size + sizes[second] - both)
            if len(best) < OVERLAPS_MAX:
                heapq.heappush(best, (jaccard, -first, -second, both))
            elif jaccard > best[0][0]:
                heapq.heapreplace(best, (jaccard, -first, -second, both))
        await asyncio.sleep(0)
    return [
        Overlap((keys[-first], keys[-second]), both, sizes[-first] + sizes[-second] - both, round(jaccard, 4))
        for jaccard, first, second, both in sorted(best, reverse=True)
    ], pairs


def _build_health(
    row: Any, reads: Mapping[str, tuple[int, int]], total: int, now: int, *, filled: bool, is_young: bool
) -> SegmentHealth:
    key, members = _segment_key(row["definition"]), row["members"]
    read_count, last_read_at = reads.get(key, (0, None))
    last_changed_at = _latest(row["entered_at"], row["left_at"])
    is_unchanged = last_changed_at is None or last_changed_at <= now - STALE_DAYS * DAY
    flags = {
        "empty": members == 0,
        "tiny": 0 < members < max(TINY_MEMBERS, TINY_SHARE * total),
        "never_read": read_count == 0 and not is_young,
        "stale": is_unchanged and not is_young,
    }
    flag_names = [flag for flag, holds in flags.items() if holds and filled]
    return SegmentHealth(key, members, read_count, last_read_at, last_changed_at, filled, flag_names)


def _latest(*instants: int | None) -> int | None:
    return max((instant for instant in instants if instant is not None), default=None)


def _find_same_meanings(ruleset: Ruleset) -> list[list[str]]:
    """Return groups of segments whose rules have the same meaning, even if they are written differently."""
    groups: dict[str, list[str]] = {}
    for segment in ruleset.segments:
        groups.setdefault(ruleset.nameless_meanings[f"segment:{segment.key}"], []).append(segment.key)
    return [keys for keys in groups.values() if len(keys) > 1]


def _segment_key(definition: str) -> str:
    return definition.partition(":")[2]
