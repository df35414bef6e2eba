"""Testbed: one PostgreSQL with fsync on, with Segue and the baseline service as one process each."""

from __future__ import annotations

import asyncio
import tempfile
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from app.postgres.embedded import EmbeddedPostgres
from app.postgres.migrate import upgrade
from bench.load_generator import Generator, Plan, RequestKind
from bench.processes import Server, free_port, serving
from bench.sample_messages import VISIT_MESSAGES

_T = TypeVar("_T")
if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection

DATABASES: Final = ("segue", "copied", "baseline", "counted")


@dataclass
class Databases:
    """Databases of one PostgreSQL, which are empty at first. ``urls`` contains their URLs by name."""

    urls: dict[str, str]
    directory: Path
    """Temporary directory for logs, which is deleted at the end of the run."""
    postgres_pid: int

    def query(self, database: str, run: Callable[[Connection], Coroutine[Any, Any, _T]]) -> _T:
        """Call ``run`` with a new connection and return the result of its coroutine."""

        async def connect_and_run() -> _T:
            connection = await asyncpg.connect(self.urls[database])
            try:
                return await run(connection)
            finally:
                await connection.close()

        return asyncio.run(connect_and_run())


@dataclass
class Testbed:
    """The running processes, and the number of the next message for each server."""

    databases: Databases
    segue: Server
    baseline: Server
    generator: Generator
    next_message: dict[Server, int] = field(default_factory=lambda: defaultdict(int))

    def plan(
        self,
        kind: RequestKind,
        requests: int,
        in_flight: int,
        size: int = 1,
        *,
        baseline: bool = False,
        visit: int = VISIT_MESSAGES,
    ) -> Plan:
        """Return a plan for Segue or the baseline. Writes use new message numbers; reads request stored customers."""
        server = self.baseline if baseline else self.segue
        key = self.segue.printed_key("secret" if kind is RequestKind.CUSTOMER else "write")
        is_write = kind in (RequestKind.BATCH, RequestKind.SINGLE)
        first = self.next_message[server] if is_write else 0
        self.next_message[server] += requests * size if is_write else 0
        return Plan(kind, server.port, key, requests, in_flight, first, size, visit)

    def query(self, database: str, run: Callable[[Connection], Coroutine[Any, Any, _T]]) -> _T:
        return self.databases.query(database, run)


@contextmanager
def start_testbed(generator: Generator, *, profile: Path | None = None) -> Iterator[Testbed]:
    """Start PostgreSQL, Segue and the baseline; with ``profile``, Segue writes its cProfile data to that file."""
    with start_databases(DATABASES) as databases:
        for name in ("copied", "counted"):
            asyncio.run(upgrade(databases.urls[name]))
        environment = {"BENCH_PROFILE": str(profile)} if profile else {}
        with (
            start_segue(databases, "segue", environment) as server,
            _baseline(databases.urls["baseline"], databases.directory / "baseline.log") as baseline,
        ):
            yield Testbed(databases, server, baseline, generator)


@contextmanager
def start_databases(names: Sequence[str]) -> Iterator[Databases]:
    with tempfile.TemporaryDirectory(prefix="segue-bench-") as directory:
        place = Path(directory)
        with EmbeddedPostgres(place / "data") as postgres:
            urls = _create_databases(postgres.start(), names)
            assert postgres.pid is not None
            yield Databases(urls, place, postgres.pid)


_WITHOUT_RATE_LIMITS: Final = {"SEGUE_KEY_RATE": "", "SEGUE_SERVER_ADDRESS_RATE": "", "SEGUE_ADDRESS_RATE": ""}
"""All load comes from one address with one key."""


@contextmanager
def start_segue(databases: Databases, database: str, environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Start ``segue serve`` on one of the databases."""
    port = free_port()
    command = ["bench.server", "serve", "--database-url", databases.urls[database], "--port", str(port)]
    log = databases.directory / f"{database}.log"
    environment = {**_WITHOUT_RATE_LIMITS, **(environment or {})}
    with serving(command, port, log, ready="/readyz", environment=environment) as server:
        yield server


@contextmanager
def _baseline(url: str, log: Path) -> Iterator[Server]:
    port = free_port()
    environment = {"DATABASE_URL": url, "PORT": str(port)}
    with serving(["bench.baseline.service"], port, log, ready="/livez", environment=environment) as server:
        yield server


def _create_databases(first_url: str, names: Sequence[str]) -> dict[str, str]:
    urls = {name: urlunsplit(urlsplit(first_url)._replace(path=f"/{name}")) for name in names}

    async def create() -> None:
        connection = await asyncpg.connect(first_url)
        existing = {row["datname"] for row in await connection.fetch("SELECT datname FROM pg_database")}
        for name in urls.keys() - existing:
            await connection.execute(f"CREATE DATABASE {name}")
        await connection.close()

    asyncio.run(create())
    return urls
