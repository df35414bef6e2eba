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

_decode_cause = msgspec.json.Decoder(Cause).decode


async def read_intervals(connection: Connection, customer_ids: Iterable[bytes]) -> list[Interval]:
    """Return the intervals of these customers that are not retracted."""
    return [interval_from_row(row) for row in await connection.fetch(_STORED_INTERVALS, list(customer_ids))]


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
