"""Redaction: removes customers' free text from the event log, and keeps the events themselves.

It is the only operation that rewrites the log. No state must be recomputed, because no rule can read
``context.private``.
"""

from __future__ import annotations

from typing import Final

import msgspec

from app.ingest.event_log import redact_context
from app.postgres.pool import Connection

PRIVATE: Final = "private"
"""Field of a message's context that contains free text of a customer."""

_IDENTITIES = "SELECT id FROM identities WHERE customer_id = $1"


class RedactionCounts(msgspec.Struct, frozen=True):
    """Number of redacted messages in the log, and number of deleted quarantine rows."""

    messages: int
    quarantined: int


async def redact_text(connection: Connection, customer: bytes) -> RedactionCounts:
    """Remove the free text of a customer from all messages, inside the caller's transaction."""
    identities = [row["id"] for row in await connection.fetch(_IDENTITIES, customer)]
    return RedactionCounts(*await redact_context(connection, identities, PRIVATE))
