"""Large datasets, created quickly: a few customers pass through the real pipeline, and all others are copies.

Customer ids of copies are derived from their identities, so messages reach them. The log is ordered by time, so the
touchpoints of one customer are scattered. Copies have no rows in the deduplication ledger.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from app.background.worker import Worker
from app.config import Settings
from app.formats import segment
from app.ingest.submit import Ingest, Submission
from app.observability.metrics import Metrics
from app.postgres.migrate import upgrade
from app.postgres.partitions import create_monthly_partitions
from app.postgres.pool import Clock, Pool, open_pool, prepare_connection, transact
from app.registry.bootstrap import FirstKeys, bootstrap
from app.registry.registry import Registry
from app.rules.language.definitions import parse_segment
from app.touchpoint import derive_identity_id
from bench.sample_rules import Json
from bench.testbed import Connection

REQUEST_MESSAGES: Final = 500
"""Maximum number of messages in one request."""


@dataclass
class Pipeline:
    """Segue on one database, without HTTP and without the loops of the worker."""

    pool: Pool
    registry: Registry
    settings: Settings
    clock: Clock
    ingest: Ingest
    worker: Worker
    keys: FirstKeys

    async def define(self, key: str, rule: Json) -> None:
        await self.registry.definitions.define(parse_segment({"key": key, "rule": rule}), replace=False)

    async def archive_except(self, *kept_keys: str) -> None:
        ruleset = self.registry.rules.current
        for definition in (*ruleset.segments, *ruleset.journeys):
            if definition.key not in kept_keys:
                await self.registry.definitions.archive(definition.kind, definition.key)

    async def send(self, messages: Sequence[Json]) -> None:
        """Ingest messages. Raise RuntimeError unless each message is new and projected."""
        for first in range(0, len(messages), REQUEST_MESSAGES):
            part = messages[first : first + REQUEST_MESSAGES]
            body = json.dumps({"batch": part}).encode()
            envelope = segment.read(body, "batch", self.settings.limits)
            source = self.registry.access.current.sources["default"]
            receipt = await self.ingest.submit(
                Submission(source=source, envelope=envelope, received_at=self.clock.now(), size_bytes=len(body))
            )
            if receipt.accepted != len(part) or not receipt.projected:
                raise RuntimeError(f"not all messages were accepted: {receipt}")


@asynccontextmanager
async def open_pipeline(url: str, clock: Clock | None = None, connections_max: int = 4) -> AsyncIterator[Pipeline]:
    """Open a pipeline on an empty database: migrate it and create the built-in definitions, as a first start does."""
    await upgrade(url)
    clock = clock or Clock()
    settings = Settings.model_validate({"DATABASE_URL": url, "pool_connections_max": connections_max})
    async with await open_pool(url, connections_max) as pool:
        keys = await transact(pool, bootstrap)
        assert keys is not None
        registry, metrics = Registry(pool, settings), Metrics()
        await registry.load()
        async with pool.acquire() as connection:
            await clock.calibrate(connection)
            await create_monthly_partitions(connection, clock.now())
        ingest = Ingest(pool, registry, settings, clock, metrics)
        # Give the worker separate metrics, so that it does not pause because of the messages sent here.
        yield Pipeline(
            pool, registry, settings, clock, ingest, Worker(pool, registry, settings, clock, Metrics()), keys
        )
        await ingest.stop()


# ------------------------------------------------------------------------------------------------------ copies


@dataclass(frozen=True)
class Copy:
    """Customer to create: has the user_id ``value`` and copies of the rows of the customer with user_id ``pattern``.

    ``number`` makes the message ids of the copy unique. :func:`browser_of` derives its anonymous_id, if any.
    """

    number: int
    pattern: str
    value: str


def browser_of(user_id: str) -> str:
    return f"browser-{user_id}"


async def write_copies(url: str, copies: Iterable[Copy], *, log: bool, browsers: bool) -> None:
    """Write the rows of ``copies`` and vacuum the tables.

    With ``log``, copy the touchpoints too. With ``browsers``, copy the anonymous_id of the patterns too.
    """
    connection: Connection = await asyncpg.connect(url)
    try:
        await prepare_connection(connection)
        async with connection.transaction():
            await connection.execute(_COPIES)
            await connection.copy_records_to_table("copies", records=_identities(copies, browsers))
            await connection.execute("CREATE INDEX ON copies (pattern, number); ANALYZE copies")
            for statement in (*_GRAPH, *_CUSTOMERS, *([_LOG] if log else [])):
                await connection.execute(statement)
        await connection.execute("DROP TABLE copies")
        for table in _TABLES:
            await connection.execute(f"VACUUM (ANALYZE) {table}")
        await connection.execute("CHECKPOINT")  # A checkpoint must not start during a measurement.
    finally:
        await connection.close()


def _identities(copies: Iterable[Copy], browsers: bool) -> Iterable[tuple[Any, ...]]:
    for copy in copies:
        customer = derive_identity_id("user_id", copy.value)
        yield copy.number, derive_identity_id("user_id", copy.pattern), customer, "user_id", copy.value, customer
        if browsers:
            of, value = derive_identity_id("anonymous_id", browser_of(copy.pattern)), browser_of(copy.value)
            yield copy.number, of, derive_identity_id("anonymous_id", value), "anonymous_id", value, customer


_TABLES: Final = ("identities", "links", "customers", "transitions", "touchpoints")

_COPIES = """
-- One row per identity; ``pattern`` is the id of the copied identity.
CREATE TEMPORARY TABLE copies (number integer, pattern uuid, id uuid, kind text, value text, customer uuid)
"""

_GRAPH: Final = (
    """
    INSERT INTO identities (id, kind, value, customer_id, carried)
    SELECT id, kind, value, customer, true FROM copies
    """,
    """
    INSERT INTO links (weaker, stronger, kind, occurred_at, message_id, source, joined)
    SELECT w.id, s.id, l.kind, l.occurred_at, l.message_id || '-' || w.number, l.source, l.joined
    FROM links l JOIN copies w ON w.pattern = l.weaker JOIN copies s ON s.pattern = l.stronger AND s.number = w.number
    """,
)

_CUSTOMERS: Final = (
    """
    INSERT INTO customers (id, state, flips_at, sweep_at, revision, stale, contested, last_link_at)
    SELECT c.id, p.state, p.flips_at, p.sweep_at, p.revision, p.stale, p.contested, p.last_link_at
    FROM copies c JOIN customers p ON p.id = c.pattern
    ORDER BY c.number
    """,
    """
    INSERT INTO transitions (customer_id, definition, value, version, entered_at, left_at, entered_cause, left_cause,
                             entered_recorded_at, left_recorded_at, meaning)
    SELECT c.id, t.definition, t.value, t.version, t.entered_at, t.left_at, t.entered_cause, t.left_cause,
           t.entered_recorded_at, t.left_recorded_at, t.meaning
    FROM copies c JOIN transitions t ON t.customer_id = c.pattern
    WHERE t.retracted_at IS NULL
    """,
)

_LOG: Final = """
-- For each message of the patterns, oldest first: one row per copy.
INSERT INTO touchpoints (received_at, occurred_at, identity_id, type, name, channel, source, message_id, properties,
                         context, traits, carried, sent_at, original_timestamp)
SELECT t.received_at, t.occurred_at, c.id, t.type, t.name, t.channel, t.source, t.message_id || '-' || c.number,
       t.properties, t.context, t.traits, t.carried, t.sent_at, t.original_timestamp
FROM (SELECT * FROM touchpoints WHERE identity_id IN (SELECT pattern FROM copies) ORDER BY occurred_at OFFSET 0) AS t
CROSS JOIN LATERAL (SELECT id, number FROM copies WHERE pattern = t.identity_id ORDER BY number OFFSET 0) AS c
"""
