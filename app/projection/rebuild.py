"""Rebuild: replays every customer from the log, and counts customers whose stored state differed from the replay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from app.config import Settings
from app.errors import NotFound
from app.formats.identifiers import parse_customer_reference
from app.identity.customer_locks import CustomerRow, lock_customers
from app.postgres.pool import Clock, Connection, Pool, transact
from app.projection.older_points import fold_stored_state
from app.projection.project import replay_whole_logs
from app.projection.state import State, read_state
from app.projection.state_limits import limit_replayed_state
from app.projection.time_slices import TimeSlices
from app.rules.engine.ruleset import Ruleset
from app.rules.engine.series import NeedsReplay

_CHUNK_CUSTOMERS: Final = 200
_FIRST: Final = bytes(16)

_COUNT = "SELECT count(*) FROM customers"
_NEXT = "SELECT id FROM customers WHERE id > $1 ORDER BY id LIMIT $2"
_OF_IDENTITY = "SELECT customer_id FROM identities WHERE id = ANY($1::uuid[]) AND customer_id IS NOT NULL"


async def rebuild_customers(
    pool: Pool,
    ruleset: Ruleset,
    clock: Clock,
    settings: Settings,
    customer: str | None = None,
    advance: Callable[[int, int], None] | None = None,
) -> int:
    """Replay all customers, or only ``customer``; return the number of stored states that differed from the log.

    ``advance`` is called with the number of customers done and the total. Raise NotFound if ``customer`` is unknown.
    """
    if customer is not None:
        async with pool.acquire() as connection:
            candidates = [identity.id for identity in parse_customer_reference(customer, settings)]
            ids = [row["customer_id"] for row in await connection.fetch(_OF_IDENTITY, candidates)]
        if not ids:
            raise NotFound(f"Customer {customer} does not exist.")
        return await _rebuild(pool, ids[:1], ruleset, clock, settings)
    async with pool.acquire() as connection:
        total = await connection.fetchval(_COUNT)
    customers_differing = customers_done = 0
    last_id = _FIRST
    while True:
        async with pool.acquire() as connection:
            ids = [row["id"] for row in await connection.fetch(_NEXT, last_id, _CHUNK_CUSTOMERS)]
        if not ids:
            return customers_differing
        customers_differing += await _rebuild(pool, ids, ruleset, clock, settings)
        customers_done += len(ids)
        last_id = ids[-1]
        if advance is not None:
            advance(customers_done, max(customers_done, total))


async def _rebuild(pool: Pool, ids: Sequence[bytes], ruleset: Ruleset, clock: Clock, settings: Settings) -> int:
    async def work(connection: Connection) -> int:
        now = clock.now()
        rows_before = {row.id: row for row in await lock_customers(connection, ids)}
        advanced = {
            id: await _advance(connection, row, ruleset, now, settings)
            for id, row in rows_before.items()
            if not row.stale and row.revision >= ruleset.fill
        }
        await replay_whole_logs(connection, list(rows_before), ruleset, now, settings)
        rows_after = {row.id: row for row in await lock_customers(connection, ids)}
        return sum(advanced[id] != comparable(read_state(rows_after[id].state, ruleset), ruleset) for id in advanced)

    return await transact(pool, work)


async def _advance(connection: Connection, row: CustomerRow, ruleset: Ruleset, now: int, settings: Settings) -> State:
    """Return the stored state, folded to ``now``; unchanged if a read would replay the customer anyway."""
    try:
        state, _ = await fold_stored_state(
            connection, row.id, row.state, ruleset, (), now, settings.series_points_max, TimeSlices(), rewinds=True
        )
        limit_replayed_state(state, ruleset, settings.series_points_max)
    except NeedsReplay:
        state = read_state(row.state, ruleset)
    return comparable(state, ruleset)


def comparable(state: State, ruleset: Ruleset) -> State:
    """Return the state without details that depend on how it was computed.

    These are the instant of the last evaluation, truths that have been false since the first message, the order of
    leaves, and data that only archived definitions needed.
    """
    state.at = 0
    state.searches = {}
    state.pending = [msgspec.structs.replace(input, leaves=tuple(sorted(input.leaves))) for input in state.pending]
    state.truths = {rule: truth for rule, truth in state.truths.items() if truth.since != state.born or truth.holds}
    state.series = {leaf: ruleset.leaves[leaf].prune_series(series) for leaf, series in state.series.items()}
    state.windows, state.older_points, state.next_due, state.evaluations = {}, {}, None, 0
    return state
