"""Queue of erasure requests that arrive with messages. Owns the table erasure_requests.

No request is executed automatically. A write key is public, so a request with a write key proves only that its sender
has read a page's source; a request from a webhook was signed. An operator checks the source of the request and decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from app.config import Settings
from app.formats.identifiers import identity_rules
from app.formats.segment_fields import as_id_text
from app.postgres.pool import Connection, Pool


class RequestedErasure(msgspec.Struct, frozen=True, order=True):
    """One erasure request. ``kind`` and ``value`` are the identity to be erased, in canonical form."""

    source: str
    kind: str
    value: str
    requested_at: int


_INSERT = """
-- There is at most one open request per source and identity; a repeated request adds no row.
INSERT INTO erasure_requests (source, kind, value, requested_at)
SELECT DISTINCT ON (source, kind, value) source, kind, value, requested_at
FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[]) AS t (source, kind, value, requested_at)
ORDER BY source, kind, value, requested_at
ON CONFLICT DO NOTHING
"""

_MARK_HANDLED = """
UPDATE erasure_requests SET handled_at = $2 WHERE id = ANY($1::bigint[]) AND handled_at IS NULL RETURNING id
"""


def build_erasures(
    identities: Iterable[tuple[str, Any]], source: str, requested_at: int, settings: Settings
) -> list[RequestedErasure]:
    """Convert (kind, value) pairs to sorted erasure requests in canonical form; skip junk and invalid values."""
    rules = identity_rules(settings)
    rows: set[RequestedErasure] = set()
    for kind, claimed_value in identities:
        text = as_id_text(claimed_value)
        if text is not None and (value := rules.canonical(kind, text)) is not None:
            rows.add(RequestedErasure(source, kind, value, requested_at))
    return sorted(rows)


async def queue_erasures(connection: Connection, erasures: Sequence[RequestedErasure]) -> None:
    """Insert erasure requests, inside the caller's transaction."""
    await connection.execute(
        _INSERT,
        [erasure.source for erasure in erasures],
        [erasure.kind for erasure in erasures],
        [erasure.value for erasure in erasures],
        [erasure.requested_at for erasure in erasures],
    )


async def mark_erasures_handled(pool: Pool, ids: Sequence[int], now: int) -> int:
    """Mark requests as handled, and return how many were open. After that, the same identity can be queued again."""
    return len(await pool.fetch(_MARK_HANDLED, ids, now))
