"""Directory access that root grants to the user of PostgreSQL: only traversal, and only if it is missing."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.postgres.directory_acl import grant_traversal
from app.postgres.embedded import EmbeddedPostgres

IS_ROOT = sys.platform == "linux" and os.geteuid() == 0
pytestmark = [
    pytest.mark.database,
    pytest.mark.skipif(not IS_ROOT, reason="only root runs PostgreSQL as another user"),
]
NOBODY = pwd.getpwnam("nobody").pw_uid


@pytest.fixture
def closed() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="segue-") as directory:
        inner = Path(directory) / "inner"
        inner.mkdir(mode=0o755)
        assert inner.parent.stat().st_mode & 0o777 == 0o700
        yield inner


def as_user(uid: int, *command: str) -> bool:
    return subprocess.run(command, user=uid, group=uid, extra_groups=[], capture_output=True, cwd="/").returncode == 0


def test_only_one_user_may_traverse_and_none_may_list(closed: Path) -> None:
    assert not as_user(NOBODY, "ls", str(closed))
    assert grant_traversal(closed, NOBODY)
    assert grant_traversal(closed, NOBODY), "again"
    assert as_user(NOBODY, "ls", str(closed))
    assert not as_user(NOBODY, "ls", str(closed.parent)), "traversal must not allow listing"
    assert not as_user(NOBODY - 1, "ls", str(closed)), "other users must not get access"


def test_open_directories_are_left_alone(closed: Path) -> None:
    closed.parent.chmod(0o711)
    assert grant_traversal(closed, NOBODY)
    assert os.listxattr(closed.parent) == []
    assert closed.parent.stat().st_mode & 0o777 == 0o711


def test_cluster_runs_below_a_closed_directory(closed: Path) -> None:
    with EmbeddedPostgres(closed / "data") as postgres:
        assert postgres.pid is not None
        assert (closed / "data" / "pg").stat().st_uid != 0


PLAIN_USER = """
import asyncio, asyncpg, os, sys
from pathlib import Path
from app.postgres.embedded import EmbeddedPostgres

async def ask(url):
    connection = await asyncpg.connect(url)
    print(await connection.fetchval("SELECT 42"))
    await connection.close()

os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[2]))
os.umask(0o077)
for _ in range(2):
    with EmbeddedPostgres(Path(sys.argv[1]), options={"fsync": "off"}) as postgres:
        asyncio.run(ask(postgres.start()))
"""


def test_plain_user_grants_nothing_and_root_uses_the_owner() -> None:
    with tempfile.TemporaryDirectory(prefix="segue-") as directory:
        os.chown(directory, NOBODY, NOBODY)
        data_dir = Path(directory) / "data"
        command = [sys.executable, "-c", PLAIN_USER, str(data_dir), str(NOBODY)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.stdout, done.stderr) == ("42\n42\n", "")
        assert {path.stat().st_uid for path in data_dir.iterdir()} == {NOBODY}
        with EmbeddedPostgres(data_dir):
            assert (data_dir / "pg" / "postmaster.pid").stat().st_uid == NOBODY
