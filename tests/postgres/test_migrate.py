"""Migrations: concurrency, failures, and data written by the first version of the schema."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest

from app.config import Settings
from app.formats.timestamps import rfc3339
from app.postgres import migrate
from app.postgres.pool import FrozenClock, prepare_connection
from app.registry.bootstrap import FirstKeys
from app.touchpoint import DAY, HOUR, derive_identity_id
from tests.support.running_app import NOON, run_worker, running_app

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
    """Return a migrations directory with the real ``env.py`` and two invented revisions."""
    shutil.copy(migrate.scripts_dir() / "env.py", tmp_path)
    (tmp_path / "versions").mkdir()
    add(tmp_path, "0001", None, "CREATE TABLE one (n int)")
    add(tmp_path, "0002", "0001", "SELECT pg_sleep(0.2); INSERT INTO one VALUES (1)")
    monkeypatch.setattr(migrate, "scripts_dir", lambda: tmp_path)
    migrate.latest_revision.cache_clear()
    yield tmp_path
    migrate.latest_revision.cache_clear()


def add(scripts: Path, name: str, before: str | None, sql: str) -> None:
    (scripts / "versions" / f"{name}_made_up.py").write_text(REVISION.format(name=name, before=before, sql=sql))
    migrate.latest_revision.cache_clear()


async def fetch(url: str, statement: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def test_empty_database_is_migrated_to_the_head(scripts: Path, empty_database_url: str) -> None:
    assert migrate.latest_revision() == "0002"
    assert await migrate.read_revision(empty_database_url) is None
    assert await migrate.upgrade(empty_database_url) is True
    assert await migrate.read_revision(empty_database_url) == "0002"
    assert await migrate.upgrade(empty_database_url) is False
    add(scripts, "0003", "0002", "DROP TABLE one")
    assert await migrate.upgrade(empty_database_url) is True
    assert await fetch(empty_database_url, "SELECT to_regclass('one')") is None


@pytest.mark.usefixtures("scripts")
async def test_concurrent_processes_migrate_once(empty_database_url: str) -> None:
    await asyncio.gather(*(migrate.upgrade(empty_database_url) for _ in range(4)))
    assert await fetch(empty_database_url, "SELECT count(*) FROM one") == 1


async def test_failing_migration_keeps_the_earlier_ones(scripts: Path, empty_database_url: str) -> None:
    add(scripts, "0003", "0002", "INSERT INTO one VALUES (2); SELECT 1 / 0")
    with pytest.raises(Exception, match="division by zero"):
        await migrate.upgrade(empty_database_url)
    assert await migrate.read_revision(empty_database_url) == "0002"
    assert await fetch(empty_database_url, "SELECT count(*) FROM one") == 1


async def test_migration_does_not_wait_long_for_a_lock(scripts: Path, empty_database_url: str) -> None:
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
    with pytest.raises(RuntimeError, match="several heads"):
        migrate.latest_revision()


def test_checking_does_not_import_alembic() -> None:
    code = (
        "import sys; from app.postgres import migrate; migrate.latest_revision();"
        "sys.exit('alembic' in sys.modules or 'sqlalchemy' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


async def test_commands_migrate_without_loading_alembic_themselves(empty_database_url: str) -> None:
    code = (
        "import sys; from app.cli import commands; from app.postgres import migrate;"
        "migrate.upgrade_in_own_process(sys.argv[1]);"
        "sys.exit('alembic' in sys.modules or 'sqlalchemy' in sys.modules)"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code, empty_database_url], check=True)
        assert await migrate.read_revision(empty_database_url) == migrate.latest_revision()


async def test_failure_of_the_migrating_process_is_raised(
    empty_database_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    await fetch(empty_database_url, "CREATE TABLE alembic_version (version_num text)")
    await fetch(empty_database_url, "INSERT INTO alembic_version VALUES ('of_the_future')")
    with pytest.raises(migrate.MigrationFailed):
        await asyncio.to_thread(migrate.upgrade_in_own_process, empty_database_url)
    assert "of_the_future" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql+asyncpg://u@h/d", "postgresql://u@h/d"),
        ("postgres://u@h/d?sslmode=require", "postgres://u@h/d?sslmode=require"),
    ],
)
def test_driver_is_removed_from_the_url(url: str, expected: str) -> None:
    assert migrate.asyncpg_url(url) == expected


# ---------------------------------------------------------------- a database of the first version, with data

SECRET_KEY = "sk_0123456789abcdef0123456789abcdef"
USER_1, USER_2, USER_3 = (derive_identity_id("user_id", f"user-{n}") for n in (1, 2, 3))
ANON_1, ANON_2 = (derive_identity_id("anonymous_id", f"anon-{n}") for n in (1, 2))
ORDERS = [(USER_1, NOON - 60 * DAY), (ANON_1, NOON - 40 * DAY), (USER_2, NOON - 50 * DAY), (ANON_2, NOON - 20 * DAY)]
BY_MESSAGE = b'{"kind":"message","message_id":"m-1","source":"default"}'
BY_TIME = b'{"kind":"time"}'
EDITED = {"did": "Order Completed", "within": "45d"}


def only_the_first(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    """Make the first migration the only one."""
    first = next((migrate.scripts_dir() / "versions").glob("0001_*.py"))
    (directory / "versions").mkdir()
    shutil.copy(migrate.scripts_dir() / "env.py", directory)
    shutil.copy(first, directory / "versions")
    monkeypatch.setattr(migrate, "scripts_dir", lambda: directory)
    migrate.latest_revision.cache_clear()


def old_state(messages: int, born: int | None) -> bytes:
    """Return a customer state in the format of the first version. It also refers to unknown rules and leaves."""
    series = {"230fa3b16cc2": [2, [NOON - 60 * DAY], [], [], False]}
    truths, journeys = {2: [True, NOON, None], 99: [False, NOON, NOON + DAY]}, {1: [0, NOON]}
    return msgspec.msgpack.encode([messages, NOON - DAY, born, False, b'{"plan":"old"}', series, truths, journeys, b""])


async def write_as_the_first_version_did(url: str) -> None:
    connection = await asyncpg.connect(url)
    await prepare_connection(connection)
    await connection.execute("UPDATE revisions SET value = 7 WHERE name = 'definitions'")
    await connection.execute("INSERT INTO sources (key, name) VALUES ('default', 'Default')")
    await connection.execute(
        "INSERT INTO keys (hash, kind, name, hint) VALUES ($1, 'secret', 'Default', 'sk_0123')",
        sha256(SECRET_KEY.encode()).digest(),
    )
    await connection.executemany(
        "INSERT INTO definitions (kind, key, version, name, body, created_at, superseded_at) "
        "VALUES ($1, $2, $3, $2, $4, $5, $6)",
        [
            ("segment", "buyers", 1, b'{"did":"Order Completed","within":"30d"}', NOON - 2 * DAY, NOON - DAY),
            ("segment", "buyers", 2, b'{"did":"Order Completed","within":"45d"}', NOON - DAY, None),
            ("segment", "others", 1, b'{"not":{"segment":"buyers"}}', NOON - DAY, None),
            ("segment", "gone", 1, b'{"everyone":true}', NOON - 2 * DAY, NOON - DAY),
            (
                "journey",
                "trip",
                1,
                b'[{"key":"bought","name":"Bought","rule":{"did":"Order Completed"}}]',
                NOON - DAY,
                None,
            ),
        ],
    )
    messages: list[tuple[Any, ...]] = [
        (identity, at, "track", "Order Completed", None, f"order-{n}") for n, (identity, at) in enumerate(ORDERS)
    ]
    messages += [
        (USER_1, NOON - 39 * DAY, "identify", None, b'{"plan":"pro"}', "identify-1"),
        (USER_3, NOON - 5 * DAY, "track", "Product Viewed", None, "view-3"),
        (USER_3, NOON + 2 * HOUR, "track", "Order Completed", None, "order-of-the-future"),
    ]
    await connection.executemany(
        """
        INSERT INTO touchpoints (received_at, identity_id, occurred_at, type, name, traits, message_id, channel, source,
                                 properties, context, carried)
        VALUES ($1, $2, $3, $4, $5, $6, $7, 'server', 'default', '{}', '{}', '[]')
        """,
        [(NOON - HOUR, *message) for message in messages],
    )
    people = {USER_1: USER_1, USER_2: USER_2, USER_3: USER_3, ANON_1: USER_1, ANON_2: ANON_2}
    names = {USER_1: "user-1", USER_2: "user-2", USER_3: "user-3", ANON_1: "anon-1", ANON_2: "anon-2"}
    await connection.executemany(
        "INSERT INTO identities (id, kind, value, customer_id, carried) VALUES ($1, $2, $3, $4, true)",
        [
            (id, "user_id" if name.startswith("user") else "anonymous_id", name, people[id])
            for id, name in names.items()
        ],
    )
    await connection.executemany(
        """
        INSERT INTO links (weaker, stronger, kind, occurred_at, message_id, source, joined, undone_at)
        VALUES ($1, $2, 'link', $3, $4, 'default', true, $5)
        """,
        [(ANON_1, USER_1, NOON - 39 * DAY, "identify-1", None), (ANON_2, USER_2, NOON - 20 * DAY, "x", NOON - DAY)],
    )
    await connection.executemany(
        """
        INSERT INTO customers (id, state, flips_at, sweep_at, revision, stale, contested, last_link_at)
        VALUES ($1, $2, $3, $4, $5, $6, false, $7)
        """,
        [
            (USER_1, old_state(3, NOON - 60 * DAY), NOON + 5 * DAY, NOON + DAY, 7, False, 0),
            (USER_2, old_state(1, NOON - 50 * DAY), None, None, 5, False, 0),
            (USER_3, old_state(0, None), None, 0, 7, True, 0),
            (ANON_2, old_state(1, NOON - 20 * DAY), NOON - DAY, NOON - DAY, 6, False, 0),
        ],
    )
    await connection.executemany(
        """
        INSERT INTO transitions (customer_id, definition, value, version, entered_at, left_at, entered_cause,
                                 left_cause, entered_recorded_at, left_recorded_at, retracted_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $10)
        """,
        [
            # The backfill is unfinished: intervals of two versions have the same start, and one interval is retracted.
            (USER_1, "segment:buyers", "", 1, NOON - 60 * DAY, NOON - 30 * DAY, BY_MESSAGE, BY_TIME, NOON, NOON),
            (USER_1, "segment:buyers", "", 2, NOON - 60 * DAY, None, BY_MESSAGE, None, NOON, None),
            (USER_2, "segment:buyers", "", 1, NOON - 50 * DAY, None, BY_MESSAGE, None, NOON, None),
            (USER_2, "segment:buyers", "", 2, NOON - 50 * DAY, NOON - 5 * DAY, BY_MESSAGE, BY_TIME, NOON, None),
            (USER_3, "segment:others", "", 1, NOON - 5 * DAY, None, BY_MESSAGE, None, NOON, None),
            (ANON_2, "segment:gone", "", 1, NOON - 20 * DAY, None, BY_MESSAGE, None, NOON, None),
            (ANON_2, "journey:trip", "bought", 1, NOON - 20 * DAY, None, BY_MESSAGE, None, NOON, None),
        ],
    )
    await connection.close()


async def test_data_of_the_first_version_is_migrated(
    empty_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        only_the_first(patched, tmp_path)
        await migrate.upgrade(empty_database_url)
        await write_as_the_first_version_did(empty_database_url)
    migrate.latest_revision.cache_clear()
    assert await migrate.read_revision(empty_database_url) == "0001"
    assert await migrate.upgrade(empty_database_url) is True
    assert await migrate.read_revision(empty_database_url) == migrate.latest_revision()

    settings = Settings.model_validate({"DATABASE_URL": empty_database_url, "data_dir": tmp_path, "port": 0})
    async with running_app(settings, FrozenClock(NOON)) as service:
        service.keys = FirstKeys("default", "", SECRET_KEY)

        async def check(stored: int) -> None:
            for key, members in (("buyers", {"user-1", "anon-2"}), ("others", {"user-2", "user-3"})):
                listed = await service.all_of(f"/v1/segments/{key}/members")
                assert {name["value"] for entry in listed for name in entry["identities"]} - {"anon-1"} == members
                verification = await service.tell("POST", f"/v1/segments/{key}/verify")
                counts = [verification[name] for name in ("customers", "members", "stored", "differing", "differences")]
                assert counts == [4, 2, stored, 0, []]
            history: dict[str, list[Any]] = {}
            for who in ("user-1", "user-2", "user-3", "anonymous_id:anon-2"):
                stays = (await service.ask(f"/v1/customers/{who}/segments", params={"history": "true"}))["items"]
                history[who] = [(entry["since"], entry["left_at"]) for entry in stays if entry["key"] == "buyers"]
                assert {entry["key"] for entry in stays} <= {"buyers", "others"}
            assert history == {
                "user-1": [(rfc3339(NOON - 60 * DAY), None)],
                "user-2": [(rfc3339(NOON - 50 * DAY), rfc3339(NOON - 5 * DAY))],
                "user-3": [],
                "anonymous_id:anon-2": [(rfc3339(NOON - 20 * DAY), None)],
            }
            customer = await service.ask("/v1/customers/anonymous_id:anon-1")
            assert (customer["traits"], customer["stages"]["trip"]["since"]) == (
                {"plan": "pro"},
                rfc3339(NOON - 60 * DAY),
            )

        await check(stored=0)
        await run_worker(service)
        await check(stored=4)
        left_over = await service.app.state.services.pool.fetchval(
            """
            SELECT count(*) FROM transitions
            WHERE retracted_at IS NULL AND meaning NOT IN (SELECT number FROM rule_numbers)
            """
        )
        assert left_over == 0
        segment = await service.ask("/v1/segments/buyers")
        assert (segment["version"], segment["status"], segment["rule"]) == (2, "current", EDITED)
        for key, statuses in (("buyers", ["current", "superseded"]), ("gone", ["archived"])):
            versions = (await service.ask(f"/v1/segments/{key}/versions"))["items"]
            assert [entry["status"] for entry in versions] == statuses
