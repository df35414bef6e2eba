"""Heavy reads over a base with long histories, while others send: latency of a quiet customer, rate of ingestion."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.end_to_end.test_background_process import DEAR_RULE
from tests.support.quiet_customer import Latencies, quiet_customer
from tests.support.server_process import Client, Server

pytestmark = [pytest.mark.server, pytest.mark.hostile]

CUSTOMERS = 10_000
HOT_CUSTOMERS = 5
HOT_TOUCHPOINTS = 20_000
MEASURED_SECONDS = 10.0
SENDERS = 4
ROUNDS = 3

MakeServer = Callable[..., Server]


@asynccontextmanager
async def running(*reads: Any) -> AsyncIterator[list[asyncio.Task[Any]]]:
    """Requests that run while the context is open; leaving it closes their connections."""
    tasks = [asyncio.create_task(read) for read in reads]
    await asyncio.sleep(1)
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def fill(client: Client) -> None:
    """Store customers with three touchpoints each, and hot customers with very many."""
    begin = datetime.now(UTC) - timedelta(days=250)

    def message(user: str, number: int) -> dict[str, Any]:
        instant = (begin + timedelta(minutes=number)).isoformat()
        return {"type": "track", "event": "ABC"[number % 3], "userId": user, "timestamp": instant}

    for first in range(0, CUSTOMERS, 500):
        users = [f"user-{number}" for number in range(first, first + 500)]
        await client.send(*(message(user, number) for user in users for number in range(3)))
    for hot in range(HOT_CUSTOMERS):
        for start in range(0, HOT_TOUCHPOINTS, 2_000):
            await client.send(*(message(f"hot-{hot}", start + number) for number in range(2_000)))


async def preview(client: Client, rule: Any = DEAR_RULE) -> int:
    answer = await client.http.post(
        "/v1/segments/preview", json={"rule": rule, "sample": 0}, headers=client.secret, timeout=300
    )
    return answer.status_code


async def get(client: Client, path: str) -> int:
    return (await client.http.get(path, headers=client.secret, timeout=300)).status_code


async def measure_rate(client: Client, name: str, seconds: float) -> float:
    """Return the messages a second that a few senders store in batches of 100."""
    stored = 0
    end = time.monotonic() + seconds

    async def send(sender: int) -> None:
        nonlocal stored
        batch = 0
        while time.monotonic() < end:
            batch += 1
            messages = [
                {"type": "track", "event": "D", "userId": f"{name}-{sender}-{batch}-{number}"} for number in range(100)
            ]
            await client.send(*messages)
            stored += len(messages)

    started_at = time.monotonic()
    await asyncio.gather(*(send(sender) for sender in range(SENDERS)))
    return stored / (time.monotonic() - started_at)


async def test_quiet_customer_and_rate_beside_heavy_reads(make_server: MakeServer, database_url: str) -> None:
    server = make_server(database_url, SEGUE_BACKGROUND_PROCESS="true").start()
    past = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    figures: dict[str, Latencies] = {}
    async with server.client() as client:
        await fill(client)
        await asyncio.sleep(5)
        attacks: list[tuple[str, list[Coroutine[Any, Any, int]]]] = [
            ("nothing", []),
            ("two previews of all customers", [preview(client), preview(client)]),
            (
                "eight reads of a long history as of the past",
                [get(client, f"/v1/customers/hot-{hot % HOT_CUSTOMERS}?as_of={past}") for hot in range(8)],
            ),
            ("eight explanations", [get(client, "/v1/customers/hot-0/journeys/six-stage/explain") for _ in range(8)]),
        ]
        for name, reads in attacks:
            async with running(*reads), quiet_customer(server) as latencies:
                await asyncio.sleep(MEASURED_SECONDS)
            figures[name] = latencies
            print(f"{name}: {latencies}")
        ratios = []
        for number in range(ROUNDS):
            alone = await measure_rate(client, f"alone-{number}", MEASURED_SECONDS)
            async with running(preview(client), preview(client)) as previews:
                beside = await measure_rate(client, f"beside-{number}", MEASURED_SECONDS)
                assert not any(read.done() for read in previews), "the previews are too short for this measurement"
            ratios.append(beside / alone)
            print(f"ingest alone {alone:.0f}/s, beside two previews {beside:.0f}/s, ratio {ratios[-1]:.2f}")
    for name, latencies in figures.items():
        assert latencies.failures == 0, name
        assert latencies.percentile(99) < 0.1, (name, str(latencies))
    assert statistics.median(ratios) >= 0.8
