"""Verification of a segment: compares the results of reads with a replay of the log, in one snapshot for each chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from app.config import Settings
from app.errors import NotFound
from app.insight.customer_scan import CHUNK_CUSTOMERS, count_customers, scan_customers
from app.postgres.pool import Clock, Connection, Pool, snapshot
from app.projection.coverage import Coverage
from app.projection.fold import Transition
from app.projection.log_replay import ReplayedCustomer, replay_log
from app.projection.state import State
from app.queries.customer_state import StoredState, is_current, states_at, truth_of
from app.registry.registry import Registry
from app.rules.engine.ruleset import Ruleset

DIFFERENCES_MAX = 20

_ROWS = "SELECT id, state, flips_at, revision, stale FROM customers WHERE id = ANY($1::uuid[])"

_STAYS = """
-- Stored intervals of one meaning of the segment; index transitions_one_interval.
SELECT customer_id, entered_at, left_at FROM transitions
WHERE customer_id = ANY($1::uuid[]) AND definition = $2 AND meaning = $3 AND retracted_at IS NULL
"""

_ORPHANED_STAYS = """
-- Intervals of customers that do not exist: one row for each of the first $3 such customers, with the number of all;
-- indexes transitions_open and transitions_ended.
SELECT customer_id, array_agg(entered_at) AS entered, array_agg(left_at) AS left, count(*) OVER () AS customers
FROM (SELECT customer_id, entered_at, left_at FROM transitions
      WHERE definition = $1 AND meaning = $2 AND retracted_at IS NULL AND left_at IS NULL
      UNION ALL
      SELECT customer_id, entered_at, left_at FROM transitions
      WHERE definition = $1 AND meaning = $2 AND retracted_at IS NULL AND left_at IS NOT NULL) AS stay
