"""Attacks of one client without a key: memory and the latency of a quiet customer stay within bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from tests.hostile import attacks
from tests.hostile.support import Figures, measure
from tests.support.server_process import Server

pytestmark = [pytest.mark.server, pytest.mark.hostile]

MEMORY_MB_MAX: Final = 16
P99_SECONDS_MAX: Final = 0.1


def check(result: Figures) -> None:
    assert result.latencies.failures == 0, result
    assert result.latencies.percentile(99) < P99_SECONDS_MAX, result
    assert result.peak_mb <= MEMORY_MB_MAX, result


@pytest.mark.parametrize(
    ("name", "attack"),
    [
        ("one header of 100 MB", attacks.send_huge_header),
        ("60 MB of small headers", attacks.send_many_headers),
        ("60 MB of trailers", attacks.send_many_trailers),
        ("1,000,000 pipelined requests", attacks.pipeline_requests),
        ("1,000 half-sent heads", attacks.hold_half_sent_heads),
        ("1,000 heads of 60 KB, half-sent", attacks.hold_large_heads),
        ("300 unfinished bodies of 499 KB", attacks.hold_unfinished_bodies),
        ("1,000 idle connections after a large head", attacks.hold_idle_connections),
        ("200 clients that read nothing", attacks.read_nothing),
        ("40 batches of 1,330,001 empty messages", attacks.send_gzip_of_empty_messages),
    ],
)
async def test_attack_without_a_key(target: Server, name: str, attack: Callable[..., Any]) -> None:
    check(await measure(name, target, attack))


async def test_long_internationalised_addresses(target: Server) -> None:
    check(await measure("2,500 long addresses", target, attacks.send_long_addresses, target.write_key))
