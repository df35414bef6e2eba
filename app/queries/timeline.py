"""Timeline of a customer: the messages of all identities, and the links between the identities."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from app.errors import NotFound
from app.identity.carried_ids import decode_carried
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
    vouched: bool
    occurred_at: int
    message_id: str
    source: str
    undone_at: int | None

    @property
    def place(self) -> LinkPlace:
        return self.occurred_at, self.message_id, self.source, self.weaker.id, self.stronger.id


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
-- Links and conflicts of the customer's identities after a place and until an instant, oldest first.
SELECT w.kind, w.value, s.kind, s.value, l.kind, l.joined, l.vouched, l.occurred_at, l.message_id, l.source, l.undone_at
FROM (
    SELECT l.* FROM identities i JOIN links l ON l.weaker = i.id WHERE i.customer_id = $1
    UNION
    SELECT l.* FROM identities i JOIN links l ON l.stronger = i.id WHERE i.customer_id = $1
) AS l
JOIN identities w ON w.id = l.weaker
JOIN identities s ON s.id = l.stronger
WHERE (w.carried OR l.kind <> 'link')
  AND l.occurred_at <= $2
  AND (l.occurred_at, l.message_id COLLATE "C", l.source COLLATE "C", l.weaker, l.stronger)
      > ($3, $4 COLLATE "C", $5 COLLATE "C", $6, $7)
ORDER BY l.occurred_at, l.message_id COLLATE "C", l.source COLLATE "C", l.weaker, l.stronger
LIMIT $8
"""


LATEST_INSTANT: Final = 253_402_300_799_999_999
"""The last microsecond of the year 9999."""

TimelinePlace = tuple[int, str, str]
"""(occurred_at, message id, source) of the last entry of the previous page."""


LinkPlace = tuple[int, str, str, bytes, bytes]
"""(occurred_at, message id, source, weaker id, stronger id) of the last link of the previous page."""


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

    async def list_links(
        self, ids: list[bytes], until: int, after: LinkPlace | None, items_max: int
    ) -> tuple[bytes, list[LedgerLink]]:
        """Return the customer's id and up to ``items_max`` links after a place, oldest first.

        ``until`` is the latest instant of a link. Raise :class:`NotFound` if no identity has a customer.
        """
        async with snapshot(self._pool) as connection:
            customer = await find_customer_id(connection, ids)
            rows = await connection.fetch(_LINKS, customer, until, *(after or _BEFORE_LINKS), items_max)
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
    identities, _ = decode_carried(carried)
    return TimelineEntry(*columns, list(identities))  # type: ignore[call-arg]  # one value for each field


_LATEST: TimelinePlace = (LATEST_INSTANT, "", "")
"""Place after all messages that can be stored."""

_BEFORE_LINKS: LinkPlace = (0, "", "", bytes(16), bytes(16))
"""Place before all links: no message is earlier than 1970, and no message id is empty."""