WHERE NOT EXISTS (SELECT FROM customers c WHERE c.id = stay.customer_id)
GROUP BY customer_id ORDER BY customer_id LIMIT $3
"""

Stay = tuple[int, int | None]
"""Interval in the segment: [entered_at, left_at)."""


class ObservedMembership(msgspec.Struct, frozen=True):
    """Membership of one customer: whether the customer is a member, since when, and all intervals so far."""

    member: bool
    since: int
    stays: list[Stay]


class Difference(msgspec.Struct, frozen=True):
    customer: bytes
    stored: ObservedMembership
    recomputed: ObservedMembership


class VerificationResult(msgspec.Struct):
    """Result of a verification that began at ``as_of``.

    ``stored`` counts the customers whose membership is read from stored intervals; reads compute it for the others.
    ``differences`` lists the first of the ``differing`` customers. If all customers are verified, both also include
    stored intervals of customers that do not exist.
    """

    as_of: int
    customers: int = 0
    stored: int = 0
    members: int = 0
    differing: int = 0
    differences: list[Difference] = []


class SegmentVerifier:
    def __init__(self, pool: Pool, registry: Registry, settings: Settings, clock: Clock) -> None:
        self._pool = pool
        self._registry = registry
        self._clock = clock
        self._points_max = settings.series_points_max

    async def verify_segment(
        self, key: str, sample: int | None = None, advance: Callable[[int, int], None] | None = None
    ) -> VerificationResult:
        """Verify all customers, or ``sample`` random ones.

        ``advance`` is called with the number of customers done and the total. Raise :class:`NotFound` if the segment is
        not defined.
        """
        result = VerificationResult(self._clock.now())
        async with snapshot(self._pool) as connection:
            await self._compare(connection, key, [], result)
            customers_total = await count_customers(connection)
        total = customers_total if sample is None else min(sample, customers_total)
        chunk = CHUNK_CUSTOMERS if sample is None else max(1, min(sample, CHUNK_CUSTOMERS))
        async for ids in scan_customers(self._pool, chunk):
            if sample is not None:
                ids = ids[: sample - result.customers]
            if not ids:
                break
            async with snapshot(self._pool) as connection:
                await self._compare(connection, key, ids, result)
            if advance is not None:
                advance(result.customers, max(total, result.customers))
        if sample is None:
            async with snapshot(self._pool) as connection:
                await self._find_orphaned_stays(connection, key, result)
        return result

    async def _find_orphaned_stays(self, connection: Connection, key: str, result: VerificationResult) -> None:
        rule_id, now = f"segment:{key}", self._clock.now()
        ruleset = await self._ruleset(connection, key)
        rows = await connection.fetch(_ORPHANED_STAYS, rule_id, ruleset.number_of[rule_id], DIFFERENCES_MAX)
        for id, entered, left, customers in rows:
            result.differing += customers if id == rows[0]["customer_id"] else 0
            if len(result.differences) < DIFFERENCES_MAX:
                stays = _cut_stays(zip(entered, left, strict=True), now)
                is_member = any(until is None for _, until in stays)
                since = max((instant for stay in stays for instant in stay if instant is not None), default=0)
                result.differences.append(
                    Difference(id, ObservedMembership(is_member, since, stays), ObservedMembership(False, 0, []))
                )

    async def _ruleset(self, connection: Connection, key: str) -> Ruleset:
        ruleset = await self._registry.rules.read(connection)
        if all(segment.key != key for segment in ruleset.segments):
            raise NotFound(f"The segment {key} does not exist.")
        return ruleset

    async def _compare(
        self, connection: Connection, key: str, ids: Sequence[bytes], result: VerificationResult
    ) -> None:
        ruleset = await self._ruleset(connection, key)
        rule_id, now = f"segment:{key}", self._clock.now()
        rows = [StoredState(*row) for row in await connection.fetch(_ROWS, ids)]
        segment_rules = Coverage(ruleset).rules_for(rule_id)
        states = await states_at(connection, rows, segment_rules, now, self._points_max)
        replayed = await replay_log(connection, ids, segment_rules, now)
        intervals: dict[bytes, list[Stay]] = {}
        for id, entered, left in await connection.fetch(_STAYS, ids, rule_id, ruleset.number_of[rule_id]):
            intervals.setdefault(id, []).append((entered, left))
        for row in rows:
            valid_to = now if row.flips_at is None else min(now, row.flips_at - 1)
            is_answered_from_store = is_current(row, segment_rules, valid_to)
            customer_replay = replayed.get(row.id) or ReplayedCustomer(State(), [])
            stays = _cut_stays(_stays_from_changes(customer_replay.changes, rule_id), valid_to)
            stored = _cut_stays(intervals.get(row.id, ()), valid_to) if is_answered_from_store else stays
            stored_truth, replayed_truth = (
                truth_of(states[row.id], segment_rules, rule_id),
                truth_of(customer_replay.state, segment_rules, rule_id),
            )
            result.customers += 1
            result.stored += is_answered_from_store
            result.members += replayed_truth.holds
            if (stored_truth.holds, stored_truth.since, stored) != (replayed_truth.holds, replayed_truth.since, stays):
                result.differing += 1
                if len(result.differences) < DIFFERENCES_MAX:
                    observed, recomputed = (
                        ObservedMembership(stored_truth.holds, stored_truth.since, stored),
                        ObservedMembership(replayed_truth.holds, replayed_truth.since, stays),
                    )
                    result.differences.append(Difference(row.id, observed, recomputed))


def _stays_from_changes(changes: Iterable[Transition], rule_id: str) -> list[Stay]:
    stays: list[Stay] = []
    for change in changes:
        if change.definition != rule_id:
            continue
        if change.entered:
            stays.append((change.at, None))
        else:
            stays[-1] = stays[-1][0], change.at
    return stays


def _cut_stays(stays: Iterable[Stay], instant: int) -> list[Stay]:
    """Return the intervals as of ``instant``, oldest first."""
    return sorted(
        (entered, left if left is not None and left <= instant else None)
        for entered, left in stays
        if entered <= instant
    )
