"""Bucketing keys for rules that select a random share of customers.

The key of a customer is its strongest identity, and among equally strong ones the earliest. It depends only on the set
of stored messages, not on their order of arrival. It is read from the database only if a rule uses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.postgres.pool import Connection
from app.touchpoint import Identity

BucketingKey = tuple[str, str]
"""(kind, value)"""

_IDENTITIES = """
SELECT customer_id, id, kind, value FROM identities WHERE customer_id = ANY($1::uuid[]) AND carried
"""

_IDENTITIES_BY_ID = "SELECT id, kind, value FROM identities WHERE id = ANY($1::uuid[]) AND carried"

_EARLIEST = """
-- For each identity, the first message whose strongest identity it is; index touchpoints_of_identity.
SELECT i.id, t.occurred_at, t.message_id, t.source
FROM unnest($1::uuid[]) AS i (id)
CROSS JOIN LATERAL (
    SELECT occurred_at, message_id, source FROM touchpoints
    WHERE identity_id = i.id ORDER BY occurred_at, message_id COLLATE "C", source COLLATE "C" LIMIT 1
) AS t
"""


async def bucketing_keys_of(connection: Connection, customer_ids: Sequence[bytes]) -> dict[bytes, BucketingKey]:
    """Return the bucketing keys by customer id.

    A second statement runs only if a customer has several identities of its strongest kind.
    """
    return await _select_keys(connection, await connection.fetch(_IDENTITIES, customer_ids))


async def bucketing_key_of(connection: Connection, identity_ids: Sequence[bytes]) -> BucketingKey | None:
    """Return the bucketing key of a customer that would have these identities only."""
    rows = await connection.fetch(_IDENTITIES_BY_ID, identity_ids)
    return (await _select_keys(connection, [(b"", *row) for row in rows])).get(b"")


async def _select_keys(connection: Connection, rows: Sequence[Any]) -> dict[bytes, BucketingKey]:
    """Return the bucketing key of each customer. Each row has (customer id, identity id, kind, value)."""
    strongest: dict[bytes, list[tuple[bytes, Identity]]] = {}
    for customer_id, id, kind, value in rows:
        identity = Identity(kind, value)
        candidates = strongest.setdefault(customer_id, [])
        if candidates and candidates[0][1].strength > identity.strength:
            candidates.clear()
        if not candidates or candidates[0][1].strength == identity.strength:
            candidates.append((id, identity))
    tied_ids = [id for candidates in strongest.values() if len(candidates) > 1 for id, _ in candidates]
    first_messages = {}
    if tied_ids:
        first_messages = {row["id"]: tuple(row)[1:] for row in await connection.fetch(_EARLIEST, tied_ids)}
    keys = {}
    for customer_id, candidates in strongest.items():
        _, identity = min(
            candidates, key=lambda pair: (pair[0] not in first_messages, first_messages.get(pair[0], ()), pair[1])
        )
        keys[customer_id] = (identity.kind, identity.value)
    return keys
