"""People whom a tool says to forget: :func:`request_erasures` queues them. Owns the table erasure_requests.

Nothing is erased by itself. A write key is public, so that a request made with one says only that somebody who has read
a page's source wants it; a webhook's was signed. The source of the request tells which it was, and a person decides.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from app.config import Settings
from app.formats.identifiers import identity_rules
from app.formats.segment_fields import text_of
from app.postgres.pool import Connection, Pool
from app.touchpoint import identity_id


class ErasureRequest(msgspec.Struct):
    """``customer`` is whom the identity names now; None for somebody who is not known, or was erased since."""

    id: int
    source: str
    kind: str
    value: str
    requested_at: int
    handled_at: int | None
    customer: bytes | None = None


_REQUEST = """
-- Who asks twice is asked about once: while a request is open, the same again adds nothing.
INSERT INTO erasure_requests (source, kind, value, requested_at)
SELECT DISTINCT $1::text, kind, value, $2::timestamptz FROM unnest($3::text[], $4::text[]) AS t (kind, value)
ON CONFLICT DO NOTHING
"""

_PAGE = """
SELECT id, source, kind, value, requested_at, handled_at FROM erasure_requests
WHERE id < $1 AND ($2::bool OR handled_at IS NULL) ORDER BY id DESC LIMIT $3
"""

_CUSTOMERS = "SELECT id, customer_id FROM identities WHERE id = ANY($1::uuid[])"

_HANDLED = """
UPDATE erasure_requests SET handled_at = $2 WHERE id = ANY($1::bigint[]) AND handled_at IS NULL RETURNING id
"""


async def request_erasures(
    connection: Connection | Pool, source: str, asked: Iterable[tuple[str, Any]], now: int, settings: Settings
) -> int:
    """Queue (kind, value) pairs of identities, each in its canonical form; one that can be nobody's is left out.

    Returns how many of them name somebody, open requests included.
    """
    rules = identity_rules(settings)
    found: set[tuple[str, str]] = set()
    for kind, claimed in asked:
        text = text_of(claimed)
        if text is not None and (value := rules.canonical(kind, text)) is not None:
            found.add((kind, value))
    if found:
        kinds, values = zip(*sorted(found), strict=True)
        await connection.execute(_REQUEST, source, now, list(kinds), list(values))
    return len(found)


async def erasure_requests(
    pool: Pool, before: int | None, items_max: int, *, handled_too: bool
) -> list[ErasureRequest]:
    """Newest first, those that are open unless asked otherwise; ``before``: id of the last one of the page before."""
    rows = await pool.fetch(_PAGE, (1 << 63) - 1 if before is None else before, handled_too, items_max)
    found = [ErasureRequest(*row) for row in rows]
    ids = [identity_id(each.kind, each.value) for each in found]
    customers = {row["id"]: row["customer_id"] for row in await pool.fetch(_CUSTOMERS, ids)}
    for each, id in zip(found, ids, strict=True):
        each.customer = customers.get(id)
    return found


async def mark_handled(pool: Pool, ids: list[int], now: int) -> int:
    """How many of them were open. The same person may ask anew from then on."""
    return len(await pool.fetch(_HANDLED, ids, now))
