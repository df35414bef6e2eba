"""Writes of a projection to the tables ``customers`` and ``transitions``, which no other module writes.

Each write is one statement for any number of customers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from app.identity.resolver import Resolution, ResolvedCustomer
from app.postgres.pool import Connection
from app.projection import checkpoints
from app.projection.fold import flips_at
from app.projection.intervals import IntervalWrites
from app.projection.older_points import follow_merges, move_older_points
from app.projection.state import Cause, State
from app.projection.state_limits import PointMoves
from app.registry.rule_numbers import find_retired_meaning, forget_retired_meaning

SWEEP_NOW: Final = 0
"""Value of ``sweep_at`` that is always due, so that the worker takes stale customers first."""


class ProjectedCustomer(msgspec.Struct):
    """A customer ready to be written."""

    customer: ResolvedCustomer
    state: State
    stored: bytes
    stale: bool
    revision: int
    """Highest rule number for which ``stored`` is complete."""
    points: PointMoves = msgspec.field(default_factory=PointMoves)
    stale_sweep_at: int = SWEEP_NOW
    """Instant from which the worker replays the customer, if it is stale."""


_encode_cause = msgspec.json.Encoder().encode

_MERGE_CUSTOMERS = """
-- Deletes the rows of merged customers. If a customer moves as a whole to a new id, its intervals move too.
WITH adopted AS (
    UPDATE transitions t SET customer_id = a.customer_id
    FROM unnest($1::uuid[], $2::uuid[]) AS a (former_id, customer_id)
    WHERE t.customer_id = a.former_id AND t.retracted_at IS NULL
)
DELETE FROM customers WHERE id = ANY($3::uuid[])
"""


async def merge_customers(connection: Connection, resolution: Resolution) -> None:
    """Delete the rows of merged customers, and move the intervals of customers that only get a new id."""
    adopted = [
        (customer.origins[0].id, customer.id)
        for customer in resolution.customers.values()
        if len(customer.origins) == 1 and customer.is_whole and customer.origins[0].id != customer.id
    ]
    if not (adopted or resolution.merged_customers):
        return
    await connection.execute(
        _MERGE_CUSTOMERS,
        [former_id for former_id, _ in adopted],
        [customer_id for _, customer_id in adopted],
        resolution.merged_customers,
    )
    await follow_merges(connection, adopted, resolution.merged_customers)
    await checkpoints.follow_merges(connection, adopted, resolution.merged_customers)


_WRITE_CUSTOMERS = """
-- Stores the states of a flush, and the intervals that begin, end or are retracted.
WITH begun AS (
    INSERT INTO transitions (customer_id, definition, value, version, entered_at, entered_cause, left_at, left_cause,
                             meaning, entered_recorded_at, left_recorded_at)
    SELECT customer_id, definition, value, version, entered_at, entered_cause, left_at, left_cause, meaning,
           $1::timestamptz, CASE WHEN left_at IS NOT NULL THEN $1::timestamptz END
    FROM unnest($2::uuid[], $3::text[], $4::text[], $5::int[], $6::timestamptz[], $7::jsonb[], $8::timestamptz[],
                $9::jsonb[], $27::bigint[])
         AS b (customer_id, definition, value, version, entered_at, entered_cause, left_at, left_cause, meaning)
),
ended AS (
    UPDATE transitions t
    SET entered_cause = coalesce(e.entered_cause, t.entered_cause), left_at = e.left_at, left_cause = e.left_cause,
        left_recorded_at = CASE WHEN e.left_at IS NOT NULL THEN $1::timestamptz END,
        retracted_at = CASE WHEN e.retracted THEN $1::timestamptz END
    FROM unnest($10::uuid[], $11::text[], $12::text[], $13::bigint[], $14::timestamptz[], $15::jsonb[],
                $16::timestamptz[], $17::jsonb[], $18::bool[])
         AS e (customer_id, definition, value, meaning, entered_at, entered_cause, left_at, left_cause, retracted)
    WHERE t.customer_id = e.customer_id AND t.definition = e.definition AND t.value = e.value
      AND t.meaning = e.meaning AND t.entered_at = e.entered_at AND t.retracted_at IS NULL
)
INSERT INTO customers AS c (id, state, flips_at, sweep_at, revision, stale, contested, last_link_at,
                            last_link_rank)
SELECT id, state, flips_at, sweep_at, revision, id = ANY($20::uuid[]), contested, last_link_at, last_link_rank
FROM unnest($21::uuid[], $22::bytea[], $23::timestamptz[], $24::timestamptz[], $25::bool[], $26::timestamptz[],
            $19::bigint[], $28::int[])
     AS u (id, state, flips_at, sweep_at, contested, last_link_at, revision, last_link_rank)
