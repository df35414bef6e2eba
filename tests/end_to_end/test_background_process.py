"""The background process: heavy reads beside ingestion, and what happens when a caller or a process ends."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from tests.support.hot_customer import (
    USER,
    define_rules,
    median_read_seconds,
    send_one,
    wait_until_projected,
)
from tests.support.hot_customer import send_history as send_history_of
from tests.support.quiet_customer import quiet_customer
from tests.support.server_process import Client, Server

DEAR_RULE = {"did": "*", "at_least": 2, "within": "10mo", "before": "1mo"}
"""A rule that scans all points after each touchpoint, so that a preview of a long history takes long."""

TOUCHPOINTS = 6_000

MakeServer = Callable[..., Server]


@pytest.fixture
def hot_server(make_server: MakeServer, database_url: str) -> Server:
    """Return a running server with a customer whose preview takes far longer than a test waits."""
    server = make_server(database_url, SEGUE_BACKGROUND_PROCESS="true").start()
    asyncio.run(send_history(server, TOUCHPOINTS))
    return server


async def send_history(server: Server, touchpoints: int) -> None:
    begin = datetime.now(UTC) - timedelta(days=200)
    messages = [
        {
            "type": "track",
            "event": "ABC"[number % 3],
            "userId": "hot",
            "timestamp": (begin + timedelta(minutes=number)).isoformat(),
        }
        for number in range(touchpoints)
    ]
    async with server.client() as client:
        for start in range(0, touchpoints, 500):
            await client.send(*messages[start : start + 500])


def find_background(server: Server) -> int:
    """Return the process id of the server's background process."""
    children = {pid for file in Path(f"/proc/{server.pid}/task").glob("*/children") for pid in file.read_text().split()}
    (background,) = (int(pid) for pid in children if "app.cli.background" in read_command(int(pid)))
    return background


def read_command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def measure_idle_background(server: Server) -> int:
    """Return the resident bytes of a background process that has answered one read."""
    server.start()
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {server.secret_key}"}) as client:
        assert client.post("/v1/segments/preview", json={"rule": {"did": "A"}}).status_code == 200
    pages = int(Path(f"/proc/{find_background(server)}/statm").read_text().split()[1])
    server.stop()
    return pages * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        await asyncio.sleep(0.05)


@asynccontextmanager
async def running_preview(client: Client) -> AsyncIterator[asyncio.Task[httpx.Response]]:
    """A preview that has started to compute; leaving the context closes its connection."""
    preview = asyncio.create_task(
        client.http.post("/v1/segments/preview", json={"rule": DEAR_RULE}, headers=client.secret, timeout=300)
    )
    await asyncio.sleep(1.5)
    assert not preview.done(), "the preview is too short for this test"
    try:
        yield preview
    finally:
        preview.cancel()
        await asyncio.gather(preview, return_exceptions=True)


async def preview_short_rule(client: Client) -> httpx.Response:
    return await client.http.post("/v1/segments/preview", json={"rule": {"did": "A"}}, headers=client.secret)


async def test_ingestion_does_not_wait_for_a_preview(hot_server: Server) -> None:
    async with hot_server.client() as client, running_preview(client), quiet_customer(hot_server) as latencies:
        await asyncio.sleep(5)
    assert latencies.failures == 0
    assert len(latencies.seconds) > 20
    # Generous, because other tests use the same cores; the bound is checked by tests/hostile.
    assert latencies.percentile(90) < 0.5, latencies
    assert latencies.percentile(100) < 3, latencies


async def test_hot_customer_does_not_delay_others(make_server: MakeServer, database_url: str) -> None:
    """A long history, late touchpoints and reads, with a quiet customer beside; tests/hostile has the tight bounds."""
    # A message needs up to 26 evaluations. So a batch of 1,000 reaches the limit, and a replay from the last
    # checkpoint, which is the end of the history, does not.
    server = make_server(database_url, SEGUE_BACKGROUND_PROCESS="true", SEGUE_FLUSH_EVALUATIONS_MAX="10000").start()
    async with server.client() as client:
        await define_rules(client, 1)
        async with quiet_customer(server) as latencies:
            unprojected = await send_history_of(client, USER, 3_000, days=3, size=1_000)
            assert unprojected > 0, "the limit of evaluations is never reached"
            await wait_until_projected(client, 60)
            await asyncio.sleep(1)  # A message that is late by a second must not be earlier than that checkpoint.
            for number in range(20):
                assert (await send_one(client, USER, 10**9 + number, seconds_late=number % 2))[1]
            assert await median_read_seconds(client) < 1
    assert latencies.failures == 0
    assert latencies.percentile(90) < 0.5, latencies


async def test_preview_ends_when_its_caller_disconnects(hot_server: Server) -> None:
    background = find_background(hot_server)
    async with hot_server.client() as client:
        async with running_preview(client):
            pass
        await asyncio.sleep(2)
        before = cpu_seconds(background)
        await asyncio.sleep(2)
        assert cpu_seconds(background) - before < 0.5, "the preview still computes"
        assert (await preview_short_rule(client)).status_code == 200


