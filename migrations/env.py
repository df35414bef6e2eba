"""Alembic environment. Uses the connection that ``app.postgres.migrate`` passes, else connects to ``DATABASE_URL``.

    alembic revision -m "summary"           create a migration (settings are in pyproject.toml)
    alembic upgrade head --sql              print the SQL

Each migration is one transaction. It waits at most ``LOCK_TIMEOUT`` for a lock, so that it fails instead of blocking
the service, and no statement runs longer than ``STATEMENT_TIMEOUT``. A migration that needs more time uses
``SET LOCAL`` and explains why.
"""

from __future__ import annotations

import asyncio
import os

import asyncpg
from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app.postgres.migrate import MIGRATION_LOCK, asyncpg_url
from app.postgres.schema import metadata

LOCK_TIMEOUT = "4s"
STATEMENT_TIMEOUT = "60s"


def migrate(connection: Connection) -> None:
    """Run pending migrations under an advisory lock. PostgreSQL also releases the lock when the session ends."""
    connection.execute(text("SELECT pg_advisory_lock(:turn)"), {"turn": MIGRATION_LOCK})
    connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
    connection.execute(text(f"SET statement_timeout = '{STATEMENT_TIMEOUT}'"))
    connection.commit()
    context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
    connection.execute(text("SELECT pg_advisory_unlock(:turn)"), {"turn": MIGRATION_LOCK})
    connection.commit()


async def connect_and_migrate() -> None:
    url = asyncpg_url(os.environ["DATABASE_URL"])
    engine = create_async_engine(
        "postgresql+asyncpg://", poolclass=NullPool, async_creator=lambda: asyncpg.connect(url)
    )
    async with engine.connect() as connection:
        await connection.run_sync(migrate)


handed_in: Connection | None = context.config.attributes.get("connection")
if context.is_offline_mode():
    context.configure(dialect_name="postgresql", target_metadata=metadata, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
elif handed_in is not None:
    migrate(handed_in)
else:
    asyncio.run(connect_and_migrate())
