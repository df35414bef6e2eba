"""Bring a database to the newest schema. When it is there already this costs one query and no import of Alembic.

The migrations are the repository's ``migrations/``; an installed package carries them as ``app/migrations``.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import asyncpg

if TYPE_CHECKING:
    from sqlalchemy import Connection

MIGRATION_LOCK: Final = 0x5E60E_001
"""Key of the advisory lock under which migrations run; any number that no other program of ours takes."""

_HERE = Path(__file__).parents[1]
_REVISION = re.compile(r"^(revision|down_revision)\b[^=\n]*=\s*['\"](\w+)['\"]", re.MULTILINE)


def scripts_dir() -> Path:
    """Where ``env.py`` and ``versions/`` are: inside the installed package, else beside it in the checkout."""
    return next(
        directory
        for directory in (_HERE / "migrations", _HERE.parent / "migrations")
        if (directory / "env.py").is_file()
    )


@cache
def latest_revision() -> str | None:
    """The newest revision, read from the files: the one that no other builds on. None when there is none yet."""
    revisions: set[str] = set()
    parents: set[str] = set()
    for script in (scripts_dir() / "versions").glob("*.py"):
        for name, value in _REVISION.findall(script.read_text(encoding="utf-8")):
            (revisions if name == "revision" else parents).add(value)
    heads = revisions - parents
    if len(heads) > 1:
        raise RuntimeError(f"Migrations must form one line, but {sorted(heads)} all come last.")
    return next(iter(heads), None)


async def read_revision(database_url: str) -> str | None:
    """The revision that the database is at; None when it has never been migrated."""
    connection = await asyncpg.connect(asyncpg_url(database_url))
    try:
        return await read_revision_of(connection)
    finally:
        await connection.close()


async def read_revision_of(connection: Any) -> str | None:
    """As :func:`read_revision`, over an open asyncpg connection (a pool's proxy will do)."""
    if await connection.fetchval("SELECT to_regclass('alembic_version')") is None:
        return None
    revision: str | None = await connection.fetchval("SELECT version_num FROM alembic_version")
    return revision


async def upgrade(database_url: str) -> bool:
    """Run the missing migrations, each in a transaction of its own; True when there were any.

    Processes that start together take turns, and the later ones find nothing left to do. Raises what the
    database raises; the migrations before the failing one stay.
    """
    if latest_revision() is None or await read_revision(database_url) == latest_revision():
        return False
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    # asyncpg reads the URL itself, so that it means the same here as everywhere else.
    engine = create_async_engine(
        "postgresql+asyncpg://", poolclass=NullPool, async_creator=lambda: asyncpg.connect(asyncpg_url(database_url))
    )
    async with engine.connect() as connection:
        # Before Alembic, not only in env.py: its context is one a process, so that tasks must not meet in it.
        await connection.execute(text("SELECT pg_advisory_lock(:turn)"), {"turn": MIGRATION_LOCK})
        await connection.commit()
        if await read_revision(database_url) == latest_revision():
            return False
        await connection.run_sync(_upgrade)
    return True


def asyncpg_url(database_url: str) -> str:
    """The URL as asyncpg takes it: without SQLAlchemy's ``+driver``."""
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
