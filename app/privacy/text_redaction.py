"""Redaction: what people wrote is taken out of the log, which is else never rewritten. What happened stays.

Nothing depends on that text: no rule can read ``context.private``, so no state has to be worked out anew.
"""

from __future__ import annotations

from typing import Final

import msgspec

from app.ingest.event_log import redact_context
from app.postgres.pool import Connection

PRIVATE: Final = "private"
"""Member of a message's context that holds free text of people."""

_IDENTITIES = "SELECT id FROM identities WHERE customer_id = $1"


class RedactionCounts(msgspec.Struct, frozen=True):
    """How many messages of the log lost their text, and how many of quarantine were deleted."""

    messages: int
    quarantined: int


async def redact_text(connection: Connection, customer: bytes) -> RedactionCounts:
    """Redact the messages of all identities of a customer, in the caller's transaction."""
    identities = [row["id"] for row in await connection.fetch(_IDENTITIES, customer)]
    return RedactionCounts(*await redact_context(connection, identities, PRIVATE))
