"""Single-use tokens, for tools whose webhook signature does not cover the body. Owns the table used_tokens."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from app.postgres.pool import Pool
from app.touchpoint import DAY

_TOKEN_LIFETIME: Final = 8 * DAY
"""Retention of used tokens in microseconds: longer than any tool retries. Older tokens are refused as expired."""

_CLAIM = """
WITH old AS (
    DELETE FROM used_tokens WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM used_tokens WHERE received_at < $5 ORDER BY received_at LIMIT 100 FOR UPDATE SKIP LOCKED))
)
INSERT INTO used_tokens (source, token, body, received_at) VALUES ($1, $2, $3, $4)
ON CONFLICT (source, token) DO UPDATE SET received_at = excluded.received_at WHERE used_tokens.body = excluded.body
RETURNING true
"""


async def claim_token(pool: Pool, source: str, token: str, body: bytes, now: int) -> bool:
    """Record a signature token as used. Return False if an earlier request used it with a different body.

    The same token with the same body is a retry and is accepted, even if the first attempt failed.
    """
    hashes = (blake2b(part, digest_size=16).digest() for part in (token.encode("utf-8", "replace"), body))
    return await pool.fetchval(_CLAIM, source, *hashes, now, now - _TOKEN_LIFETIME) is True
