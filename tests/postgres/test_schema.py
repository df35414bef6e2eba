"""``app.postgres.schema`` matches the schema that the migrations create: tables, columns, types, keys and indexes."""

from __future__ import annotations

from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from app.postgres.schema import metadata


async def test_schema_equals_the_migrated_database(database_url: str) -> None:
    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "include_name": _is_ours})
        # The comments in app.postgres.schema are for its readers. The migrations do not create them.
        return [
            difference for difference in compare_metadata(context, metadata) if "comment" not in str(_kind(difference))
        ]

    engine = create_async_engine(database_url.replace("postgresql://", "postgresql+asyncpg://", 1))
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()


def _kind(difference: Any) -> object:
    return difference[0][0] if isinstance(difference, list) else difference[0]


def _is_ours(name: str | None, type_: str, parents: object) -> bool:
    """Skip partitions of the log and Alembic's table, because the schema does not describe them."""
    del parents
    return type_ != "table" or (name != "alembic_version" and not str(name).startswith("touchpoints_"))
