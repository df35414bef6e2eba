"""A running Segue for browser tests, with access to its API and its database.

Playwright's synchronous API keeps an event loop running in the thread of the tests, so ``asyncio.run`` is not
available: statements run in a thread with its own loop, requests use a blocking client.
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
    """One database connection whose calls block, although an event loop runs in the caller's thread."""

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
    """A running Segue: API calls with the secret key, and direct access to its database."""

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
        """Create a source with a write key, so that each test has separate messages."""
        source = self.post("/v1/sources", {"key": f"site-{next(self._numbers)}", **fields})
        return Source(source["key"], source["write_key"])

    def get(self, path: str, **parameters: Any) -> Any:
        return self.request("GET", path, params=parameters or None)

    def post(self, path: str, body: Any) -> Any:
        return self.request("POST", path, json=body)

    def put(self, path: str, body: Any) -> Any:
        return self.request("PUT", path, json=body)

    def request(self, method: str, path: str, **options: Any) -> Any:
        """Send a request with the secret key and return its JSON. Raise AssertionError unless its status is 2xx."""
        response = self._http.request(method, path, **options)
        assert response.is_success, f"{method} {path}: {response.status_code} {response.text}"
        return response.json()

    def messages(self, source: Source, *types: str) -> list[Row]:
        """Return the stored messages of a source, ordered by time.

        ``ids`` contains the identities of a message by kind.
        """
        rows = self.database.fetch(_MESSAGES, source.key)
        for row in rows:
            carried = row.pop("carried")
            row["ids"] = {kind: value for kind, value, *_ in carried if not kind.startswith("$")}
        return [row for row in rows if not types or row["type"] in types]

    def wait_for(self, source: Source, condition: int | Callable[[Sequence[Row]], object], *types: str) -> list[Row]:
        """Wait until ``condition`` messages are stored, or until the condition is true.

        Raise AssertionError after a timeout.
        """
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while True:
            rows = self.messages(source, *types)
            if len(rows) >= condition if isinstance(condition, int) else condition(rows):
                return rows
            if time.monotonic() > deadline:
                stored = [(row["type"], row["name"], row["properties"]) for row in rows]
                raise AssertionError(f"waited for {condition}; stored: {stored}")
            time.sleep(_POLL_SECONDS)

    def with_faults(self, *faults: Fault) -> AbstractContextManager[FaultyProxy]:
        """Return a proxy in front of the service that injects these faults."""
        return running_proxy(self.port, *faults)


@contextmanager
def create_database(cluster_url: str, name: str, url: str) -> Iterator[Database]:
    """Create an empty database, which the service migrates."""
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
