"""One customer with a very long history: what it costs others, and what its own messages and reads cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from tests.support.hot_customer import (
    USER,
    define_rules,
    median_read_seconds,
    median_seconds,
    send_history,
    send_one,
    wait_until_projected,
)
from tests.support.quiet_customer import Latencies, quiet_customer
from tests.support.server_process import Client, Server

pytestmark = [pytest.mark.server, pytest.mark.hostile]

TOUCHPOINTS = 100_000
RULES_OF_A_KIND = 4
MEASURED_SECONDS = 10.0

MakeServer = Callable[..., Server]


async def send_for_seconds(client: Client, first_number: int, seconds_late: float) -> int:
    """Send a touchpoint of the hot customer every 50 ms; return how many were not projected."""
    unprojected, end = 0, time.monotonic() + MEASURED_SECONDS
    number = first_number
    while time.monotonic() < end:
        number += 1
        unprojected += not (await send_one(client, USER, number, seconds_late * (number % 2)))[1]
        await asyncio.sleep(0.05)
    return unprojected


async def test_hot_customer_does_not_delay_others(make_server: MakeServer, database_url: str) -> None:
    server = make_server(database_url, SEGUE_BACKGROUND_PROCESS="true").start()
    figures: dict[str, Latencies] = {}
    async with server.client() as client:
        print(f"{await define_rules(client, RULES_OF_A_KIND)} segments")
        started_at = time.monotonic()
        unprojected = await send_history(client, USER, TOUCHPOINTS, days=60)
        rate = TOUCHPOINTS / (time.monotonic() - started_at)
        print(f"{rate:.0f} touchpoints/s, {unprojected} of {TOUCHPOINTS // 500} batches not projected")
        async with quiet_customer(server) as figures["a history in batches of 500, five a second"]:
            await send_history(client, "second", 20_000, days=60, pause=0.2)
        print(f"projected after {await wait_until_projected(client, 900):.0f} s")
        await asyncio.sleep(3)
        for name, late in (("a touchpoint every 50 ms", 0.0), ("every second touchpoint a minute late", 60.0)):
            async with quiet_customer(server) as figures[name]:
                unprojected = await send_for_seconds(client, int(10**9 * (1 + late)), late)
            print(f"{name}: {unprojected} not projected")
            assert unprojected == 0
        await send_one(client, "ordinary", 0)
        ordinary, hot = await median_seconds(client, "ordinary", 10), await median_seconds(client, USER, 10**12)
        read = await median_read_seconds(client)
        print(
            f"one message: ordinary {ordinary * 1000:.1f} ms, hot {hot * 1000:.1f} ms; read of hot {read * 1000:.1f} ms"
        )
    for name, latencies in figures.items():
        print(f"quiet customer beside {name}: {latencies}")
    for name, latencies in figures.items():
        assert latencies.failures == 0, name
        assert latencies.percentile(99) < 0.1, (name, str(latencies))
    assert hot < 3 * ordinary
    assert read < 0.2
