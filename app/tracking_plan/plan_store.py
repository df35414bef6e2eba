"""Storage of the tracking plan, which defines the properties of events. Owns the table tracking_plan.

Each process caches the compiled plan as one snapshot, and replaces it when its counter in ``revisions`` has increased.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

import msgspec
import structlog

from app.errors import InvalidDefinition, NotFound
from app.postgres.pool import Connection, Pool, transact
from app.postgres.revisions import READ_REVISION, bump_revision
from app.tracking_plan.event_schema import Mode, SchemaCheck
from app.tracking_plan.plan import EVERY_SOURCE, Plan, PlannedEvent

REVISION_NAME: Final = "tracking_plan"
ENTRIES_MAX: Final = 2_000

_ENTRIES = "SELECT source, event, mode, schema, updated_at FROM tracking_plan ORDER BY event, source"

_COUNT_OTHERS = "SELECT count(*) FROM tracking_plan WHERE (source, event) <> ($1, $2)"

_SOURCE_EXISTS = "SELECT EXISTS (SELECT FROM sources WHERE key = $1)"

_PUT = """
INSERT INTO tracking_plan (source, event, mode, schema) VALUES ($1, $2, $3, $4)
ON CONFLICT (source, event) DO UPDATE SET mode = excluded.mode, schema = excluded.schema, updated_at = now()
RETURNING source, event, mode, schema, updated_at
"""

_DELETE = "DELETE FROM tracking_plan WHERE source = $1 AND event = $2 RETURNING event"

_decode = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal).decode

log = structlog.get_logger(__name__)


class PlanEntry(msgspec.Struct, frozen=True):
    """The schema of one event, as JSON text. ``source`` is empty if the entry applies to all sources."""

    source: str
    event: str
    mode: Mode
    schema: bytes
    updated_at: int


class TrackingPlans:
    """The cached plan of one process, and the operations that change the stored plan."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.plan = Plan(0)

    async def load(self, connection: Connection) -> None:
        """Load and compile the stored plan if its revision is newer than the cached one."""
        async with connection.transaction(isolation="repeatable_read"):
            revision = await connection.fetchval(READ_REVISION, REVISION_NAME)
            if revision == self.plan.revision:
                return
            rows = await connection.fetch(_ENTRIES)
        if revision > self.plan.revision:
            self.plan = Plan(revision, {(row["source"], row["event"]): _compile_entry(row) for row in rows})

    async def list_entries(self) -> list[PlanEntry]:
        return [PlanEntry(*row) for row in await self._pool.fetch(_ENTRIES)]

    async def put(self, source: str, event: str, mode: Mode, schema: dict[str, Any]) -> PlanEntry:
        """Store an entry.

        Raise :class:`InvalidDefinition` if the schema is invalid or the plan is full, and :class:`NotFound` if the
        source does not exist.
        """
        SchemaCheck(schema)
        text = msgspec.json.Encoder(decimal_format="number").encode(schema)

        async def put(connection: Connection) -> PlanEntry:
            if source != EVERY_SOURCE and not await connection.fetchval(_SOURCE_EXISTS, source):
                raise NotFound(f"Source {source} does not exist.")
            # Updating the revision locks its row, so concurrent changes wait and the count below stays correct.
            await bump_revision(connection, REVISION_NAME)
            if await connection.fetchval(_COUNT_OTHERS, source, event) >= ENTRIES_MAX:
                raise InvalidDefinition(
                    "/event", "the tracking plan is full", f"Delete an entry; the maximum is {ENTRIES_MAX} entries."
                )
            row = await connection.fetchrow(_PUT, source, event, mode, text)
            assert row is not None
            return PlanEntry(*row)

        entry = await transact(self._pool, put)
        await self._reload()
        return entry

    async def delete(self, source: str, event: str) -> None:
        """Delete an entry. Raise :class:`NotFound` if it does not exist."""

        async def delete(connection: Connection) -> None:
            if await connection.fetchval(_DELETE, source, event) is None:
                raise NotFound("The tracking plan has no entry for this source and event.")
            await bump_revision(connection, REVISION_NAME)

        await transact(self._pool, delete)
        await self._reload()

    async def _reload(self) -> None:
        async with self._pool.acquire() as connection:
            await self.load(connection)


def _compile_entry(row: Any) -> PlannedEvent | None:
    """Compile an entry. Return None if its mode is ``off``, or if this version of the validator rejects its schema."""
    if row["mode"] == "off":
        return None
    try:
        return PlannedEvent(row["mode"], SchemaCheck(_decode(row["schema"])))
    except InvalidDefinition as error:
        log.error("tracking_plan.entry_refused", source=row["source"], event=row["event"], reason=str(error))
        return None
