"""A running Segue beside a browser: keys of its own for each test, and what PostgreSQL holds in the end.

Playwright's synchronous API keeps an event loop running in the thread of the tests, so nothing here may use
``asyncio.run``: statements go to a thread with a loop of its own, requests through a blocking client.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, NamedTuple

import asyncpg
import httpx

from tests.support.faulty_proxy import Fault, FaultyProxy, running_proxy
from tests.support.server_process import Server

WAIT_SECONDS_MAX: Final = 10.0
_POLL_SECONDS: Final = 0.03

Row = dict[str, Any]

_MESSAGES: Final = """
SELECT message_id, type, name, channel, source, properties, context, traits, carried, occurred_at, received_at,
       sent_at, original_timestamp
FROM touchpoints WHERE source = $1 ORDER BY occurred_at, message_id COLLATE "C"
"""


class Database:
    """One connection, usable while a loop runs in the caller's thread."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="database", daemon=True)
        self._thread.start()
        self._connection: asyncpg.Connection[Any] = self._wait(self._connect())

    async def _connect(self) -> asyncpg.Connection[Any]:
        connection = await asyncpg.connect(self._url)
        await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
        return connection

    def _wait(self, work: Any) -> Any:
        future: Future[Any] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(30)

    def fetch(self, statement: str, *arguments: Any) -> list[Row]:
        return [dict(row) for row in self._wait(self._connection.fetch(statement, *arguments))]

    def execute(self, statement: str, *arguments: Any) -> None:
        self._wait(self._connection.execute(statement, *arguments))

    def close(self) -> None:
        self._wait(self._connection.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Source(NamedTuple):
    key: str
    write_key: str


class Segue:
    """The service, asked as the business's own server would ask, and its database, read behind its back."""

    def __init__(self, server: Server, database: Database) -> None:
        self.server = server
        self.database = database
        self.url = server.url
        self.port = server.port
        self.secret_key = server.secret_key
        self._http = httpx.Client(
            base_url=server.url, headers={"Authorization": f"Bearer {server.secret_key}"}, timeout=30
        )
        self._numbers = itertools.count(1)

    def close(self) -> None:
        self._http.close()

    def source(self, **fields: Any) -> Source:
        """A new source with its write key: whatever a test sends is told from what others send."""
        made = self.post("/v1/sources", {"key": f"site-{next(self._numbers)}", **fields})
        return Source(made["key"], made["write_key"])

    def get(self, path: str, **parameters: Any) -> Any:
        return self.ask("GET", path, params=parameters or None)

    def post(self, path: str, body: Any) -> Any:
        return self.ask("POST", path, json=body)

    def put(self, path: str, body: Any) -> Any:
        return self.ask("PUT", path, json=body)

    def ask(self, method: str, path: str, **rest: Any) -> Any:
        """The JSON of an answer, with the secret key. Raises AssertionError for anything but 2xx."""
        answer = self._http.request(method, path, **rest)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def messages(self, source: Source, *types: str) -> list[Row]:
        """What PostgreSQL holds from that source, in the one order; ``ids`` are what a message carried."""
        rows = self.database.fetch(_MESSAGES, source.key)
        for row in rows:
            row["ids"] = {kind: value for kind, value, *_ in row.pop("carried")}
        return [row for row in rows if not types or row["type"] in types]

    def until(self, source: Source, wanted: int | Callable[[Sequence[Row]], object], *types: str) -> list[Row]:
        """Wait until so many messages are there, or the condition holds. Raises AssertionError with what there is."""
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while True:
            rows = self.messages(source, *types)
            if len(rows) >= wanted if isinstance(wanted, int) else wanted(rows):
                return rows
            if time.monotonic() > deadline:
                told = [(row["type"], row["name"], row["properties"]) for row in rows]
                raise AssertionError(f"waited for {wanted}, and there is {told}")
            time.sleep(_POLL_SECONDS)

    def behind(self, *moods: Fault) -> AbstractContextManager[FaultyProxy]:
        """The same service through a proxy that misbehaves as told."""
        return running_proxy(self.port, *moods)


@contextmanager
def database_of(cluster_url: str, name: str, url: str) -> Iterator[Database]:
    """A new, empty database of that name; the service migrates it."""
    cluster = Database(cluster_url)
    try:
        cluster.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        database = Database(url)
        try:
            yield database
        finally:
            database.close()
    finally:
        cluster.close()
