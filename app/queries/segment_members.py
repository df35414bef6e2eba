"""Members of a segment as of an instant, and their number, which always equals the length of the list.

For customers that are up to date, stored intervals are read. All others (not backfilled, due or stale) are computed
from their states or logs in bounded batches. So the list and the number are exact even during a backfill.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from app.config import Settings
from app.errors import NotFound
from app.postgres.pool import Connection, Pool, snapshot
from app.projection.coverage import Coverage
from app.projection.fold import POINTS_UNLIMITED
from app.projection.state import State
from app.queries.customer_state import StoredState, sort_identities, states_at, truth_of, valid_until
from app.queries.replay_limit import check_replay_length
from app.registry.registry import Registry
from app.rules.engine.ruleset import Ruleset
from app.rules.engine.series import NeedsReplay
from app.touchpoint import SECOND, Identity

_BATCH_CUSTOMERS: Final = 500
_RECOMPUTED_PER_PAGE_MAX: Final = 2_000
"""Maximum number of customers computed for one page. A page of a rare segment may be short, because a request must not
compute all customers."""

_FIRST_ID: Final = bytes(16)


class Member(msgspec.Struct):
    id: bytes
    identities: list[Identity]
    since: int
    valid_until: int | None


class MemberPage(msgspec.Struct):
    """One page of members. ``after`` is the customer id after which the next page begins; None on the last page."""

    items: list[Member]
    after: bytes | None


class FillProgress(msgspec.Struct, frozen=True):
    """Progress of the backfill of one definition or of all, with its speed and the remaining time.

    Speed and remaining time are None until the worker has measured them, and after the backfill.
    """

    customers_total: int
    customers_filled: int
    touchpoints_per_second: float | None = None
    eta_seconds: float | None = None
    since: int | None = None
    """Instant at which the definition got the meaning that is being backfilled."""


_OUTDATED = """
-- Customers whose stored intervals may be outdated as of $2, by id; indexes customers_to_fill and customers_due.
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
-- Customers with an interval that is open as of $2; indexes transitions_open and transitions_ended.
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

_COUNT_STORED_OF_OUTDATED = """
-- Number of members according to stored intervals among the outdated customers, which are computed instead.
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
-- Customer rows that lack a rule up to number $1; index customers_to_fill.
SELECT count(*) FROM customers WHERE revision < $1
"""

_CUSTOMERS = "SELECT count(*) FROM customers"

