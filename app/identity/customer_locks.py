"""Customer locks: lock rows of customers until COMMIT, so that only one process at a time projects a customer.

Rows are always locked in id order. So two flushes that need the same customers wait for each other and never deadlock.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from app.postgres.pool import Connection


class CustomerRow(msgspec.Struct, gc=False):
    """The row of one customer, as it was read or locked."""

    id: bytes
    state: bytes
    flips_at: int | None
    sweep_at: int | None
    revision: int
    stale: bool
    contested: bool
    last_link_at: int
    last_link_rank: int

    @property
    def last_link(self) -> tuple[int, int]:
        return (self.last_link_rank, self.last_link_at)


_LOCK_OF_IDENTITIES = """
-- The customers of these identities, locked in id order until COMMIT.
SELECT id, state, flips_at, sweep_at, revision, stale, contested, last_link_at, last_link_rank
FROM customers
WHERE id = ANY (array(SELECT customer_id FROM identities WHERE id = ANY($1::uuid[])) || $2::uuid[])
ORDER BY id
FOR NO KEY UPDATE
"""

_ROWS = """
SELECT id, state, flips_at, sweep_at, revision, stale, contested, last_link_at, last_link_rank
FROM customers WHERE id = ANY($1::uuid[]) ORDER BY id
"""


async def read_customers(connection: Connection, customer_ids: Sequence[bytes]) -> list[CustomerRow]:
    """Return the current rows of these customers. A customer that was merged into another one is left out."""
    return [CustomerRow(*row) for row in await connection.fetch(_ROWS, customer_ids)]


async def lock_customers(
    connection: Connection, customer_ids: Sequence[bytes], *, wait: bool = True
) -> list[CustomerRow]:
    """Lock the rows of these customers until COMMIT, and return them.

    If ``wait`` is False, leave out rows that another transaction has locked.
    """
    lock_clause = "FOR NO KEY UPDATE" if wait else "FOR NO KEY UPDATE SKIP LOCKED"
    return [CustomerRow(*row) for row in await connection.fetch(f"{_ROWS} {lock_clause}", customer_ids)]


async def lock_customers_of(
    connection: Connection, identity_ids: Sequence[bytes], customer_ids: Sequence[bytes]
) -> list[CustomerRow]:
    """Lock the customers of these identities, and those in ``customer_ids``; return their rows."""
    rows = await connection.fetch(_LOCK_OF_IDENTITIES, identity_ids, customer_ids)
    return [CustomerRow(*row) for row in rows]
