"""Redaction: what people wrote is taken out of the log, which is else never rewritten. What happened stays.

Nothing depends on that text: no rule can read ``context.private``, so no state has to be worked out anew.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from app.postgres.pool import Connection

PRIVATE: Final = "private"
"""Member of a message's context that holds free text of people."""

_LOG = """
-- index touchpoints_of_identity
WITH redacted AS (
    UPDATE touchpoints SET context = context - $2
    WHERE identity_id = ANY($1::uuid[]) AND context ? $2
    RETURNING 1
)
SELECT count(*) FROM redacted
"""

_QUARANTINE = """
-- Differing twins of the customer's messages: they hold the text as the tool wrote it, so they go as a whole.
WITH redacted AS (
    DELETE FROM quarantine q USING touchpoints t
    WHERE t.identity_id = ANY($1::uuid[]) AND q.source = t.source AND q.message_id = t.message_id
    RETURNING q.id
)
SELECT count(DISTINCT id) FROM redacted
"""

_IDENTITIES = "SELECT id FROM identities WHERE customer_id = $1"


class RedactionCounts(msgspec.Struct, frozen=True):
    """How many messages of the log lost their text, and how many of quarantine were deleted."""

    messages: int
    quarantined: int


async def redact_text(connection: Connection, customer: bytes) -> RedactionCounts:
    """Of all identities of a customer, in the caller's transaction."""
    identities: list[Any] = [row["id"] for row in await connection.fetch(_IDENTITIES, customer)]
    messages = await connection.fetchval(_LOG, identities, PRIVATE)
    return RedactionCounts(messages, await connection.fetchval(_QUARANTINE, identities))
