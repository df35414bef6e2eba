"""How many SQL statements a flush takes: the whole application in this process, with a listener on its connection."""

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


async def statements_per_flush(database_url: str, sizes: Iterable[int]) -> dict[int, tuple[str, ...]]:
    """For each number of messages, all that one flush sends to PostgreSQL, by first words, in order.

    Every message is another customer's, new as a rule, which is what takes most statements. BEGIN and COMMIT count,
    and so does what the pool sends when the connection goes back to it. ``database_url`` is a migrated database. Each
    size is flushed several times; the commonest answer is given.
    """
    async with await open_pool(database_url, 1) as pool:
        keys = await transact(pool, bootstrap)
    assert keys is not None
    app = create_app(Settings.model_validate({"DATABASE_URL": database_url, "pool_connections_max": 1}), worker=False)
    heard: list[str] = []
    counts: dict[int, Counter[tuple[str, ...]]] = {size: Counter() for size in sizes}
    async with app.router.lifespan_context(app):
        async with app.state.services.pool.acquire() as only:
            only.add_query_logger(lambda logged: heard.append(logged.query))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://segue.example.com") as client:
            first = 0
            for repetition in range(1 + REPETITIONS):
                for size in counts:
                    await _send(client, keys.write_key, batch_body(first, size, 1, 0), size)
                    if repetition:  # the first prepares the statements
                        counts[size][_flush_of([_first_words(statement) for statement in heard])] += 1
                    heard.clear()
                    first += size
    return {size: counted.most_common(1)[0][0] for size, counted in counts.items()}


async def _send(client: httpx.AsyncClient, write_key: str, body: bytes, size: int) -> None:
    zipped = {"Content-Encoding": "gzip"}
    answer = await client.post("/v1/batch", content=gzip.compress(body, 1), auth=(write_key, ""), headers=zipped)
    receipt: dict[str, Any] = answer.raise_for_status().json()
    if receipt["accepted"] != size:
        raise RuntimeError(f"not everything was accepted: {receipt}")


def _flush_of(heard: list[str]) -> tuple[str, ...]:
    """From BEGIN on. What came before is the registry looking whether definitions have changed, once a second."""
    begin, commit = heard.index("BEGIN"), heard.index("COMMIT")
    reset = heard[commit + 1 : commit + 2]
    return tuple(heard[begin : commit + 1] + reset)


def _first_words(statement: str) -> str:
    """Of the statement itself, its leading comment left out."""
    lines = [line.strip() for line in statement.strip().splitlines() if not line.strip().startswith("--")]
    return " ".join(lines[0].split()[:3]).rstrip(";(,")
