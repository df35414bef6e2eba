"""Statements of the event log: append, deduplicate, quarantine, defer and redact messages.

Owns the tables ledger, touchpoints, quarantine and deferred: no other module writes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import asyncpg
import msgspec

from app.identity.carried_ids import PREVIOUS_ID, TRUST, VOUCHED_ID, decode_carried, encode_carried
from app.postgres.pool import Connection, Pool
from app.touchpoint import Message, Trust

CONFLICTING_TWIN: Final = "conflicting_twin"
"""Quarantine code of a duplicate whose content differs from the stored message; the stored message stays."""


class QuarantineRow(msgspec.Struct, frozen=True):
    """One row of the quarantine. ``original`` is the message as sent.

    ``form`` is the code of its format, which :mod:`app.quarantine.reparse` describes.
    """

    source: str
    received_at: int
    code: str
    reason: str
    message_id: str | None
    original: bytes
    form: str = ""
    trust: Trust = "public"


_APPEND = """
-- The dedupe ledger decides which messages are new; only those enter the log. Rejected ones go to quarantine.
WITH incoming AS (
    SELECT * FROM unnest($1::uuid[], $2::bytea[], $3::timestamptz[], $4::timestamptz[], $5::uuid[], $6::text[],
                         $7::text[], $8::text[], $9::text[], $10::text[], $11::jsonb[], $12::jsonb[], $13::jsonb[],
                         $14::jsonb[], $15::timestamptz[], $16::text[])
         AS m (key, digest, received_at, occurred_at, identity_id, type, name, channel, source, message_id,
               properties, context, traits, carried, sent_at, original_timestamp)
),
fresh AS (
    INSERT INTO ledger (key, digest, received_at)
    SELECT key, digest, received_at FROM incoming
    ON CONFLICT (key) DO NOTHING
    RETURNING key
),
logged AS (
    INSERT INTO touchpoints (received_at, occurred_at, identity_id, type, name, channel, source, message_id,
                             properties, context, traits, carried, sent_at, original_timestamp)
    SELECT received_at, occurred_at, identity_id, type, name, channel, source, message_id,
           properties, context, traits, carried, sent_at, original_timestamp
    FROM incoming JOIN fresh USING (key)
),
refused AS (
    INSERT INTO quarantine (source, received_at, code, message, message_id, original, form, trust)
    SELECT * FROM unnest($17::text[], $18::timestamptz[], $19::text[], $20::text[], $21::text[], $22::bytea[],
                         $23::text[], $24::text[])
)
SELECT (SELECT value FROM revisions WHERE name = 'definitions') AS revision, array(SELECT key FROM fresh) AS fresh
"""

_encode = msgspec.json.Encoder().encode


async def append_messages(
    connection: Connection,
    keys: Sequence[bytes],
    messages: Sequence[Message],
    rejected_rows: Sequence[QuarantineRow] = (),
) -> tuple[int, set[bytes]]:
    """Store new messages and quarantine rows. Return the revision of the definitions, and the new messages' keys.

    ``keys`` are the dedupe keys of ``messages``, in the same order.
    """
    row = await connection.fetchrow(
        _APPEND,
        keys,
        [message.digest for message in messages],
        [message.received_at for message in messages],
        [message.occurred_at for message in messages],
        [message.identities[0].id for message in messages],
        [message.type for message in messages],
        [message.name for message in messages],
        [message.channel for message in messages],
        [message.source for message in messages],
        [message.message_id for message in messages],
        [message.properties for message in messages],
        [message.context for message in messages],
        [message.traits for message in messages],
        [encode_carried(message) for message in messages],
        [message.sent_at for message in messages],
        [message.original_timestamp for message in messages],
        [row.source for row in rejected_rows],
        [row.received_at for row in rejected_rows],
        [row.code for row in rejected_rows],
        [row.reason for row in rejected_rows],
        [None if row.message_id is None else _make_storable(row.message_id) for row in rejected_rows],
        [row.original for row in rejected_rows],
        [row.form for row in rejected_rows],
        [row.trust for row in rejected_rows],
    )
    assert row is not None
    return row["revision"], set(row["fresh"])


def _make_storable(text: str) -> str:
    """Replace characters that PostgreSQL cannot store. The id of a rejected message may contain them."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


_RECORD_CONFLICTS = """
INSERT INTO quarantine (source, received_at, code, message, message_id, original, trust)
SELECT t.source, t.received_at, $1, 'a message with this id but different content is already stored', t.message_id,
       t.original, t.trust
FROM unnest($2::uuid[], $3::bytea[], $4::text[], $5::timestamptz[], $6::text[], $7::bytea[], $8::text[])
     AS t (key, digest, source, received_at, message_id, original, trust)
JOIN ledger USING (key)
WHERE ledger.digest <> t.digest
  AND NOT EXISTS (SELECT FROM quarantine q
                  WHERE q.source = t.source AND q.message_id = t.message_id AND q.original = t.original)
"""


async def record_conflicts(connection: Connection, messages: Sequence[Message]) -> None:
    """Quarantine duplicates whose content differs from the stored message; skip those already in quarantine."""
    await connection.execute(
        _RECORD_CONFLICTS,
        CONFLICTING_TWIN,
        [message.key for message in messages],
        [message.digest for message in messages],
        [message.source for message in messages],
        [message.received_at for message in messages],
        [message.message_id for message in messages],
        [encode_original(message) for message in messages],
        [message.trust for message in messages],
    )


