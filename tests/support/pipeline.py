"""Ingestion and projection without HTTP, for tests that set the clock: JSON bodies go in, database rows come out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from app.background.worker import Worker
from app.config import Settings
from app.formats import segment
from app.ingest.pending_request import Receipt
from app.ingest.submit import Ingest, Submission
from app.observability.metrics import Metrics
from app.postgres.partitions import create_monthly_partitions
from app.postgres.pool import Connection, FrozenClock, Pool, open_pool, transact
from app.projection.project import replay_whole_logs
from app.projection.rebuild import comparable
from app.projection.state import read_state
from app.registry.bootstrap import bootstrap
from app.registry.definition_rows import DefinitionVersion
from app.registry.registry import Registry
from app.rules.language.definitions import JourneyIn, SegmentIn, parse_journey, parse_segment
from app.touchpoint import Trust, VouchedVisitor
from tests.support.reference_model import Definitions, Interval, SentMessage


class Pipeline:
    """Registry, ingest and worker that share one pool and a frozen clock."""

    def __init__(self, pool: Pool, settings: Settings, clock: FrozenClock) -> None:
        self.pool = pool
        self.settings = settings
        self.clock = clock
        self.registry = Registry(pool, settings)
        self.metrics = Metrics()
        self.ingest = Ingest(pool, self.registry, settings, clock, self.metrics)
        # The worker pauses under load, which it reads from the metrics. With separate metrics it never pauses.
        self.worker = Worker(pool, self.registry, settings, clock, Metrics())

    async def send(
        self,
        items: Sequence[dict[str, Any]],
        source: str = "default",
        trust: Trust = "server",
        visitor: VouchedVisitor | None = None,
    ) -> Receipt:
        body = json.dumps({"batch": list(items)}).encode()
        view = msgspec.structs.replace(self.registry.access.current.sources[source], trust=trust, visitor=visitor)
        envelope = segment.read(body, "batch", self.settings.limits)
        return await self.ingest.submit(
            Submission(source=view, envelope=envelope, received_at=self.clock.now(), size_bytes=len(body))
        )

    async def define(self, definitions: Definitions) -> None:
        """Archive all segments and journeys, then create these definitions."""
        for old in self.registry.rules.current.segments:
            await self.registry.definitions.archive("segment", old.key)
        for old in self.registry.rules.current.journeys:
            await self.registry.definitions.archive("journey", old.key)
        for journey, stages in definitions.journeys.items():
            await self.put("journey", journey, stages)
        for key, rule in definitions.segments.items():
            await self.put("segment", key, rule)

    async def put(
        self, kind: str, key: str, rule: Any, *, replace: bool = False, name: str | None = None
    ) -> DefinitionVersion:
        """Define a segment by its rule, or a journey by its (stage, rule) pairs."""
        limits = self.settings.limits
        named = {"key": key, "name": name or key}
        definition: SegmentIn | JourneyIn
        if kind == "segment":
            definition = parse_segment({**named, "rule": rule}, limits)
        else:
            stages = [{"key": stage, "name": stage, "rule": stage_rule} for stage, stage_rule in rule]
            definition = parse_journey({**named, "stages": stages}, limits)
        return (await self.registry.definitions.define(definition, replace=replace))[0]

    async def segment(
        self, key: str, rule: Any, *, replace: bool = False, name: str | None = None
    ) -> DefinitionVersion:
        return await self.put("segment", key, rule, replace=replace, name=name)

    async def sweep_all(self) -> None:
        while await self.worker.fill() or await self.worker.sweep():
            pass

    async def groups(self, prefix: str) -> set[frozenset[str]]:
        rows = await self.pool.fetch(
            "SELECT customer_id, kind, value FROM identities WHERE customer_id IS NOT NULL AND value LIKE $1 || '%'",
            prefix,
        )
        members: dict[bytes, set[str]] = {}
        for customer, kind, value in rows:
            members.setdefault(customer, set()).add(f"{kind}:{value.removeprefix(prefix)}")
        return {frozenset(names) for names in members.values()}

    async def rows(self, prefix: str) -> tuple[list[Any], list[Any]]:
        """Return (states, intervals with causes) of the customers that have an identity with the prefix."""
        ids = await self._customer_ids(prefix)
        states = await self.pool.fetch("SELECT id, state FROM customers WHERE id = ANY($1::uuid[]) ORDER BY id", ids)
        history = await self.pool.fetch(
            """
            SELECT customer_id, definition, value, version, entered_at, entered_cause, left_at, left_cause
            FROM transitions WHERE customer_id = ANY($1::uuid[]) AND retracted_at IS NULL
            ORDER BY 1, 2, 3, 5
            """,
            ids,
        )
        understood = [
            (row["id"], comparable(read_state(row["state"], self.registry.rules.current), self.registry.rules.current))
            for row in states
        ]
        return understood, [tuple(row) for row in history]

    async def rebuild(self, prefix: str) -> None:
        ids = await self._customer_ids(prefix)

        async def work(connection: Connection) -> None:
            now, settings = self.clock.now(), self.settings
            await replay_whole_logs(connection, ids, self.registry.rules.current, now, settings)

        await transact(self.pool, work)

    async def _customer_ids(self, prefix: str) -> list[bytes]:
        rows = await self.pool.fetch(
            "SELECT DISTINCT customer_id FROM identities WHERE customer_id IS NOT NULL AND value LIKE $1 || '%'", prefix
        )
        return [row["customer_id"] for row in rows]

    async def intervals(self, identity: str) -> set[Interval]:
        kind, _, value = identity.partition(":")
        rows = await self.pool.fetch(
            """
            SELECT t.definition, t.value, t.entered_at, t.left_at
            FROM identities i JOIN transitions t ON t.customer_id = i.customer_id
            WHERE i.kind = $1 AND i.value = $2 AND t.retracted_at IS NULL
            """,
            kind,
            value,
        )
        intervals = [tuple(row) for row in rows]
        assert len(set(intervals)) == len(intervals)
        return set(intervals)


@asynccontextmanager
async def running_pipeline(database_url: str, now: int, **changes: Any) -> AsyncIterator[Pipeline]:
    settings = Settings.model_validate({"DATABASE_URL": database_url, "default_journey": "main", **changes})
    pool = await open_pool(database_url, 4)
    try:
        pipeline = Pipeline(pool, settings, FrozenClock(now))
        await transact(pool, bootstrap)
        await pipeline.registry.load()
        async with pool.acquire() as connection:
            await create_monthly_partitions(connection, now)
        await pipeline.ingest.start()
        yield pipeline
        await pipeline.ingest.stop()
    finally:
        await asyncio.wait_for(pool.close(), 10)


def item(sent_message: SentMessage, prefix: str = "") -> dict[str, Any]:
    """Return the message as a Segment client would send it. ``prefix`` separates examples that share a database."""
    from app.formats.timestamps import rfc3339

    traits = {**(sent_message.traits or {})}
    context: dict[str, Any] = {}
    message: dict[str, Any] = {
        "type": sent_message.type,
        "messageId": prefix + sent_message.message_id,
        "timestamp": rfc3339(sent_message.t),
        "properties": dict(sent_message.properties),
        "context": context,
    }
    if "user_id" in sent_message.ids:
        message["userId"] = prefix + sent_message.ids["user_id"]
    if "anonymous_id" in sent_message.ids:
        message["anonymousId"] = prefix + sent_message.ids["anonymous_id"]
    if "email" in sent_message.ids:
        context["traits"] = {"email": prefix + sent_message.ids["email"]}
    if "tool" in sent_message.ids:
        context["externalIds"] = [{"id": prefix + sent_message.ids["tool"], "type": "tool"}]
    if sent_message.type == "track":
        message["event"] = sent_message.name
    if sent_message.type == "identify":
        message["traits"] = traits
    if sent_message.previous is not None:
        message["previousId"] = prefix + sent_message.previous
    return message
