"""app.postgres.schema describes what the migrations build: the same tables, columns, types, keys and indexes."""

from __future__ import annotations

from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from app.postgres.schema import metadata


async def test_the_metadata_is_what_migrating_builds(database_url: str) -> None:
    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "include_name": _is_ours})
        # Comments explain the schema to a reader of app.postgres.schema; the database does not carry them.
        return [found for found in compare_metadata(context, metadata) if "comment" not in str(_kind(found))]

    engine = create_async_engine(database_url.replace("postgresql://", "postgresql+asyncpg://", 1))
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()


def _kind(found: Any) -> object:
    return found[0][0] if isinstance(found, list) else found[0]


def _is_ours(name: str | None, type_: str, parents: object) -> bool:
    """Partitions of the log and Alembic's own table have no description of ours."""
    del parents
    return type_ != "table" or (name != "alembic_version" and not str(name).startswith("touchpoints_"))
