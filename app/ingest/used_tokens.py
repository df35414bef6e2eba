"""Tokens that may sign one delivery: for tools whose signature leaves the body out. Owns the table used_tokens."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from app.postgres.pool import Pool
from app.touchpoint import DAY

_TOKEN_LIFETIME: Final = 8 * DAY
"""Longer than any tool repeats a delivery; a token that old is stale by its own time."""

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
    """Whether this token has signed no other body. The same one again is a retry, whatever became of the first."""
    hashes = (blake2b(part, digest_size=16).digest() for part in (token.encode("utf-8", "replace"), body))
    return await pool.fetchval(_CLAIM, source, *hashes, now, now - _TOKEN_LIFETIME) is True
