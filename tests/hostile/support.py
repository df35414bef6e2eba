"""Measurement of a server during an attack: its resident memory, and the latency of a customer who sends quietly."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import httpx

from tests.support.server_process import Server

QUIET_SECONDS: Final = 0.05
"""Interval between two messages of the quiet customer."""
ATTACK_SECONDS_MAX: Final = 120.0
_SETTLE_SECONDS: Final = 1.0

figures: list[tuple[str, str]] = []
"""Name and figures of each attack of this run; the terminal summary prints them."""


@dataclass(frozen=True)
class Figures:
    """Latencies of the quiet customer in milliseconds, and resident memory of the server in megabytes."""

    p50: float
    p99: float
    slowest: float
    failures: int
    requests: int
    peak_mb: float
    kept_mb: float

    def __str__(self) -> str:
        return (
            f"quiet p50 {self.p50:7.1f} ms  p99 {self.p99:8.1f} ms  max {self.slowest:8.1f} ms  "
            f"failed {self.failures}/{self.requests}   memory peak +{self.peak_mb:.0f} MB, kept +{self.kept_mb:.0f} MB"
        )


class QuietCustomer:
    """A customer who sends one ``track`` every 50 ms, and notes the latency of each."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.seconds: list[float] = []
        self.failures = 0

    async def send_until(self, stop: Callable[[], bool]) -> None:
        async with httpx.AsyncClient(base_url=self._server.url, timeout=60) as client:
            while not stop():
                started_at = time.perf_counter()
                await self._send(client)
                took = time.perf_counter() - started_at
                self.seconds.append(took)
                await asyncio.sleep(max(0.0, QUIET_SECONDS - took))

    async def _send(self, client: httpx.AsyncClient) -> None:
        message = {"userId": "quiet", "event": "Page Viewed"}
        try:
            response = await client.post("/v1/track", json=message, auth=(self._server.write_key, ""))
        except httpx.TransportError:
            self.failures += 1
        else:
            self.failures += response.status_code != httpx.codes.OK


async def measure(name: str, server: Server, attack: Callable[..., Any], *arguments: Any) -> Figures:
    """Run an attack in a process of its own, beside a quiet customer, and return the figures.

    Raise AssertionError if the attack does not end within ``ATTACK_SECONDS_MAX``.
    """
    await _warm_up(server)
    before = resident_mb(server)
    _reset_peak(server)
    process = get_context("spawn").Process(target=attack, args=(server.port, *arguments))
    process.start()
    started_at = time.monotonic()
    customer = QuietCustomer(server)
    try:
        await customer.send_until(lambda: not process.is_alive() or time.monotonic() - started_at > ATTACK_SECONDS_MAX)
        assert not process.is_alive(), "the attack did not end in time"
    finally:
        process.kill()
        process.join()
    peak = peak_mb(server) - before
    await asyncio.sleep(_SETTLE_SECONDS)
    result = _summarise(customer, peak, resident_mb(server) - before)
    figures.append((name, str(result)))
    return result


async def _warm_up(server: Server) -> None:
    """Send for two seconds, so that the first requests, which load code and fill caches, are not counted."""
    end = time.monotonic() + 2
    await QuietCustomer(server).send_until(lambda: time.monotonic() > end)


def _summarise(customer: QuietCustomer, peak: float, remaining: float) -> Figures:
    ordered = sorted(seconds * 1_000 for seconds in customer.seconds)
    return Figures(
        p50=_percentile(ordered, 50),
        p99=_percentile(ordered, 99),
        slowest=ordered[-1],
        failures=customer.failures,
        requests=len(ordered),
        peak_mb=peak,
        kept_mb=remaining,
    )


def _percentile(ordered: list[float], percent: int) -> float:
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def resident_mb(server: Server) -> float:
    return _read_status(server, "VmRSS")


def peak_mb(server: Server) -> float:
    return _read_status(server, "VmHWM")


def _read_status(server: Server, field: str) -> float:
    for line in Path(f"/proc/{server.pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1_024
    raise AssertionError(f"/proc has no field {field}")


def _reset_peak(server: Server) -> None:
    """Reset VmHWM, the peak of the resident memory, to the present value."""
    Path(f"/proc/{server.pid}/clear_refs").write_text("5")
