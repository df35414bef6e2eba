"""Queue of erasure requests that arrive with messages. Owns the table erasure_requests.

Nothing is erased by itself. A write key is public, so a request made with one proves only that its sender has read a
page's source; a webhook's was signed. The source of the request tells which it was, and a person decides.
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
    """One row of the queue: the identity to be erased, in its canonical form."""

    source: str
    kind: str
    value: str
    requested_at: int


_INSERT = """
-- One open request per source and identity: the same request again adds nothing.
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
    """Return (kind, value) pairs as rows of the queue, in canonical form and order; junk values are left out."""
    rules = identity_rules(settings)
    rows: set[RequestedErasure] = set()
    for kind, claimed_value in identities:
        text = as_id_text(claimed_value)
        if text is not None and (value := rules.canonical(kind, text)) is not None:
            rows.add(RequestedErasure(source, kind, value, requested_at))
    return sorted(rows)


async def queue_erasures(connection: Connection, erasures: Sequence[RequestedErasure]) -> None:
    """Insert the requests, in the caller's transaction."""
    await connection.execute(
        _INSERT,
        [erasure.source for erasure in erasures],
        [erasure.kind for erasure in erasures],
        [erasure.value for erasure in erasures],
        [erasure.requested_at for erasure in erasures],
    )


async def mark_erasures_handled(pool: Pool, ids: Sequence[int], now: int) -> int:
    """Close open requests and return how many were open. The same person may ask again from then on."""
    return len(await pool.fetch(_MARK_HANDLED, ids, now))
