"""Measurement of a server during an attack: its resident memory, and the latency of a customer who sends quietly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

from tests.support.quiet_customer import Latencies, quiet_customer
from tests.support.server_process import Server

MEASURED_SECONDS: Final = 7.0
"""Shortest measurement. The attack is repeated until then, so that the quiet customer sends about 140 messages."""
ATTACK_SECONDS_MAX: Final = 120.0
_WARM_UP_SECONDS: Final = 2.0
_SETTLE_SECONDS: Final = 1.0
_REQUESTS_MIN: Final = 100
"""Minimum number of requests of the quiet customer, so that the 99th percentile is not the slowest one."""

figures: list[tuple[str, str]] = []
"""Name and figures of each attack of this run; the terminal summary prints them."""


@dataclass(frozen=True)
class Figures:
    """Latencies of the quiet customer, and growth of the resident memory of the server in megabytes."""

    latencies: Latencies
    peak_mb: float
    remaining_mb: float

    def __str__(self) -> str:
        return f"{self.latencies}   memory peak +{self.peak_mb:.0f} MB, after +{self.remaining_mb:.0f} MB"


async def measure(name: str, server: Server, attack: Callable[..., Any], *arguments: Any) -> Figures:
    """Repeat an attack in a process of its own, beside a quiet customer, for ``MEASURED_SECONDS`` at least.

    The attack gets the port of the server and the arguments. Raise AssertionError if it does not end within
    ``ATTACK_SECONDS_MAX``.
    """
    async with quiet_customer(server):  # The first requests load code and fill caches, so they are not measured.
        await asyncio.sleep(_WARM_UP_SECONDS)
    before = resident_mb(server)
    _reset_peak(server)
    process = get_context("spawn").Process(target=_repeat, args=(attack, server.port, *arguments))
    process.start()
    try:
        async with quiet_customer(server) as latencies:
            ends_at = time.monotonic() + ATTACK_SECONDS_MAX
            while process.is_alive() and time.monotonic() < ends_at:
                await asyncio.sleep(0.1)
        assert process.exitcode == 0, "the attack did not end in time, or failed"
    finally:
        process.kill()
        process.join()
    assert len(latencies.seconds) >= _REQUESTS_MIN, latencies
    peak = peak_mb(server) - before
    await asyncio.sleep(_SETTLE_SECONDS)
    result = Figures(latencies, peak, resident_mb(server) - before)
    figures.append((name, str(result)))
    return result


def _repeat(attack: Callable[..., Any], *arguments: Any) -> None:
    ends_at = time.monotonic() + MEASURED_SECONDS
    while time.monotonic() < ends_at:
        attack(*arguments)


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
