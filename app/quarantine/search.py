"""Search of quarantined messages, by column values and event name."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from app.errors import NotFound
from app.formats.segment_fields import name_at_best
from app.postgres.pool import Pool
from app.touchpoint import Trust

CHUNK_ROWS: Final = 500
CHUNKS_MAX: Final = 20
"""Maximum number of chunks that one page reads when it filters by event name.

A page that reaches this limit may contain fewer rows than requested, and has a ``next``.
"""


class QuarantinedMessage(msgspec.Struct):
    """A row of the quarantine. ``replayed_at`` is None until a replay stores its message."""

    id: int
    source: str
    received_at: int
    code: str
    message: str
    message_id: str | None
    original: bytes
    replayed_at: int | None
    form: str
    trust: Trust


class QuarantineQuery(msgspec.Struct, frozen=True):
    """Filter of rows; None means any value. ``since`` <= received_at < ``until``."""

    source: str | None = None
    code: str | None = None
    event: str | None = None
    message_id: str | None = None
    since: int | None = None
    until: int | None = None
    replayed: bool | None = None
    ids: Sequence[int] | None = None


class QuarantinePage(msgspec.Struct, frozen=True):
    """One page of rows. ``next`` is the id after which the next page begins; None on the last page."""

    rows: list[QuarantinedMessage]
    next: int | None


_COLUMNS = "id, source, received_at, code, message, message_id, original, replayed_at, form, trust"

_FILTER = """
      AND ($2::text IS NULL OR source = $2) AND ($3::text IS NULL OR code = $3)
      AND ($4::text IS NULL OR message_id = $4)
      AND ($5::timestamptz IS NULL OR received_at >= $5) AND ($6::timestamptz IS NULL OR received_at < $6)
      AND ($7::boolean IS NULL OR (replayed_at IS NOT NULL) = $7)
      AND ($8::bigint[] IS NULL OR id = ANY($8))
"""

_NEWEST = f"SELECT {_COLUMNS} FROM quarantine WHERE id < $1 {_FILTER} ORDER BY id DESC LIMIT $9"

_OLDEST = f"SELECT {_COLUMNS} FROM quarantine WHERE id > $1 {_FILTER} ORDER BY id LIMIT $9"

_BY_ID = f"SELECT {_COLUMNS} FROM quarantine WHERE id = $1"

_ID_MAX = (1 << 63) - 1


class QuarantineSearch:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def list_newest(self, query: QuarantineQuery, before: int | None, items_max: int) -> QuarantinePage:
        return await self._read_page(_NEWEST, query, _ID_MAX if before is None else before, items_max)

    async def list_oldest(self, query: QuarantineQuery, after: int, items_max: int) -> QuarantinePage:
        return await self._read_page(_OLDEST, query, after, items_max)

    async def _read_page(
        self, statement: str, query: QuarantineQuery, boundary_id: int, items_max: int
    ) -> QuarantinePage:
        """Read rows in bounded chunks. Event names are only in the originals, so SQL cannot filter by them."""
        matches: list[QuarantinedMessage] = []
        chunk = items_max + 1 if query.event is None else CHUNK_ROWS
        for _ in range(CHUNKS_MAX):
            rows = [
                QuarantinedMessage(*row)
                for row in await self._pool.fetch(statement, boundary_id, *_build_arguments(query), chunk)
            ]
            matches += (
                rows if query.event is None else [row for row in rows if name_at_best(row.original) == query.event]
            )
            if len(matches) > items_max:
                return QuarantinePage(matches[:items_max], matches[items_max - 1].id)
            if len(rows) < chunk:
                return QuarantinePage(matches, None)
            boundary_id = rows[-1].id
            await asyncio.sleep(0)
        return QuarantinePage(matches, boundary_id)

    async def read_one(self, id: int) -> QuarantinedMessage:
        """Return one row. Raise :class:`NotFound` if it does not exist."""
        row = await self._pool.fetchrow(_BY_ID, id)
        if row is None:
            raise NotFound(f"Quarantine has no message with the id {id}.")
        return QuarantinedMessage(*row)


def _build_arguments(query: QuarantineQuery) -> tuple[object, ...]:
    return (
        query.source,
        query.code,
        query.message_id,
        query.since,
        query.until,
        query.replayed,
        query.ids,
    )
