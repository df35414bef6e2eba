"""Messages that were not stored, newest first, and the mark of those that were let in later."""

from __future__ import annotations

import msgspec

from app.db import Pool
from app.errors import NotFound


class Quarantined(msgspec.Struct):
    id: int
    source: str
    received_at: int
    code: str
    message: str
    message_id: str | None
    original: bytes
    replayed_at: int | None
    form: str


_PAGE = """
SELECT id, source, received_at, code, message, message_id, original, replayed_at, form
FROM quarantine WHERE id < $1 ORDER BY id DESC LIMIT $2
"""

_ONE = """
SELECT id, source, received_at, code, message, message_id, original, replayed_at, form
FROM quarantine WHERE id = $1
"""

_MARK = "UPDATE quarantine SET replayed_at = $2 WHERE id = $1 AND replayed_at IS NULL"

_AFTER_ALL = (1 << 63) - 1


class QuarantineViews:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def page(self, before: int | None, items_max: int) -> list[Quarantined]:
        rows = await self._pool.fetch(_PAGE, _AFTER_ALL if before is None else before, items_max)
        return [Quarantined(*row) for row in rows]

    async def one(self, id: int) -> Quarantined:
        """Raises :class:`NotFound`."""
        row = await self._pool.fetchrow(_ONE, id)
        if row is None:
            raise NotFound(f"There is no message {id} in quarantine.")
        return Quarantined(*row)

    async def mark_replayed(self, id: int, now: int) -> None:
        await self._pool.execute(_MARK, id, now)