ON CONFLICT (id) DO UPDATE
SET state = excluded.state, flips_at = excluded.flips_at, sweep_at = excluded.sweep_at,
    revision = excluded.revision, stale = excluded.stale, contested = excluded.contested,
    last_link_at = excluded.last_link_at, last_link_rank = excluded.last_link_rank
"""


async def write_customers(
    connection: Connection, customers: Sequence[ProjectedCustomer], writes: IntervalWrites, now: int
) -> None:
    flip_times = [None if customer.stale else flips_at(customer.state) for customer in customers]
    begun = writes.begun
    ended = writes.ended + writes.retracted
    await connection.execute(
        _WRITE_CUSTOMERS,
        now,
        [interval.customer for interval in begun],
        [interval.definition for interval in begun],
        [interval.value for interval in begun],
        [interval.version for interval in begun],
        [interval.entered_at for interval in begun],
        [_encode_optional_cause(interval.entered_cause) for interval in begun],
        [interval.left_at for interval in begun],
        [_encode_optional_cause(interval.left_cause) for interval in begun],
        [interval.customer for interval in ended],
        [interval.definition for interval in ended],
        [interval.value for interval in ended],
        [interval.meaning for interval in ended],
        [interval.entered_at for interval in ended],
        [_encode_optional_cause(interval.entered_cause) for interval in ended],
        [interval.left_at for interval in ended],
        [_encode_optional_cause(interval.left_cause) for interval in ended],
        [place >= len(writes.ended) for place in range(len(ended))],
        [customer.revision for customer in customers],
        [customer.customer.id for customer in customers if customer.stale],
        [customer.customer.id for customer in customers],
        [customer.stored for customer in customers],
        flip_times,
        [next_sweep_at(customer, flip, now) for customer, flip in zip(customers, flip_times, strict=True)],
        [customer.customer.contested for customer in customers],
        [customer.customer.last_link[1] for customer in customers],
        [interval.meaning for interval in begun],
        [customer.customer.last_link[0] for customer in customers],
    )
    await move_older_points(connection, [(customer.customer.id, customer.points) for customer in customers])


def _encode_optional_cause(cause: Cause | None) -> bytes | None:
    return None if cause is None else _encode_cause(cause)


def next_sweep_at(projected: ProjectedCustomer, flips: int | None, now: int) -> int | None:
    """Return when the worker next sweeps the customer; the stored instant if it is early enough.

    PostgreSQL updates a row faster if no indexed column changes (a HOT update). In return, a sweep may find that
    nothing is due yet and only move the instant.
    """
    if projected.stale:
        return projected.stale_sweep_at
    stored_sweep_at = min(
        (row.sweep_at for row in projected.customer.origins if row.sweep_at is not None and row.sweep_at > now),
        default=None,
    )
    if flips is None:
        return stored_sweep_at
    return flips if stored_sweep_at is None or flips < stored_sweep_at else stored_sweep_at


_RETRACT = """
-- Retracts a batch of intervals of a meaning that its definition no longer has; indexes transitions_open and
-- transitions_ended.
WITH old AS (
    (SELECT customer_id, value, entered_at FROM transitions
     WHERE definition = $1 AND meaning = $2 AND retracted_at IS NULL AND left_at IS NULL LIMIT $3)
    UNION ALL
    (SELECT customer_id, value, entered_at FROM transitions
     WHERE definition = $1 AND meaning = $2 AND retracted_at IS NULL AND left_at IS NOT NULL LIMIT $3)
),
retracted AS (
    UPDATE transitions t SET retracted_at = $4
    FROM old o
    WHERE t.customer_id = o.customer_id AND t.definition = $1 AND t.value = o.value AND t.meaning = $2
      AND t.entered_at = o.entered_at AND t.retracted_at IS NULL
    RETURNING 1
)
SELECT count(*) FROM retracted
"""


async def retract_retired(connection: Connection, intervals_max: int, now: int) -> int:
    """Retract some intervals of a retired meaning; return their number, which is 0 if no such interval is left."""
    while (retired := await find_retired_meaning(connection)) is not None:
        count: int = await connection.fetchval(_RETRACT, *retired, intervals_max, now)
        if count:
            return count
        await forget_retired_meaning(connection, *retired)
    return 0


_SET_ASIDE = "UPDATE customers SET stale = true, sweep_at = $2 WHERE id = $1"


async def set_customer_aside(connection: Connection, id: bytes, retry_at: int) -> None:
    """Mark a customer as stale, so that reads replay the log, and let the worker try again at ``retry_at``."""
    # A checkpoint may be the cause of the failure, so the next attempt replays the whole log.
    await checkpoints.delete_checkpoints(connection, [(id, None)])
    await connection.execute(_SET_ASIDE, id, retry_at)
