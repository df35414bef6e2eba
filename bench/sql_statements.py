"""SQL statements of a flush: runs the application in this process and records the queries of its connection."""

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
    """Return the first words of the statements that a flush sends, in order, for each number of messages.

    Each message belongs to a different, usually new customer, because such a flush needs the most statements. The list
    includes BEGIN, COMMIT and the statement with which the pool resets the connection. Each size is flushed several
    times, and the most frequent list is returned. ``database_url`` is a migrated database.
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
                    if repetition:  # The first flush prepares the statements.
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
    """Return the statements from BEGIN on.

    Before BEGIN, the registry checks once a second whether definitions have changed.
    """
    begin, commit = statements.index("BEGIN"), statements.index("COMMIT")
    pool_reset = statements[commit + 1 : commit + 2]
    return tuple(statements[begin : commit + 1] + pool_reset)


def _first_words(statement: str) -> str:
    """Return the first three words of the statement, without leading comments."""
    lines = [line.strip() for line in statement.strip().splitlines() if not line.strip().startswith("--")]
    return " ".join(lines[0].split()[:3]).rstrip(";(,")
