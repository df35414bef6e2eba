"""Attacks of one client, mostly without a key: memory and the latency of a quiet customer stay within bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from tests.hostile import attacks
from tests.hostile.support import Figures, measure
from tests.support.server_process import Server

pytestmark = [pytest.mark.server, pytest.mark.hostile]

MEMORY_MB_MAX: Final = 16
KNOWN_MEMORY_MB_MAX: Final = 64
"""Bodies with a valid key, and their messages, may occupy ``SEGUE_QUEUE_BYTES_MAX``."""
P99_SECONDS_MAX: Final = 0.1


def check(result: Figures, memory_mb_max: int = MEMORY_MB_MAX) -> None:
    assert result.latencies.failures == 0, result
    assert result.latencies.percentile(99) < P99_SECONDS_MAX, result
    assert result.peak_mb <= memory_mb_max, result


EMPTY_MESSAGES: Final = attacks.build_batch([b"{}"] * 1_330_000)


@pytest.mark.parametrize(
    ("name", "attack", "arguments"),
    [
        ("one header of 100 MB", attacks.send_huge_header, ()),
        ("60 MB of small headers", attacks.send_many_headers, ()),
        ("60 MB of trailers", attacks.send_many_trailers, ()),
        ("1,000,000 pipelined requests", attacks.pipeline_requests, ()),
        ("1,000 half-sent heads", attacks.hold_half_sent_heads, ()),
        ("1,000 heads of 60 KB, half-sent", attacks.hold_large_heads, ()),
        ("300 unfinished bodies of 499 KB", attacks.hold_unfinished_bodies, ()),
        ("1,000 idle connections after a large head", attacks.hold_idle_connections, ()),
        ("200 clients that read nothing of the API document", attacks.read_nothing, ()),
        ("200 clients that read nothing of a script", attacks.read_nothing, ("/docs/swagger-ui-bundle.js",)),
        ("20 clients that request all pages", attacks.request_all_pages, ()),
        ("8 clients with 1,330,000 empty messages, no key", attacks.send_batches, (EMPTY_MESSAGES,)),
    ],
)
async def test_attack_without_a_key(
    target: Server, name: str, attack: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    check(await measure(name, target, attack, *arguments))


TRACK: Final = b'{"type":"track","userId":"u","event":"e","properties":{"a":"%b"}}'


@pytest.mark.parametrize(
    ("name", "items"),
    [
        ("1,330,000 empty messages", [b"{}"] * 1_330_000),
        ("5,000 empty messages", [b"{}"] * 5_000),
        ("lone surrogates", [TRACK % (b"\\ud800" * 5_000)] * 120),
        ("deep arrays", [b'{"a":' + b"[" * 3_000 + b"]" * 3_000 + b"}"] * 33),
    ],
)
@pytest.mark.parametrize("place", ["head", "body"])
async def test_expensive_batches_with_a_key(target: Server, name: str, items: list[bytes], place: str) -> None:
    key = target.write_key
    in_body = place == "body"
    body = attacks.build_batch(items, writeKey=key) if in_body else attacks.build_batch(items)
    arguments = (body, "" if in_body else key, 1)
    result = await measure(f"client with {name}, key in the {place}", target, attacks.send_batches, *arguments)
    check(result, KNOWN_MEMORY_MB_MAX)


async def test_long_internationalised_addresses(target: Server) -> None:
    body = attacks.build_long_addresses()
    arguments = (body, target.write_key, 1)
    check(await measure("client with 2,500 long addresses", target, attacks.send_batches, *arguments))
