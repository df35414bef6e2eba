"""Stored intervals, read from the table ``transitions``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from app.postgres.pool import Connection
from app.projection.intervals import Interval
from app.projection.state import Cause

_STORED_INTERVALS = """
SELECT customer_id, definition, value, version, entered_at, entered_cause, left_at, left_cause, meaning
FROM transitions
WHERE customer_id = ANY($1::uuid[]) AND retracted_at IS NULL
"""

_INTERVALS_AFTER = """
-- The intervals of a customer that are open after an instant, or begin after it; index transitions_one_interval.
SELECT customer_id, definition, value, version, entered_at, entered_cause, left_at, left_cause, meaning
FROM transitions
WHERE customer_id = $1 AND retracted_at IS NULL
  AND ($2::timestamptz IS NULL OR left_at IS NULL OR left_at > $2 OR entered_at > $2)
"""

_decode_cause = msgspec.json.Decoder(Cause).decode


async def read_intervals(connection: Connection, customer_ids: Iterable[bytes]) -> list[Interval]:
    """Return the intervals of these customers that are not retracted."""
    return [interval_from_row(row) for row in await connection.fetch(_STORED_INTERVALS, list(customer_ids))]


async def read_intervals_after(connection: Connection, customer_id: bytes, after: int | None) -> list[Interval]:
    """Return the customer's intervals that are open after this instant or begin after it, and are not retracted.

    None selects all of them.
    """
    return [interval_from_row(row) for row in await connection.fetch(_INTERVALS_AFTER, customer_id, after)]


def interval_from_row(row: Iterable[Any]) -> Interval:
    """Convert a row of ``transitions`` with the columns of ``_STORED_INTERVALS``."""
    customer, definition, value, version, entered_at, entered_cause, left_at, left_cause, meaning = row
    return Interval(
        customer,
        definition,
        value,
        version,
        entered_at,
        _decode_cause(entered_cause),
        left_at,
        None if left_cause is None else _decode_cause(left_cause),
        meaning,
    )
