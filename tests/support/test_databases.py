"""Reuse of test databases."""

from __future__ import annotations

import pytest

from app.postgres.migrate import latest_revision, read_revision
from tests.support.databases import TestDatabases, execute


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE alembic_version SET version_num = 'another'",
        "DELETE FROM alembic_version",
        "DROP TABLE alembic_version",
        "ALTER TABLE sources ADD COLUMN another text",
    ],
)
async def test_database_with_another_schema_is_not_reused(databases: TestDatabases, change: str) -> None:
    url = await databases.acquire()
    await execute(url, change)
    await databases.release(url)
    next_url = await databases.acquire()
    assert next_url != url
    assert await read_revision(next_url) == latest_revision()
    await databases.release(next_url)


async def test_database_is_reused_without_the_rows_of_the_test_before(databases: TestDatabases) -> None:
    url = await databases.acquire()
    await execute(url, "UPDATE sources SET options = '{\"a\": 1}'")
    await databases.release(url)
    assert await databases.acquire() == url
    await databases.release(url)
