"""Timeline of a customer: the messages of all identities, and the links between the identities."""

from __future__ import annotations

from typing import Any

import msgspec

from app.errors import NotFound
from app.postgres.pool import Connection, Pool, snapshot
from app.touchpoint import Identity


class TimelineEntry(msgspec.Struct):
    """One message of the log; its JSON columns are not decoded."""

    type: str
    message_id: str
    source: str
    occurred_at: int
    received_at: int
    sent_at: int | None
    original_timestamp: str | None
    name: str | None
    channel: str
    properties: bytes
    context: bytes
    traits: bytes | None
    identities: list[Identity]


class LedgerLink(msgspec.Struct):
    weaker: Identity
    stronger: Identity
    kind: str
    joined: bool
    occurred_at: int
    message_id: str
    source: str
    undone_at: int | None


_CUSTOMER_ID = """
SELECT customer_id FROM unnest($1::uuid[]) WITH ORDINALITY AS requested (id, place) JOIN identities USING (id)
WHERE customer_id IS NOT NULL ORDER BY place LIMIT 1
"""

_TIMELINE = """
-- Messages of all identities of the customer before a place, newest first; index touchpoints_of_identity.
SELECT t.type, t.message_id, t.source, t.occurred_at, t.received_at, t.sent_at, t.original_timestamp, t.name,
       t.channel, t.properties, t.context, t.traits, t.carried
FROM identities i
JOIN touchpoints t ON t.identity_id = i.id
WHERE i.customer_id = $1
  AND (t.occurred_at, t.message_id COLLATE "C", t.source COLLATE "C") < ($2, $3 COLLATE "C", $4 COLLATE "C")
ORDER BY t.occurred_at DESC, t.message_id COLLATE "C" DESC, t.source COLLATE "C" DESC
LIMIT $5
"""

_LINKS = """
-- Links and conflicts of the customer's identities.
SELECT w.kind, w.value, s.kind, s.value, l.kind, l.joined, l.occurred_at, l.message_id, l.source, l.undone_at
FROM (
    SELECT l.* FROM identities i JOIN links l ON l.weaker = i.id WHERE i.customer_id = $1
    UNION
    SELECT l.* FROM identities i JOIN links l ON l.stronger = i.id WHERE i.customer_id = $1
) AS l
JOIN identities w ON w.id = l.weaker
JOIN identities s ON s.id = l.stronger
WHERE w.carried OR l.kind <> 'link'
ORDER BY l.occurred_at, l.message_id COLLATE "C", l.source COLLATE "C", l.weaker, l.stronger
"""

_decode_pairs = msgspec.json.Decoder(list[tuple[str, str]]).decode

TimelinePlace = tuple[int, str, str]
"""(occurred_at, message id, source) of the last entry of the previous page."""


def cursor_at(instant: int) -> TimelinePlace:
    """Return the place after all messages of that instant and before all later ones."""
    return instant + 1, "", ""


class TimelineQueries:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def list_touchpoints(
        self, ids: list[bytes], before: TimelinePlace | None, items_max: int
    ) -> list[TimelineEntry]:
        """Return up to ``items_max`` messages before a place, newest first.

        Raise :class:`NotFound` if no identity has a customer.
        """
        async with snapshot(self._pool) as connection:
            customer = await find_customer_id(connection, ids)
            rows = await connection.fetch(_TIMELINE, customer, *(before or _LATEST), items_max)
        return [_entry_from_row(row) for row in rows]

    async def list_links(self, ids: list[bytes]) -> tuple[bytes, list[LedgerLink]]:
        """Return the customer's id and its links. Raise :class:`NotFound` if no identity has a customer."""
        async with snapshot(self._pool) as connection:
            customer = await find_customer_id(connection, ids)
            rows = await connection.fetch(_LINKS, customer)
        return customer, [LedgerLink(Identity(*row[0:2]), Identity(*row[2:4]), *row[4:]) for row in rows]


async def find_customer_id(connection: Connection, ids: list[bytes]) -> bytes:
    """Return the customer of the first identity that has one. Raise :class:`NotFound` if no identity has one.

    Call it in the snapshot that reads the customer, because a merge between the two reads could remove the customer.
    """
    customer_id: bytes | None = await connection.fetchval(_CUSTOMER_ID, ids)
    if customer_id is None:
        raise NotFound("No customer has this identity.")
    return customer_id


def _entry_from_row(row: Any) -> TimelineEntry:
    *columns, carried = row
    pairs = _decode_pairs(carried)
    identities = [Identity(kind, value) for kind, value in pairs if kind != "previous_id"]
    return TimelineEntry(*columns, identities)  # type: ignore[call-arg]  # one value for each field


_LATEST: TimelinePlace = (253_402_300_799_999_999, "", "")
"""Place after all messages that can be stored: the last instant of the year 9999."""
