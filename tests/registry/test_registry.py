"""The settings of the last started process apply to all definitions.

Older processes with other settings become outdated.
"""

from __future__ import annotations

import asyncio

import pytest

from app.errors import OtherSettings
from app.registry.registry import Registry
from app.touchpoint import DAY
from tests.support.pipeline import running_pipeline

NOW = 1_700_000_000_000_000 + DAY


async def test_command_with_other_settings_is_refused(database_url: str) -> None:
    async with running_pipeline(database_url, NOW, timezone="Europe/Lisbon") as pipeline:
        await pipeline.segment("dated", {"did": "A", "from": "2023-01-01"})
        other = Registry(pipeline.pool, pipeline.settings.model_copy(update={"timezone": "Asia/Kolkata"}))
        with pytest.raises(OtherSettings):
            await other.load(settle=False)
        await other.access.refresh()
        assert other.access.current.sources
        async with pipeline.pool.acquire() as connection:
            assert await pipeline.registry.rules.read(connection) is pipeline.registry.rules.current


async def test_later_server_with_other_settings_outdates_older_ones(database_url: str) -> None:
    async with running_pipeline(database_url, NOW, timezone="Europe/Lisbon") as pipeline:
        await pipeline.segment("dated", {"did": "A", "from": "2023-01-01"})
        pipeline.registry.start()
        async with running_pipeline(database_url, NOW, timezone="Asia/Kolkata"):
            for _ in range(50):
                await asyncio.sleep(0.1)
                if pipeline.registry.is_outdated:
                    break
            assert pipeline.registry.is_outdated
        await pipeline.registry.stop()
