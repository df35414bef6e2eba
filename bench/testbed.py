"""What a run is measured on: one PostgreSQL with fsync on, Segue and the baseline over it, each one process."""

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
from bench.load_generator import Generator, Kind, Plan
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
    """Databases of one PostgreSQL, each new and empty, by name."""

    urls: dict[str, str]
    place: Path
    """A directory for what the run leaves behind, gone at its end."""
    postgres_pid: int

    def query(self, database: str, ask: Callable[[Connection], Coroutine[Any, Any, _T]]) -> _T:
        """What ``ask`` answers, over a plain connection of its own."""

        async def connected() -> _T:
            connection = await asyncpg.connect(self.urls[database])
            try:
                return await ask(connection)
            finally:
                await connection.close()

        return asyncio.run(connected())


@dataclass
class Stage:
    """The running parts, and for each server the number of the next message that it does not have yet."""

    databases: Databases
    segue: Server
    baseline: Server
    generator: Generator
    next_message: dict[Server, int] = field(default_factory=lambda: defaultdict(int))

    def plan(
        self,
        kind: Kind,
        requests: int,
        in_flight: int,
        size: int = 1,
        *,
        baseline: bool = False,
        visit: int = VISIT_MESSAGES,
    ) -> Plan:
        """A plan for Segue, or for the baseline: what stores is new to it, what reads asks for known customers."""
        server = self.baseline if baseline else self.segue
        key = self.segue.printed_key("secret" if kind is Kind.CUSTOMER else "write")
        stores = kind in (Kind.BATCH, Kind.SINGLE)
        first = self.next_message[server] if stores else 0
        self.next_message[server] += requests * size if stores else 0
        return Plan(kind, server.port, key, requests, in_flight, first, size, visit)

    def query(self, database: str, ask: Callable[[Connection], Coroutine[Any, Any, _T]]) -> _T:
        """What ``ask`` answers, over a plain connection of its own."""
        return self.databases.query(database, ask)


@contextmanager
def set_up(generator: Generator, *, profile: Path | None = None) -> Iterator[Stage]:
    """``profile``: run Segue under cProfile, which writes to that file when Segue ends."""
    with databases(DATABASES) as made:
        for name in ("copied", "counted"):
            asyncio.run(upgrade(made.urls[name]))
        environment = {"BENCH_PROFILE": str(profile)} if profile else {}
        with (
            segue(made, "segue", environment) as server,
            _baseline(made.urls["baseline"], made.place / "baseline.log") as baseline,
        ):
            yield Stage(made, server, baseline, generator)


@contextmanager
def databases(names: Sequence[str]) -> Iterator[Databases]:
    with tempfile.TemporaryDirectory(prefix="segue-bench-") as directory:
        place = Path(directory)
        with EmbeddedPostgres(place / "data") as postgres:
            urls = _make_databases(postgres.start(), names)
            assert postgres.pid is not None
            yield Databases(urls, place, postgres.pid)


@contextmanager
def segue(made: Databases, database: str, environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """The server as it is shipped, over one of the databases."""
    port = free_port()
    command = ["bench.server", "serve", "--database-url", made.urls[database], "--port", str(port)]
    log = made.place / f"{database}.log"
    with serving(command, port, log, ready="/readyz", environment=environment) as server:
        yield server


@contextmanager
def _baseline(url: str, log: Path) -> Iterator[Server]:
    port = free_port()
    environment = {"DATABASE_URL": url, "PORT": str(port)}
    with serving(["bench.baseline.service"], port, log, ready="/livez", environment=environment) as server:
        yield server


def _make_databases(first_url: str, names: Sequence[str]) -> dict[str, str]:
    urls = {name: urlunsplit(urlsplit(first_url)._replace(path=f"/{name}")) for name in names}

    async def make() -> None:
        connection = await asyncpg.connect(first_url)
        existing = {row["datname"] for row in await connection.fetch("SELECT datname FROM pg_database")}
        for name in urls.keys() - existing:
            await connection.execute(f"CREATE DATABASE {name}")
        await connection.close()

    asyncio.run(make())
    return urls
