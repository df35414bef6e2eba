"""SQL statements of a flush: runs the application in this process and logs the queries of its connection."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

import httpx

from app.config import Settings
from app.main import create_app
from app.postgres.pool import open_pool, transact
from app.registry.bootstrap import bootstrap
from bench.sample_messages import batch_body

REPETITIONS: Final = 5


async def list_flush_statements(database_url: str, sizes: Iterable[int]) -> dict[int, tuple[str, ...]]:
    """Return, for each number of messages, the first words of all statements that one flush sends, in order.

    Each message is from another customer, usually a new one, because that takes the most statements. The list includes
    BEGIN, COMMIT and what the pool sends when it takes the connection back. Each size is flushed several times and
    the most frequent list returned. ``database_url`` is a migrated database.
    """
    async with await open_pool(database_url, 1) as pool:
        keys = await transact(pool, bootstrap)
    assert keys is not None
    app = create_app(Settings.model_validate({"DATABASE_URL": database_url, "pool_connections_max": 1}), worker=False)
    queries: list[str] = []
    counts: dict[int, Counter[tuple[str, ...]]] = {size: Counter() for size in sizes}
    async with app.router.lifespan_context(app):
        async with app.state.services.pool.acquire() as connection:
            connection.add_query_logger(lambda logged: queries.append(logged.query))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://segue.example.com") as client:
            first = 0
            for repetition in range(1 + REPETITIONS):
                for size in counts:
                    await _send(client, keys.write_key, batch_body(first, size, 1, 0), size)
                    if repetition:  # the first prepares the statements
                        counts[size][_cut_flush([_first_words(query) for query in queries])] += 1
                    queries.clear()
                    first += size
    return {size: counter.most_common(1)[0][0] for size, counter in counts.items()}


async def _send(client: httpx.AsyncClient, write_key: str, body: bytes, size: int) -> None:
    headers = {"Content-Encoding": "gzip"}
    response = await client.post("/v1/batch", content=gzip.compress(body, 1), auth=(write_key, ""), headers=headers)
    receipt: dict[str, Any] = response.raise_for_status().json()
    if receipt["accepted"] != size:
        raise RuntimeError(f"not all messages were accepted: {receipt}")


def _cut_flush(statements: list[str]) -> tuple[str, ...]:
    """Drop what precedes BEGIN: once a second the registry checks whether definitions have changed."""
    begin, commit = statements.index("BEGIN"), statements.index("COMMIT")
    pool_reset = statements[commit + 1 : commit + 2]
    return tuple(statements[begin : commit + 1] + pool_reset)


def _first_words(statement: str) -> str:
    """Return the first three words after any leading comment."""
    lines = [line.strip() for line in statement.strip().splitlines() if not line.strip().startswith("--")]
    return " ".join(lines[0].split()[:3]).rstrip(";(,")
