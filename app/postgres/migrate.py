"""Migrates a database to the newest schema. An up-to-date database costs one query and no import of Alembic.

The migrations are in ``migrations/`` of the repository; an installed package has them in ``app/migrations``.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import asyncpg

if TYPE_CHECKING:
    from sqlalchemy import Connection

MIGRATION_LOCK: Final = 0x5E60E_001
"""Key of the advisory lock for migrations; it must differ from the other advisory locks of Segue."""

_HERE = Path(__file__).parents[1]
_REVISION = re.compile(r"^(revision|down_revision)\b[^=\n]*=\s*['\"](\w+)['\"]", re.MULTILINE)


def scripts_dir() -> Path:
    """Return the directory of ``env.py`` and ``versions/``: in the installed package, else beside it in a checkout."""
    return next(
        directory
        for directory in (_HERE / "migrations", _HERE.parent / "migrations")
        if (directory / "env.py").is_file()
    )


@cache
def latest_revision() -> str | None:
    """Return the newest revision among the migration files, or None if there are no files."""
    revisions: set[str] = set()
    parents: set[str] = set()
    for script in (scripts_dir() / "versions").glob("*.py"):
        for name, value in _REVISION.findall(script.read_text(encoding="utf-8")):
            (revisions if name == "revision" else parents).add(value)
    heads = revisions - parents
    if len(heads) > 1:
        raise RuntimeError(f"Migrations have several heads: {sorted(heads)}")
    return next(iter(heads), None)


async def read_revision(database_url: str) -> str | None:
    """Return the revision of a database, or None if it has never been migrated."""
    connection = await asyncpg.connect(asyncpg_url(database_url))
    try:
        return await read_revision_of(connection)
    finally:
        await connection.close()


async def read_revision_of(connection: Any) -> str | None:
    """Return the revision as :func:`read_revision` does, over an open asyncpg connection."""
    if await connection.fetchval("SELECT to_regclass('alembic_version')") is None:
        return None
    revision: str | None = await connection.fetchval("SELECT version_num FROM alembic_version")
    return revision


async def upgrade(database_url: str) -> bool:
    """Run the missing migrations, each in its own transaction; return True if there were any.

    Processes that start together run one after another under an advisory lock. An error of the database is raised; the
    migrations before it remain committed.
    """
    if latest_revision() is None or await read_revision(database_url) == latest_revision():
        return False
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    # Let asyncpg parse the URL, as everywhere else in Segue; SQLAlchemy would interpret it differently.
    engine = create_async_engine(
        "postgresql+asyncpg://", poolclass=NullPool, async_creator=lambda: asyncpg.connect(asyncpg_url(database_url))
    )
    async with engine.connect() as connection:
        # Lock before Alembic is called: its context is global to the process, so concurrent tasks must not share it.
        await connection.execute(text("SELECT pg_advisory_lock(:turn)"), {"turn": MIGRATION_LOCK})
        await connection.commit()
        if await read_revision(database_url) == latest_revision():
            return False
        await connection.run_sync(_upgrade)
    return True


class MigrationFailed(Exception):
    """The process that ran the migrations failed. It has printed the reason on stderr."""


def upgrade_in_own_process(database_url: str) -> None:
    """Run the missing migrations as :func:`upgrade` does, but in a child process if there are any.

    Alembic and SQLAlchemy take 30 MB, which a server would hold until it exits.

    Raises:
        OSError, asyncpg.PostgresError: the database cannot be reached.
        MigrationFailed: a migration failed.
    """
    if latest_revision() is None or asyncio.run(read_revision(database_url)) == latest_revision():
        return
    # The URL may contain a password, so it must not be an argument, which other users of the machine can read.
    environment = {**os.environ, "DATABASE_URL": database_url}
    child = subprocess.run([sys.executable, "-m", "app.postgres.migrate"], env=environment, check=False)
    if child.returncode != 0:
        raise MigrationFailed("The database could not be migrated. The reason is above.")


def asyncpg_url(database_url: str) -> str:
    """Return the URL without SQLAlchemy's ``+driver``, which asyncpg does not accept."""
    scheme, separator, rest = database_url.partition("://")
    return scheme.partition("+")[0] + separator + rest


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(scripts_dir()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


if __name__ == "__main__":
    asyncio.run(upgrade(os.environ["DATABASE_URL"]))