def encode_original(message: Message) -> bytes:
    """Encode a message as JSON for quarantine. The JSON can be replayed, but differs from the text that was sent."""
    return _encode(
        {
            "type": message.type,
            "messageId": _make_storable(message.message_id),
            "event": None if message.name is None else _make_storable(message.name),
            "timestamp": message.original_timestamp,
            "identities": [_make_storable(str(identity)) for identity in message.identities],
            "previousId": message.previous_id,
            "properties": msgspec.Raw(message.properties),
            "context": msgspec.Raw(message.context),
            "traits": msgspec.Raw(message.traits or b"null"),
        }
    )


_MARK_REPLAYED = "UPDATE quarantine SET replayed_at = $2 WHERE id = ANY($1::bigint[]) AND replayed_at IS NULL"


async def mark_replayed(pool: Pool, quarantine_ids: Sequence[int], now: int) -> None:
    """Mark quarantine rows as replayed; a row that is already marked keeps the time of its first replay."""
    await pool.execute(_MARK_REPLAYED, quarantine_ids, now)


_REDACT_LOG = """
-- This is the only statement that updates the log; index touchpoints_of_identity.
WITH redacted AS (
    UPDATE touchpoints SET context = context - $2
    WHERE identity_id = ANY($1::uuid[]) AND context ? $2
    RETURNING 1
)
SELECT count(*) FROM redacted
"""

_REDACT_QUARANTINE = """
-- Rows with the id of one of the customer's messages (conflicting twins) may contain private text: delete them.
WITH redacted AS (
    DELETE FROM quarantine q USING touchpoints t
    WHERE t.identity_id = ANY($1::uuid[]) AND q.source = t.source AND q.message_id = t.message_id
    RETURNING q.id
)
SELECT count(DISTINCT id) FROM redacted
"""


async def redact_context(connection: Connection, identities: Sequence[bytes], member: str) -> tuple[int, int]:
    """Remove the field ``member`` of the context from all messages of these identities.

    Return how many messages of the log changed, and how many quarantine rows were deleted.
    """
    messages: int = await connection.fetchval(_REDACT_LOG, identities, member)
    quarantined: int = await connection.fetchval(_REDACT_QUARANTINE, identities)
    return messages, quarantined


_DEFER = """
INSERT INTO deferred (key, identity_id, message_id, source, received_at, reason)
SELECT *, $6 FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::timestamptz[])
"""


async def defer_messages(connection: Connection, messages: Sequence[Message], reason: str) -> None:
    """Mark messages of the log as not yet projected. ``reason`` is the class name of the error."""
    await connection.execute(
        _DEFER,
        [message.key for message in messages],
        [message.identities[0].id for message in messages],
        [message.message_id for message in messages],
        [message.source for message in messages],
        [message.received_at for message in messages],
        reason,
    )


_CLAIM_DEFERRED = """
-- Deferred messages that no other worker has locked, with their rows in the log. A message whose monthly partition was
-- dropped has no row.
WITH claimed AS (
    SELECT key, identity_id, message_id, source, received_at FROM deferred
    WHERE retry_at <= $1 AND ($2::uuid IS NULL OR key = $2) ORDER BY retry_at LIMIT $3 FOR UPDATE SKIP LOCKED
)
SELECT c.key, t.type, t.message_id, t.source, t.occurred_at, t.received_at, t.carried, t.channel, t.name,
       t.properties, t.context, t.traits
FROM claimed c
LEFT JOIN touchpoints t ON t.identity_id = c.identity_id AND t.received_at = c.received_at
                       AND t.message_id = c.message_id AND t.source = c.source
"""


async def claim_deferred(
    connection: Connection, now: int, messages_max: int, only_key: bytes | None = None
) -> tuple[list[bytes], list[Message]]:
    """Lock deferred messages until COMMIT. Return the keys of all locked rows, and the messages still in the log."""
    rows = await connection.fetch(_CLAIM_DEFERRED, now, only_key, messages_max)
    return [row["key"] for row in rows], [message_from_row(row) for row in rows if row["type"] is not None]


async def delete_deferred(connection: Connection, keys: Sequence[bytes]) -> None:
    await connection.execute("DELETE FROM deferred WHERE key = ANY($1::uuid[])", keys)


async def postpone_deferred(connection: Connection, key: bytes, retry_at: int) -> None:
    """Schedule the next attempt to project a message that failed. The number of attempts is not limited."""
    await connection.execute("UPDATE deferred SET attempts = attempts + 1, retry_at = $2 WHERE key = $1", key, retry_at)


async def count_deferred(connection: Connection) -> int:
    count: int = await connection.fetchval("SELECT count(*) FROM deferred")
    return count


def message_from_row(row: asyncpg.Record) -> Message:
    """Rebuild the message that a row of the log stores."""
    identities, reserved = decode_carried(row["carried"])
    return Message(
        type=row["type"],
        message_id=row["message_id"],
        source=row["source"],
        occurred_at=row["occurred_at"],
        received_at=row["received_at"],
        identities=identities,
        channel=row["channel"],
        name=row["name"],
        properties=row["properties"],
        context=row["context"],
        traits=row["traits"],
        previous_id=reserved.get(PREVIOUS_ID),
        trust=msgspec.convert(reserved.get(TRUST, "public"), Trust),
        vouched_id=reserved.get(VOUCHED_ID),
    )
