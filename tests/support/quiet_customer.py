"""A quiet customer: sends one ``track`` every 50 ms beside something heavy, and measures how long each takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from tests.support.server_process import Server

INTERVAL_SECONDS = 0.05


class Latencies:
    """Seconds of each request, and how many were not answered 200."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.failures = 0

    def percentile(self, percent: float) -> float:
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]

    def __str__(self) -> str:
        p50, p99, longest = (round(self.percentile(percent) * 1000) for percent in (50, 99, 100))
        return f"{len(self.seconds)} requests, p50 {p50} ms, p99 {p99} ms, max {longest} ms, {self.failures} failures"


@asynccontextmanager
async def quiet_customer(server: Server) -> AsyncIterator[Latencies]:
    """Send while the context is open. A request is due every 50 ms, also if earlier ones are still waiting."""
    latencies = Latencies()
    requests: set[asyncio.Task[None]] = set()

    async def send(http: httpx.AsyncClient) -> None:
        started_at = time.perf_counter()
        body = {"userId": "quiet", "event": "Visited"}
        try:
            response = await http.post("/v1/track", json=body, auth=(server.write_key, ""))
            latencies.failures += response.status_code != httpx.codes.OK
        except httpx.TransportError:
            latencies.failures += 1
        latencies.seconds.append(time.perf_counter() - started_at)

    async def repeat(http: httpx.AsyncClient) -> None:
        while True:
            request = asyncio.create_task(send(http))
            requests.add(request)
            request.add_done_callback(requests.discard)
            await asyncio.sleep(INTERVAL_SECONDS)

    async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
        sender = asyncio.create_task(repeat(http))
        try:
            yield latencies
        finally:
            sender.cancel()
            await asyncio.gather(*requests)
