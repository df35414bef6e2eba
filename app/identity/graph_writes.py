"""Writes of the identity graph. Owns the tables identities and links: no other module writes them."""

from __future__ import annotations

from collections.abc import Sequence

from app.identity.graph import IdentityNode, Link, MovedIdentity
from app.postgres.pool import Connection

_INSERT_IDENTITIES = """
-- Insert new identities. The provisional customer of an identity is the strongest identity of its message. If another
-- worker is inserting the same identity, this statement waits for that worker, in id order, and skips the identity.
INSERT INTO identities (id, kind, value, customer_id, carried)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::bool[])
ON CONFLICT (id) DO NOTHING
RETURNING id
"""

_WRITE_GRAPH = """
-- The links of a flush, and the customers that its identities belong to.
WITH linked AS (
    INSERT INTO links (weaker, stronger, kind, occurred_at, message_id, source, joined, vouched)
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::timestamptz[], $5::text[], $6::text[], $7::bool[],
                         $11::bool[])
    ON CONFLICT (weaker, stronger) DO UPDATE
    SET occurred_at = excluded.occurred_at, message_id = excluded.message_id, source = excluded.source,
        joined = excluded.joined, vouched = excluded.vouched
)
UPDATE identities i SET customer_id = m.customer_id, carried = m.carried
FROM unnest($8::uuid[], $9::uuid[], $10::bool[]) AS m (id, customer_id, carried)
WHERE i.id = m.id
"""

_MARK_UNDONE = "UPDATE links SET undone_at = $3 WHERE weaker = $1 AND stronger = $2 RETURNING weaker"


async def insert_identities(connection: Connection, nodes: Sequence[IdentityNode]) -> list[IdentityNode]:
    """Insert ``nodes``, which must be in id order; return those that did not exist before."""
    rows = await connection.fetch(
        _INSERT_IDENTITIES,
        [node.id for node in nodes],
        [node.identity.kind for node in nodes],
        [node.identity.value for node in nodes],
        [node.customer for node in nodes],
        [node.carried for node in nodes],
    )
    inserted = {row["id"] for row in rows}
    return [node for node in nodes if node.id in inserted]


async def write_graph(connection: Connection, links: Sequence[Link], moved: Sequence[MovedIdentity]) -> None:
    """Store new and changed links, and identities that moved to another customer, in at most one statement."""
    if not (links or moved):
        return
    await connection.execute(
        _WRITE_GRAPH,
        [link.weaker for link in links],
        [link.stronger for link in links],
        [link.kind for link in links],
        [link.order[1] for link in links],
        [link.order[2] for link in links],
        [link.order[3] for link in links],
        [link.joined for link in links],
        [identity.id for identity in moved],
        [identity.customer for identity in moved],
        [identity.carried for identity in moved],
        [link.vouched for link in links],
    )


async def mark_link_undone(connection: Connection, weaker: bytes, stronger: bytes, undone_at: int | None) -> bool:
    """Undo a link, or restore it if ``undone_at`` is None; return False if the link does not exist."""
    return await connection.fetchval(_MARK_UNDONE, weaker, stronger, undone_at) is not None
