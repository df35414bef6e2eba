"""Tickets of a customer, computed from the log for each request."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from app.formats import timestamps
from app.insight.tickets import Ticket, TicketEvent, TicketTimeline, TicketTotals
from app.postgres.pool import Pool, snapshot
from app.queries.timeline import find_customer_id
from app.vocabulary.ticket_events import NAMES

TOUCHPOINTS_MAX: Final = 50_000
"""Maximum number of ticket touchpoints that are read for one customer: the latest."""

ID_CHARS_MAX: Final = 255

_CHUNK_ROWS: Final = 500

_TICKET_TOUCHPOINTS = """
-- The latest ticket touchpoints up to an instant, oldest first, over all identities; index touchpoints_of_identity. A
-- value of an unexpected type becomes null or JSON text.
SELECT occurred_at, message_id, source, name, ticket_id, status, rating, opened_at
FROM (
    SELECT t.occurred_at, t.message_id, t.source, t.name, t.properties ->> 'ticket_id' AS ticket_id,
           t.properties ->> 'status' AS status, t.properties ->> 'rating' AS rating,
           t.properties ->> 'opened_at' AS opened_at
    FROM identities i
    JOIN touchpoints t ON t.identity_id = i.id
    WHERE i.customer_id = $1 AND t.name = ANY($2) AND t.occurred_at <= $3
    ORDER BY t.occurred_at DESC, t.message_id COLLATE "C" DESC, t.source COLLATE "C" DESC
    LIMIT $4
) AS latest
ORDER BY occurred_at, message_id COLLATE "C", source COLLATE "C"
"""


class TicketList(msgspec.Struct):
    """Tickets, newest first, with totals of all tickets. If ``since`` is set, older touchpoints were not read."""

    customer: bytes
    tickets: list[Ticket]
    totals: TicketTotals
    since: int | None


class TicketQueries:
    def __init__(self, pool: Pool, touchpoints_max: int = TOUCHPOINTS_MAX) -> None:
        self._pool = pool
        self._touchpoints_max = touchpoints_max

    async def list_tickets(self, ids: list[bytes], now: int) -> TicketList:
        """Return the tickets as of ``now``. Raise :class:`NotFound` if no identity has a customer."""
        timeline = TicketTimeline()
        rows, since = 0, None
        async with snapshot(self._pool) as connection:
            customer = await find_customer_id(connection, ids)
            arguments = customer, NAMES, now, self._touchpoints_max
            async for row in connection.cursor(_TICKET_TOUCHPOINTS, *arguments, prefetch=_CHUNK_ROWS):
                since = row["occurred_at"] if rows == 0 else since
                rows += 1
                timeline.apply(_ticket_event_from_row(row))
        return TicketList(
            customer, timeline.newest(), timeline.totals(), since if rows == self._touchpoints_max else None
        )


def _ticket_event_from_row(row: Any) -> TicketEvent:
    occurred_at, message_id, source, name, ticket_id, status, rating, opened_at = row
    return TicketEvent(
        order=(occurred_at, message_id, source),
        name=name,
        ticket_id=ticket_id[:ID_CHARS_MAX] if ticket_id else None,
        status=status[:ID_CHARS_MAX] if status else None,
        rating=_parse_rating(rating),
        opened_at=timestamps.parse(opened_at) if opened_at else None,
    )


def _parse_rating(text: str | None) -> Decimal | None:
    try:
        rating = Decimal(text or "")
    except InvalidOperation:
        return None
    return rating if rating.is_finite() and abs(rating.adjusted()) < 30 else None
