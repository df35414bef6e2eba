"""Migrated databases for tests. A database is emptied and reused, because creating one takes longer."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from app.postgres.migrate import upgrade

T = TypeVar("T")

TEMPLATE = "segue_template"

_RESET = """
DO $$
DECLARE
    written text;
    sequence regclass;
BEGIN
    PERFORM pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid();

    SELECT string_agg(oid::regclass::text, ', ') INTO written FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND pg_relation_size(oid) > 0
        AND relname <> 'alembic_version';
    IF written IS NOT NULL THEN
        EXECUTE 'TRUNCATE ' || written;
    END IF;

    FOR sequence IN SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'S' LOOP
        EXECUTE format('ALTER SEQUENCE %s RESTART', sequence);
    END LOOP;
    PERFORM pg_stat_reset();
END
$$
"""
_SCHEMA = """
SELECT jsonb_build_object(
    'columns', (
        SELECT jsonb_agg(to_jsonb(a) - 'attrelid' || jsonb_build_object('table', c.relname) ORDER BY c.relname, attnum)
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        WHERE c.relnamespace = 'public'::regnamespace AND c.relname !~ '^touchpoints_\\d'
    ),
    'options', (
        SELECT jsonb_agg(jsonb_build_array(relname, relkind, reloptions, relhastriggers) ORDER BY relname)
        FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname !~ '^touchpoints_\\d'
    ),
    'revision', (SELECT jsonb_agg(version_num) FROM alembic_version),
    'functions', (SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace),
    'statistics', (
        SELECT count(*) FROM pg_statistic s JOIN pg_class c ON c.oid = s.starelid
        WHERE c.relnamespace = 'public'::regnamespace
    )
)::text
"""
"""Query for everything except rows that a test may have changed. New monthly partitions may stay."""


class TestDatabases:
    """Copies of one migrated database in a cluster. A released copy is emptied and reused by a later test."""

    __test__ = False  # pytest must not collect this class

    def __init__(self, cluster_url: str) -> None:
        self._cluster_url = cluster_url
        self._numbers = itertools.count(1)
        self._free: list[str] = []
        self._schema = ""
        self._rows: list[tuple[str, str]] = []

    async def migrate(self) -> None:
        """Create the template database. PostgreSQL copies a template only while no client is connected to it."""
        await execute(self._cluster_url, f"CREATE DATABASE {TEMPLATE}")
        url = with_database(self._cluster_url, TEMPLATE)
        await upgrade(url)
        connection = await asyncpg.connect(url)
        try:
            self._schema = await connection.fetchval(_SCHEMA)
            tables = await connection.fetch(
                "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' "
                "AND pg_relation_size(oid) > 0 AND relname <> 'alembic_version'"
            )
            self._rows = [
                (table, await connection.fetchval(f"SELECT jsonb_agg(to_jsonb(t))::text FROM {table} t"))
                for (table,) in tables
            ]
        finally:
            await connection.close()

    async def create(self, template: str = TEMPLATE) -> str:
        """Create a copy of the template and return its URL."""
        name = f"test_{next(self._numbers)}"
        await execute(self._cluster_url, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return with_database(self._cluster_url, name)

    async def drop(self, url: str) -> None:
        await execute(self._cluster_url, f"DROP DATABASE {urlsplit(url).path[1:]} WITH (FORCE)")

    async def acquire(self) -> str:
        """Return the URL of a database that contains only the rows of the template."""
        return self._free.pop() if self._free else await self.create()

    async def release(self, url: str) -> None:
        """Empty the database and keep it for reuse.

        Drop it if the test changed more than rows, such as the revision.
        """
        if await self._reset(url):
            self._free.append(url)
        else:
            await self.drop(url)

    async def _reset(self, url: str) -> bool:
        """Restore the rows of the template. Return False if something else still differs from the template."""
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(_RESET)
            for table, rows in self._rows:
                await connection.execute(
                    f"INSERT INTO {table} SELECT * FROM jsonb_populate_recordset(NULL::{table}, $1::text::jsonb)", rows
                )
            return await connection.fetchval(_SCHEMA) == self._schema
        except asyncpg.PostgresError:  # The test has dropped a table.
            return False
        finally:
            await connection.close()


def with_database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


async def execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine from a synchronous fixture in a new event loop."""
    return asyncio.run(work)