_SPEED = """
-- Progress of the backfill that includes rule $1, the period in which it was made, and when $1 was introduced.
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
        self._messages_max = settings.read_messages_max

    async def list_members(self, segment: str, as_of: int, after: bytes | None, items_max: int) -> MemberPage:
        """Return a page of members in the order of their ids. Raise :class:`NotFound` if the segment is not defined."""
        async with snapshot(self._pool) as connection:
            ruleset = await self._ruleset(connection, segment)
            query = self._query(connection, ruleset, segment, as_of)
            ids, next_after = await query.find_member_ids(after or _FIRST_ID, items_max)
            return MemberPage(await query.describe_members(ids), next_after)

    async def count_members(self, segment: str, as_of: int) -> int:
        """Return the number of members. Raise :class:`NotFound` if the segment is not defined."""
        async with snapshot(self._pool) as connection:
            ruleset = await self._ruleset(connection, segment)
            return await self._query(connection, ruleset, segment, as_of).count_members()

    def _query(self, connection: Connection, ruleset: Ruleset, segment: str, as_of: int) -> _SegmentQuery:
        rule_id = f"segment:{segment}"
        return _SegmentQuery(connection, ruleset, rule_id, as_of, self._points_max, self._messages_max)

    async def read_fill_progress(self, kind: str | None = None, key: str | None = None) -> FillProgress:
        """Return the progress of one definition, or of its candidate if one exists; of all if ``kind`` is None."""
        async with snapshot(self._pool) as connection:
            ruleset = await self._registry.rules.read(connection)
            target = _target_revision(ruleset, kind, key)
            total: int = await connection.fetchval(_CUSTOMERS)
            left: int = await connection.fetchval(_UNFILLED, target)
            rows = await connection.fetch(_SPEED, target)
        since, customers, touchpoints, updated_at, begun_at = rows[0]
        if not left or not customers or updated_at == begun_at:
            return FillProgress(total, total - left, since=since)
        seconds = (updated_at - begun_at) / SECOND
        return FillProgress(total, total - left, touchpoints / seconds, left * seconds / customers, since)

    async def count_unfilled(self) -> int:
        """Return the number of customers that lack a definition, including candidates."""
        count: int = await self._pool.fetchval(_UNFILLED, self._registry.rules.current.fill)
        return count

    async def _ruleset(self, connection: Connection, segment: str) -> Ruleset:
        ruleset = await self._registry.rules.read(connection)
        if all(definition.key != segment for definition in ruleset.segments):
            raise NotFound(f"The segment {segment} does not exist.")
        return ruleset


def _target_revision(ruleset: Ruleset, kind: str | None, key: str | None) -> int:
    """Return the minimum revision of a customer row that contains the definition, or all if ``kind`` is None."""
    if kind is None:
        return ruleset.fill
    current_id = f"{kind}:{key}"
    ids = [id for id in ruleset.number_of if id == current_id or id.startswith(f"{current_id}@")]
    return max((Coverage(ruleset).required_revision(id) for id in ids), default=0)


class _SegmentQuery:
    """One query about one segment, in one snapshot.

    It raises :class:`app.queries.replay_limit.HeavyRead` if it would replay more than ``messages_max`` messages in one
    batch, or compute more customers than this number.
    """

    def __init__(
        self,
        connection: Connection,
        ruleset: Ruleset,
        rule_id: str,
        as_of: int,
        points_max: int,
        messages_max: int,
    ) -> None:
        self._connection = connection
        self._ruleset = Coverage(ruleset).rules_for(rule_id)
        self._rule_id = rule_id
        self._meaning = ruleset.number_of[rule_id]
        self._needed = Coverage(ruleset).required_revision(rule_id)
        self._as_of = as_of
        self._points_max = points_max
        self._messages_max = messages_max
        self._messages_left = messages_max
        """Each computed customer counts as one message, so a query over short histories reaches the limit too."""

    async def find_member_ids(self, after: bytes, items_max: int) -> tuple[list[bytes], bytes | None]:
        """Return the ids of members in order, and the id after which the next page begins, or None."""
        member_ids: list[bytes] = []
        recomputed = 0
        while True:
            outdated = await self._read_outdated(after)
            horizon = outdated[-1].id if len(outdated) == _BATCH_CUSTOMERS else None
            stored_max = items_max - len(member_ids) + 1
            stored = await self._read_stored_members(after, horizon, outdated, stored_max)
            if len(stored) == stored_max:
                outdated = [row for row in outdated if row.id <= stored[-1]]
            members = sorted([*stored, *await self._filter_members(outdated)])
            recomputed += len(outdated)
            member_ids += members
            if len(member_ids) > items_max:
                return member_ids[:items_max], member_ids[items_max - 1]
            if horizon is None:
                return member_ids, None
            after = horizon
            if recomputed >= _RECOMPUTED_PER_PAGE_MAX or len(member_ids) == items_max:
                return member_ids, after

    async def count_members(self) -> int:
        total: int = await self._connection.fetchval(_COUNT_STORED, self._rule_id, self._as_of, self._meaning)
        after = _FIRST_ID
        while outdated := await self._read_outdated(after):
            ids = [row.id for row in outdated]
            total -= await self._connection.fetchval(
                _COUNT_STORED_OF_OUTDATED, self._rule_id, self._as_of, ids, self._meaning
            )
            total += len(await self._filter_members(outdated))
            after = ids[-1]
        return total

    async def describe_members(self, ids: Sequence[bytes]) -> list[Member]:
        """Return these members with the start and the end of their membership."""
        if not ids:
            return []
        rows = [StoredState(*row) for row in await self._connection.fetch(_ROWS, ids)]
        rows_by_id = {row.id: row for row in rows}
        states = await self._read_states(rows)
        identities = {row["customer_id"]: row for row in await self._connection.fetch(_IDENTITIES, ids)}
        return [
            Member(
                id,
                sort_identities(identities[id]["kinds"], identities[id]["values"]),
                truth_of(states[id], self._ruleset, self._rule_id).since,
                await self._valid_until(rows_by_id[id], states[id]),
            )
            for id in ids
        ]

    async def _valid_until(self, row: StoredState, state: State) -> int | None:
        try:
            return valid_until(state, self._ruleset, self._points_max).get(self._rule_id)
        except NeedsReplay:
            replayed = await self._read_states([msgspec.structs.replace(row, stale=True)])
            return valid_until(replayed[row.id], self._ruleset, POINTS_UNLIMITED).get(self._rule_id)

    async def _read_outdated(self, after: bytes) -> list[StoredState]:
        rows: list[Any] = await self._connection.fetch(_OUTDATED, self._needed, self._as_of, after, _BATCH_CUSTOMERS)
        outdated = [StoredState(*row) for row in rows]
        check_replay_length([row.state for row in outdated], self._messages_left)
        self._messages_left -= len(outdated)
        return outdated

    async def _read_stored_members(
        self, after: bytes, horizon: bytes | None, outdated: Sequence[StoredState], items_max: int
    ) -> list[bytes]:
        outdated_ids = [row.id for row in outdated]
        rows = await self._connection.fetch(
            _STORED_MEMBERS, self._rule_id, self._as_of, after, horizon, outdated_ids, items_max, self._meaning
        )
        return [row["customer_id"] for row in rows]

    async def _filter_members(self, rows: Sequence[StoredState]) -> list[bytes]:
        states = await self._read_states(rows)
        return [id for id, state in states.items() if truth_of(state, self._ruleset, self._rule_id).holds]

    async def _read_states(self, rows: Sequence[StoredState]) -> dict[bytes, State]:
        return await states_at(
            self._connection, rows, self._ruleset, self._as_of, self._points_max, messages_max=self._messages_max
        )
