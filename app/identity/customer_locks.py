"""Customer locks: lock rows of customers until COMMIT, so that only one process at a time projects a customer.

Rows are always locked in id order. So two flushes that need the same customers wait for each other and never deadlock.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from app.postgres.pool import Connection


class CustomerRow(msgspec.Struct, gc=False):
    """A customer's row as locked for this flush."""

    id: bytes
    state: bytes
    flips_at: int | None
    sweep_at: int | None
    revision: int
    stale: bool
    contested: bool
    last_link_at: int


_LOCK_OF_IDENTITIES = """
-- The customers of these identities, locked in id order until COMMIT.
SELECT id, state, flips_at, sweep_at, revision, stale, contested, last_link_at
FROM customers
WHERE id = ANY (array(SELECT customer_id FROM identities WHERE id = ANY($1::uuid[])) || $2::uuid[])
ORDER BY id
FOR NO KEY UPDATE
"""

_ROWS = """
SELECT id, state, flips_at, sweep_at, revision, stale, contested, last_link_at
FROM customers WHERE id = ANY($1::uuid[]) ORDER BY id
"""


async def read_customers(connection: Connection, customer_ids: Sequence[bytes]) -> list[CustomerRow]:
    """Return the rows of these customers as they are now, without those that were merged."""
    return [CustomerRow(*row) for row in await connection.fetch(_ROWS, customer_ids)]


async def lock_customers(
    connection: Connection, customer_ids: Sequence[bytes], *, wait: bool = True
) -> list[CustomerRow]:
    """Return the same rows, locked until COMMIT; without ``wait``, rows that are locked already are left out."""
    lock_clause = "FOR NO KEY UPDATE" if wait else "FOR NO KEY UPDATE SKIP LOCKED"
    return [CustomerRow(*row) for row in await connection.fetch(f"{_ROWS} {lock_clause}", customer_ids)]


async def lock_customers_of(
    connection: Connection, identity_ids: Sequence[bytes], customer_ids: Sequence[bytes]
) -> list[CustomerRow]:
    """Lock the customers that these identities point to, and ``customer_ids``; return their rows."""
    rows = await connection.fetch(_LOCK_OF_IDENTITIES, identity_ids, customer_ids)
    return [CustomerRow(*row) for row in rows]
