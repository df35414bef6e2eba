"""Reading a definition and its candidate takes one statement."""

from __future__ import annotations

from typing import Any, cast

import pytest

from app.errors import NotFound
from app.postgres.pool import Pool
from app.registry.definition_store import DefinitionStore
from tests.support.pipeline import running_pipeline

NOW = 1_700_000_000_000_000


class RecordingPool:
    """Pool that records (query, arguments, number of rows) of each statement."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.statements: list[tuple[Any, ...]] = []

    async def fetch(self, query: str, *arguments: Any) -> Any:
        rows = await self._pool.fetch(query, *arguments)
        self.statements.append((query, *arguments, len(rows)))
        return rows


async def test_get_reads_one_definition_in_one_statement(database_url: str) -> None:
    async with running_pipeline(database_url, NOW) as pipeline:
        await pipeline.segment("buyers", {"did": "Bought"})
        await pipeline.segment("others", {"did": "Looked"})
        await pipeline.send([{"type": "track", "messageId": "m", "userId": "u", "event": "Bought"}])
        await pipeline.segment("buyers", {"did": "Bought", "at_least": 2}, replace=True)
        pool = RecordingPool(pipeline.pool)
        store = DefinitionStore(
            cast(Any, pool), pipeline.settings, pipeline.registry.rules, pipeline.registry.access.refresh
        )
        current, candidate = await store.get("segment", "buyers")
        assert (current.definition.version, candidate and candidate.definition.version) == (1, 2)
        assert [statement[1:] for statement in pool.statements] == [("segment", "buyers", 2)]
        for key in ("nobody", "x\0"):
            with pytest.raises(NotFound):
                await store.get("segment", key)
