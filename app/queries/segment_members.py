"""Who is in a segment as of an instant, and how many: the count is the length of the list, always.

Stored intervals answer for customers that are up to date. The others (being filled, due, stale) are worked out from
their states or their logs, in bounded batches, so that both answers are exact while a definition is new.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from app.config import Settings
from app.errors import NotFound
from app.postgres.pool import Connection, Pool, snapshot
from app.projection.coverage import coverage_of
from app.projection.fold import POINTS_UNLIMITED, NeedsReplay
from app.projection.state import State
from app.queries.customer_state import StoredState, identities_in_order, states_at, truth_of, valid_until
from app.registry.registry import Registry
from app.rules.engine.ruleset import Ruleset
from app.touchpoint import SECOND, Identity

_BATCH_CUSTOMERS: Final = 500
_WORKED_OUT_PER_PAGE: Final = 2_000
"""A page of a rare segment may be short, so that no request works out the whole base."""

_BEFORE_ALL: Final = bytes(16)


class Member(msgspec.Struct):
    id: bytes
    identities: list[Identity]
    since: int
    valid_until: int | None


class MemberPage(msgspec.Struct):
    """``after`` is where the next page begins; None at the end."""

    items: list[Member]
    after: bytes | None


class Fill(msgspec.Struct, frozen=True):
    """How far a definition, or all of them, have been worked out for every customer; how fast, and how much longer.

    Figures of speed are None before the worker's first second at it, and once it is done.
    """

    customers_total: int
    customers_filled: int
    touchpoints_per_second: float | None = None
    eta_seconds: float | None = None
    since: int | None = None
    """When the definition came to mean what is being filled."""


_OTHERS = """
-- Customers whose stored intervals cannot be believed as of $2, by id: indexes customers_to_fill and customers_due.
SELECT id, state, flips_at, revision, stale FROM customers
WHERE id IN (
    (SELECT id FROM customers WHERE revision < $1 AND id > $3 ORDER BY id LIMIT $4)
    UNION
    (SELECT id FROM customers WHERE sweep_at <= $2 AND flips_at <= $2 AND id > $3 ORDER BY id LIMIT $4)
    UNION
    (SELECT id FROM customers WHERE stale AND id > $3 ORDER BY id LIMIT $4)
)
ORDER BY id LIMIT $4
"""

_STORED_MEMBERS = """
-- Intervals open as of $2, by customer: indexes transitions_open and transitions_ended.
SELECT customer_id FROM (
    (SELECT customer_id FROM transitions
     WHERE definition = $1 AND meaning = $7 AND retracted_at IS NULL AND left_at IS NULL AND entered_at <= $2
       AND customer_id > $3 AND ($4::uuid IS NULL OR customer_id <= $4) AND customer_id <> ALL ($5::uuid[])
     ORDER BY customer_id LIMIT $6)
    UNION ALL
    (SELECT customer_id FROM transitions
     WHERE definition = $1 AND meaning = $7 AND retracted_at IS NULL AND left_at > $2 AND entered_at <= $2
       AND customer_id > $3 AND ($4::uuid IS NULL OR customer_id <= $4) AND customer_id <> ALL ($5::uuid[])
     ORDER BY customer_id LIMIT $6)
) AS open
ORDER BY customer_id LIMIT $6
"""

_COUNT_STORED = """
SELECT (SELECT count(*) FROM transitions
        WHERE definition = $1 AND meaning = $3 AND retracted_at IS NULL AND left_at IS NULL AND entered_at <= $2)
     + (SELECT count(*) FROM transitions
        WHERE definition = $1 AND meaning = $3 AND retracted_at IS NULL AND left_at > $2 AND entered_at <= $2)
"""

_COUNT_STORED_OF = """
-- What the stored intervals say of customers that are worked out instead.
SELECT count(*) FROM transitions
WHERE definition = $1 AND meaning = $4 AND retracted_at IS NULL AND (left_at IS NULL OR left_at > $2)
  AND entered_at <= $2 AND customer_id = ANY($3::uuid[])
"""

_ROWS = "SELECT id, state, flips_at, revision, stale FROM customers WHERE id = ANY($1::uuid[])"

_IDENTITIES = """
SELECT customer_id, array_agg(kind) AS kinds, array_agg(value) AS values
FROM identities WHERE customer_id = ANY($1::uuid[]) GROUP BY customer_id
"""

_UNFILLED = """
-- Customers whose state was made with older definitions: index customers_to_fill.
SELECT count(*) FROM customers WHERE revision < $1
"""

_CUSTOMERS = "SELECT count(*) FROM customers"

_SPEED = """
-- The fill on the way to $1: how much of it was done in how many microseconds, and when $1 was introduced.
SELECT (SELECT introduced_at FROM rule_numbers WHERE number = $1) AS since,
       f.customers, f.touchpoints, f.updated_at, f.begun_at
