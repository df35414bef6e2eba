"""List of erasure requests, each with the current customer of its identity; read-only."""

from __future__ import annotations

import msgspec

from app.identity.object_owners import OBJECT_KINDS, read_owners
from app.postgres.pool import Pool
from app.touchpoint import derive_identity_id


class ErasureRequest(msgspec.Struct):
    """One erasure request.

    ``customer`` is the current customer of the identity, or of the owner of the object; None if unknown or erased.
    """

    id: int
    source: str
    kind: str
    value: str
    requested_at: int
    handled_at: int | None
    customer: bytes | None = None


_PAGE = """
SELECT id, source, kind, value, requested_at, handled_at FROM erasure_requests
WHERE id < $1 AND ($2::bool OR handled_at IS NULL) ORDER BY id DESC LIMIT $3
"""

_CUSTOMERS = "SELECT id, customer_id FROM identities WHERE id = ANY($1::uuid[])"


async def list_erasure_requests(
    pool: Pool, before: int | None, items_max: int, *, include_handled: bool
) -> list[ErasureRequest]:
    """Return the open requests, and the handled ones if ``include_handled``, newest first.

    ``before`` is the id of the last request of the previous page.
    """
    rows = await pool.fetch(_PAGE, (1 << 63) - 1 if before is None else before, include_handled, items_max)
    requests = [ErasureRequest(*row) for row in rows]
    ids = [derive_identity_id(request.kind, request.value) for request in requests]
    object_ids = [id for id, request in zip(ids, requests, strict=True) if request.kind in OBJECT_KINDS]
    owners = await read_owners(pool, object_ids) if object_ids else {}
    ids = [owners[id].id if id in owners else id for id in ids]
    customers = {row["id"]: row["customer_id"] for row in await pool.fetch(_CUSTOMERS, ids)}
    for request, id in zip(requests, ids, strict=True):
        request.customer = customers.get(id)
    return requests
