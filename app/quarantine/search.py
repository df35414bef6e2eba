"""Messages that were not stored, and the mark of those that were let in later."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from app.errors import NotFound
from app.formats.segment_fields import name_at_best
from app.postgres.pool import Pool

CHUNK: Final = 500
CHUNKS_MAX: Final = 20
"""Rows that one page looks at where their content is asked about; it is then short, and has a next one."""


class QuarantinedMessage(msgspec.Struct):
    id: int
    source: str
    received_at: int
    code: str
    message: str
    message_id: str | None
    original: bytes
    replayed_at: int | None
    form: str


class QuarantineQuery(msgspec.Struct, frozen=True):
    """Which rows; what is None is not asked. ``since`` <= received_at < ``until``."""

    source: str | None = None
    code: str | None = None
    event: str | None = None
    message_id: str | None = None
    since: int | None = None
    until: int | None = None
    replayed: bool | None = None
    ids: Sequence[int] | None = None


class QuarantinePage(msgspec.Struct, frozen=True):
    """``next`` is the id behind which the next page begins; None where there is none."""

    rows: list[QuarantinedMessage]
    next: int | None


_COLUMNS = "id, source, received_at, code, message, message_id, original, replayed_at, form"

_WANTED = """
      AND ($2::text IS NULL OR source = $2) AND ($3::text IS NULL OR code = $3)
      AND ($4::text IS NULL OR message_id = $4)
      AND ($5::timestamptz IS NULL OR received_at >= $5) AND ($6::timestamptz IS NULL OR received_at < $6)
      AND ($7::boolean IS NULL OR (replayed_at IS NOT NULL) = $7)
      AND ($8::bigint[] IS NULL OR id = ANY($8))
"""

_NEWEST = f"SELECT {_COLUMNS} FROM quarantine WHERE id < $1 {_WANTED} ORDER BY id DESC LIMIT $9"

_OLDEST = f"SELECT {_COLUMNS} FROM quarantine WHERE id > $1 {_WANTED} ORDER BY id LIMIT $9"

_ONE = f"SELECT {_COLUMNS} FROM quarantine WHERE id = $1"

_AFTER_ALL = (1 << 63) - 1


class QuarantineSearch:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def newest(self, wanted: QuarantineQuery, before: int | None, items_max: int) -> QuarantinePage:
        return await self._page(_NEWEST, wanted, _AFTER_ALL if before is None else before, items_max)

    async def oldest(self, wanted: QuarantineQuery, after: int, items_max: int) -> QuarantinePage:
        return await self._page(_OLDEST, wanted, after, items_max)

    async def _page(self, statement: str, wanted: QuarantineQuery, place: int, items_max: int) -> QuarantinePage:
        """Names stand in the originals alone, so rows are looked through for them in bounded chunks."""
        found: list[QuarantinedMessage] = []
        chunk = items_max + 1 if wanted.event is None else CHUNK
        for _ in range(CHUNKS_MAX):
            rows = [
                QuarantinedMessage(*row) for row in await self._pool.fetch(statement, place, *_arguments(wanted), chunk)
            ]
            found += (
                rows if wanted.event is None else [row for row in rows if name_at_best(row.original) == wanted.event]
            )
            if len(found) > items_max:
                return QuarantinePage(found[:items_max], found[items_max - 1].id)
            if len(rows) < chunk:
                return QuarantinePage(found, None)
            place = rows[-1].id
            await asyncio.sleep(0)
        return QuarantinePage(found, place)

    async def one(self, id: int) -> QuarantinedMessage:
        """Raises :class:`NotFound`."""
        row = await self._pool.fetchrow(_ONE, id)
        if row is None:
            raise NotFound(f"There is no message {id} in quarantine.")
        return QuarantinedMessage(*row)


def _arguments(wanted: QuarantineQuery) -> tuple[object, ...]:
    return (
        wanted.source,
        wanted.code,
        wanted.message_id,
        wanted.since,
        wanted.until,
        wanted.replayed,
        wanted.ids,
    )