FROM (SELECT) AS one
LEFT JOIN LATERAL (SELECT * FROM fills WHERE target >= $1 ORDER BY target LIMIT 1) AS f ON true
"""


class SegmentMemberQueries:
    def __init__(self, pool: Pool, registry: Registry, settings: Settings) -> None:
        self._pool = pool
        self._registry = registry
        self._points_max = settings.series_points_max

    async def page(self, segment: str, as_of: int, after: bytes | None, items_max: int) -> MemberPage:
        """Members by customer id. Raises :class:`NotFound` for a segment that is not defined now."""
        async with snapshot(self._pool) as connection:
            ruleset = await self._ruleset(connection, segment)
            search = _Search(connection, ruleset, f"segment:{segment}", as_of, self._points_max)
            ids, last = await search.members(after or _BEFORE_ALL, items_max)
            return MemberPage(await search.describe(ids), last)

    async def count(self, segment: str, as_of: int) -> int:
        """Raises :class:`NotFound`."""
        async with snapshot(self._pool) as connection:
            ruleset = await self._ruleset(connection, segment)
            return await _Search(connection, ruleset, f"segment:{segment}", as_of, self._points_max).count()

    async def fill(self, kind: str | None = None, key: str | None = None) -> Fill:
        """Of one definition, the candidate's where it has one; of all without any."""
        async with snapshot(self._pool) as connection:
            ruleset = await self._registry.rules.read(connection)
            target = _target(ruleset, kind, key)
            total: int = await connection.fetchval(_CUSTOMERS)
            left: int = await connection.fetchval(_UNFILLED, target)
            rows = await connection.fetch(_SPEED, target)
        since, customers, touchpoints, updated_at, begun_at = rows[0]
        if not left or not customers or updated_at == begun_at:
            return Fill(total, total - left, since=since)
        seconds = (updated_at - begun_at) / SECOND
        return Fill(total, total - left, touchpoints / seconds, left * seconds / customers, since)

    async def unfilled(self) -> int:
        """Customers still to be brought to all definitions, candidates included."""
        count: int = await self._pool.fetchval(_UNFILLED, self._registry.rules.current.fill)
        return count

    async def _ruleset(self, connection: Connection, segment: str) -> Ruleset:
        ruleset = await self._registry.rules.read(connection)
        if all(each.key != segment for each in ruleset.segments):
            raise NotFound(f"There is no segment {segment}.")
        return ruleset


def _target(ruleset: Ruleset, kind: str | None, key: str | None) -> int:
    """The revision of a row that holds the definition; all of them where none is named."""
    if kind is None:
        return ruleset.fill
    plain = f"{kind}:{key}"
    ids = [id for id in ruleset.number_of if id == plain or id.startswith(f"{plain}@")]
    return max((coverage_of(ruleset).required_revision(id) for id in ids), default=0)


class _Search:
    """One question about one segment, in one snapshot."""

    def __init__(self, connection: Connection, ruleset: Ruleset, rule_id: str, as_of: int, points_max: int) -> None:
        self._connection = connection
        self._ruleset = coverage_of(ruleset).rules_for(rule_id)
        self._rule_id = rule_id
        self._meaning = ruleset.number_of[rule_id]
        self._needed = coverage_of(ruleset).required_revision(rule_id)
        self._as_of = as_of
        self._points_max = points_max

    async def members(self, after: bytes, items_max: int) -> tuple[list[bytes], bytes | None]:
        """Ids in order, and where to go on."""
        found: list[bytes] = []
        worked_out = 0
        while True:
            others = await self._others(after)
            horizon = others[-1].id if len(others) == _BATCH_CUSTOMERS else None
            wanted = items_max - len(found) + 1
            stored = await self._stored(after, horizon, others, wanted)
            if len(stored) == wanted:
                others = [row for row in others if row.id <= stored[-1]]
            members = sorted([*stored, *await self._among(others)])
            worked_out += len(others)
            found += members
            if len(found) > items_max:
                return found[:items_max], found[items_max - 1]
            if horizon is None:
                return found, None
            after = horizon
            if worked_out >= _WORKED_OUT_PER_PAGE or len(found) == items_max:
                return found, after

    async def count(self) -> int:
        total: int = await self._connection.fetchval(_COUNT_STORED, self._rule_id, self._as_of, self._meaning)
        after = _BEFORE_ALL
        while others := await self._others(after):
            ids = [row.id for row in others]
            total -= await self._connection.fetchval(_COUNT_STORED_OF, self._rule_id, self._as_of, ids, self._meaning)
            total += len(await self._among(others))
            after = ids[-1]
        return total

    async def describe(self, ids: Sequence[bytes]) -> list[Member]:
        """Since when, and until when, each of these members is one."""
        if not ids:
            return []
        rows = [StoredState(*row) for row in await self._connection.fetch(_ROWS, ids)]
        states = await self._states(rows)
        names = {row["customer_id"]: row for row in await self._connection.fetch(_IDENTITIES, ids)}
        return [
            Member(
                id,
                identities_in_order(names[id]["kinds"], names[id]["values"]),
                truth_of(states[id], self._ruleset, self._rule_id).since,
                await self._valid_until(id, states[id]),
            )
            for id in ids
        ]

    async def _valid_until(self, id: bytes, state: State) -> int | None:
        try:
            return valid_until(state, self._ruleset, self._points_max).get(self._rule_id)
        except NeedsReplay:
            row = StoredState(id, b"", None, self._needed, True)
            replayed = await states_at(self._connection, [row], self._ruleset, self._as_of, self._points_max)
            return valid_until(replayed[id], self._ruleset, POINTS_UNLIMITED).get(self._rule_id)

    async def _others(self, after: bytes) -> list[StoredState]:
        rows: list[Any] = await self._connection.fetch(_OTHERS, self._needed, self._as_of, after, _BATCH_CUSTOMERS)
        return [StoredState(*row) for row in rows]

    async def _stored(
        self, after: bytes, horizon: bytes | None, others: Sequence[StoredState], items_max: int
    ) -> list[bytes]:
        without = [row.id for row in others]
        rows = await self._connection.fetch(
            _STORED_MEMBERS, self._rule_id, self._as_of, after, horizon, without, items_max, self._meaning
        )
        return [row["customer_id"] for row in rows]

    async def _among(self, rows: Sequence[StoredState]) -> list[bytes]:
        states = await self._states(rows)
        return [id for id, state in states.items() if truth_of(state, self._ruleset, self._rule_id).holds]

    async def _states(self, rows: Sequence[StoredState]) -> dict[bytes, State]:
        return await states_at(self._connection, rows, self._ruleset, self._as_of, self._points_max)
