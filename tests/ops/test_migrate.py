"""Migrating: at once when there is nothing to do, once when several processes start together, whole or not at all."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from app import migrate

REVISION = '''"""{name}"""
from alembic import op

revision: str = "{name}"
down_revision: str | None = {before!r}


def upgrade() -> None:
    for statement in """{sql}""".split(";"):
        op.execute(statement)
'''


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A migrations directory with our env.py and two made-up revisions."""
    shutil.copy(migrate.scripts_dir() / "env.py", tmp_path)
    (tmp_path / "versions").mkdir()
    add(tmp_path, "0001", None, "CREATE TABLE one (n int)")
    add(tmp_path, "0002", "0001", "SELECT pg_sleep(0.2); INSERT INTO one VALUES (1)")
    monkeypatch.setattr(migrate, "scripts_dir", lambda: tmp_path)
    migrate.head.cache_clear()
    yield tmp_path
    migrate.head.cache_clear()


def add(scripts: Path, name: str, before: str | None, sql: str) -> None:
    (scripts / "versions" / f"{name}_made_up.py").write_text(REVISION.format(name=name, before=before, sql=sql))
    migrate.head.cache_clear()


async def fetch(url: str, statement: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def test_an_empty_database_comes_to_the_head(scripts: Path, empty_database_url: str) -> None:
    assert migrate.head() == "0002"
    assert await migrate.current(empty_database_url) is None
    assert await migrate.upgrade(empty_database_url) is True
    assert await migrate.current(empty_database_url) == "0002"
    assert await migrate.upgrade(empty_database_url) is False
    add(scripts, "0003", "0002", "DROP TABLE one")
    assert await migrate.upgrade(empty_database_url) is True
    assert await fetch(empty_database_url, "SELECT to_regclass('one')") is None


@pytest.mark.usefixtures("scripts")
async def test_processes_that_start_together_migrate_once(empty_database_url: str) -> None:
    await asyncio.gather(*(migrate.upgrade(empty_database_url) for _ in range(4)))
    assert await fetch(empty_database_url, "SELECT count(*) FROM one") == 1


async def test_a_failing_migration_leaves_the_ones_before_it(scripts: Path, empty_database_url: str) -> None:
    add(scripts, "0003", "0002", "INSERT INTO one VALUES (2); SELECT 1 / 0")
    with pytest.raises(Exception, match="division by zero"):
        await migrate.upgrade(empty_database_url)
    assert await migrate.current(empty_database_url) == "0002"
    assert await fetch(empty_database_url, "SELECT count(*) FROM one") == 1


async def test_a_migration_does_not_wait_long_for_a_lock(scripts: Path, empty_database_url: str) -> None:
    await migrate.upgrade(empty_database_url)
    add(scripts, "0003", "0002", "SET LOCAL lock_timeout = '100ms'; DROP TABLE one")
    blocker = await asyncpg.connect(empty_database_url)
    async with blocker.transaction():
        await blocker.execute("SELECT 1 FROM one")
        with pytest.raises(Exception, match="lock timeout"):
            await migrate.upgrade(empty_database_url)
    await blocker.close()


@pytest.mark.usefixtures("scripts")
async def test_timeouts_are_set(scripts: Path, empty_database_url: str) -> None:
    add(scripts, "0003", "0002", "CREATE TABLE said AS SELECT current_setting('lock_timeout') AS lock_timeout")
    await migrate.upgrade(empty_database_url)
    assert await fetch(empty_database_url, "SELECT lock_timeout FROM said") == "4s"


def test_two_heads_are_refused(scripts: Path) -> None:
    add(scripts, "0002b", "0001", "SELECT 1")
    with pytest.raises(RuntimeError, match="one line"):
        migrate.head()


def test_checking_does_not_import_alembic() -> None:
    code = (
        "import sys, app.migrate; app.migrate.head(); sys.exit('alembic' in sys.modules or 'sqlalchemy' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("postgresql+asyncpg://u@h/d", "postgresql://u@h/d"),
        ("postgres://u@h/d?sslmode=require", "postgres://u@h/d?sslmode=require"),
    ],
)
def test_a_driver_in_the_url_is_no_obstacle(given: str, expected: str) -> None:
    assert migrate.dsn(given) == expected