async def test_interrupt_ends_a_preview_at_once(hot_server: Server) -> None:
    background = find_background(hot_server)
    async with hot_server.client() as client, running_preview(client) as preview:
        interrupted_at = time.monotonic()
        hot_server.interrupt()
        response = await preview
        await asyncio.to_thread(hot_server.wait)
        assert time.monotonic() - interrupted_at < 8
        assert response.status_code == 503
    assert not read_command(background)


async def test_killed_background_process_restarts(hot_server: Server) -> None:
    background = find_background(hot_server)
    async with hot_server.client() as client:
        async with running_preview(client) as preview:
            os.kill(background, signal.SIGKILL)
            response = await preview
        assert (response.status_code, response.json()["code"]) == (503, "overloaded")
        assert response.headers["retry-after"].isdigit()
        await client.send({"type": "track", "event": "Visited", "userId": "quiet"})
        deadline = time.monotonic() + 30
        while (answer := await preview_short_rule(client)).status_code != 200 and time.monotonic() < deadline:
            assert answer.status_code == 503
            await asyncio.sleep(0.2)
        assert answer.json()["customers_total"] == 2
        assert find_background(hot_server) != background
        metrics = (await client.http.get("/metrics")).text
        assert "segue_background_restarts 1.0" in metrics
        assert (await client.http.get("/readyz")).json()["background"] is True


async def test_background_process_ends_with_a_killed_server(hot_server: Server) -> None:
    background = find_background(hot_server)
    async with hot_server.client() as client, running_preview(client):
        hot_server.kill()
        await wait_until(lambda: "app.cli.background" not in read_command(background), 10)


async def test_long_customer_is_read_in_the_background_process(hot_server: Server) -> None:
    async with hot_server.client() as client:
        past = (datetime.now(UTC) - timedelta(days=199)).isoformat()
        customer = await client.ask("/v1/customers/hot", as_of=past)
        assert [identity["value"] for identity in customer["identities"]] == ["hot"]
        missing = await client.http.get("/v1/customers/nobody", headers=client.secret)
        assert missing.status_code == 404
        forged = await client.http.get("/v1/customers/hot", headers={"Authorization": "Bearer sk_wrong"})
        assert forged.status_code == 401
        metrics = (await client.http.get("/metrics")).text
        (forwarded,) = (
            line
            for line in metrics.splitlines()
            if line.startswith("segue_requests_total") and '"/v1/customers/{customer}"' in line and "background" in line
        )
        assert forwarded.endswith(" 1.0")
        assert metrics.count("# TYPE segue_loop_lag_seconds histogram") == 1


async def test_read_has_a_time_limit(make_server: MakeServer, database_url: str) -> None:
    server = make_server(database_url, SEGUE_BACKGROUND_PROCESS="true", SEGUE_HEAVY_READ_SECONDS_MAX="2").start()
    await send_history(server, TOUCHPOINTS)
    async with server.client() as client:
        response = await client.http.post(
            "/v1/segments/preview", json={"rule": DEAR_RULE}, headers=client.secret, timeout=60
        )
        assert (response.status_code, response.json()["code"]) == (504, "read_timed_out")


async def test_read_beyond_the_memory_limit_fails_and_the_next_one_works(
    make_server: MakeServer, database_url: str
) -> None:
    first = make_server(database_url, SEGUE_BACKGROUND_PROCESS="true")
    idle_bytes = measure_idle_background(first)
    server = make_server(
        database_url,
        SEGUE_BACKGROUND_PROCESS="true",
        SEGUE_BACKGROUND_MEMORY_BYTES_MAX=str(idle_bytes + 20_000_000),
    ).start()
    document = {"text": "x" * 30_000}
    server.write_key, server.secret_key = first.write_key, first.secret_key
    async with server.client() as client:
        for number in range(30):
            batch = [
                {"messageId": f"{number}-{i}", "type": "track", "event": "D", "userId": "fat", "properties": document}
                for i in range(120)
            ]
            body = gzip.compress(json.dumps({"batch": batch}).encode(), 1)
            sent = await client.http.post(
                "/v1/batch", content=body, headers={"Content-Encoding": "gzip"}, auth=client.write
            )
            assert sent.status_code == 200, sent.text
        rule = {"did": "D", "where": {"text": "y"}}
        fat = await client.http.post("/v1/segments/preview", json={"rule": rule}, headers=client.secret, timeout=60)
        assert (fat.status_code, fat.json()["code"]) == (503, "read_too_large")
        assert "background.memory_exceeded" in {event["event"] for event in server.events()}
        await wait_until(lambda: "background.died" in {event["event"] for event in server.events()}, 10)
        await client.send({"type": "track", "event": "Visited", "userId": "quiet"})
        while (answer := await preview_short_rule(client)).status_code == 503:
            await asyncio.sleep(0.2)
        assert answer.json()["customers_total"] == 2


def test_server_without_a_background_process_answers_everything(make_server: MakeServer, database_url: str) -> None:
    server = make_server(database_url, SEGUE_BACKGROUND_PROCESS="false").start()
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {server.secret_key}"}) as client:
        assert client.get("/readyz").json()["background"] is None
        answer = client.post("/v1/segments/preview", json={"rule": {"did": "A"}})
        assert answer.json()["count"] == 0
